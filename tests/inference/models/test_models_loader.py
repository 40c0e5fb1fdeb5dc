"""The loader: what it takes, what it refuses, and what goes on serving meanwhile."""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from pytest_mock import MockerFixture
from structlog.testing import capture_logs

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.loader_status import LoaderStatus
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.adapter.canary import canary_logits
from kronos_service.model.adapter.files import AdapterNotWholeError
from kronos_service.model.adapter.read import attach, merge, read_adapter
from kronos_service.model.factory import BaseChoice, Bundle
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared import adapter_store
from kronos_shared.adapter_manifest import (
    EVENT_WEIGHTS,
    LATEST,
    MANIFEST,
    VERSIONS,
    AdapterManifest,
    Latest,
    version_name,
)
from kronos_shared.adapter_store import publish
from kronos_shared.atomic import replace_file

AdapterOf = Callable[[int], Path]
NewLoader = Callable[..., AdapterLoader]


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.002)


def logits(serving: ServedModel | None) -> torch.Tensor:
    assert serving is not None
    return torch.cat(canary_logits(serving.model, seed=5, length=24))


def version(status: LoaderStatus) -> str | None:
    return None if status.serving is None else status.serving.version


def test_what_serves_is_the_adapter_that_latest_names_and_computes_what_it_should(
    empty_store: Path, adapter_of: AdapterOf, bundle: Bundle, new_loader: NewLoader
) -> None:
    pointer = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    assert loader.current() is None
    status = loader.reload()
    serving = loader.current()
    assert serving is not None
    assert serving is status.serving
    assert (serving.version, serving.generation) == (pointer.version, 1)
    assert serving.digest == pointer.manifest_sha256
    assert serving.manifest == read_adapter(adapter_of(0)).manifest
    assert (status.reason, status.latest, status.pinned, status.last_refusal) == (None, pointer, None, None)
    expected = merge(attach(read_adapter(adapter_of(0)), bundle))
    assert torch.equal(logits(serving), torch.cat(canary_logits(expected, seed=5, length=24)))
    assert not serving.model.training
    assert not any(parameter.requires_grad for parameter in serving.model.parameters())


def test_an_adapter_made_before_epsilon_was_a_share_still_serves(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    directory = tmp_path / "earlier"
    shutil.copytree(adapter_of(0), directory)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    assert manifest["normalization"].pop("relative") is True
    manifest["normalization"]["epsilon"] = 1e-5
    (directory / MANIFEST).write_text(json.dumps(manifest))
    pointer = publish(directory, empty_store, keep=9)
    status = new_loader().reload()
    assert (version(status), status.reason) == (pointer.version, None)


def test_models_share_every_weight_that_lora_leaves_alone(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    serving = new_loader().reload().serving
    assert serving is not None
    base = {name: tensor.data_ptr() for name, tensor in serving.base.model.named_parameters()}
    own = {name for name, tensor in serving.model.named_parameters() if base.get(name) != tensor.data_ptr()}
    touched = {name for name in base if ".self_attn.q_proj." in name or ".self_attn.v_proj." in name}
    assert own == touched | {name for name in own if name.startswith("event_emb.")}


def test_in_bf16_the_model_is_rounded_and_its_base_is_not(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(1), empty_store, keep=5)
    serving = new_loader(precision="bf16").reload().serving
    assert serving is not None
    assert {one.dtype for one in serving.model.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in serving.base.model.parameters()} == {torch.float32}


def test_the_polling_thread_finds_each_new_generation(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    loader = new_loader()
    loader.start()
    eventually(lambda: "published" in (loader.status().reason or ""))
    for seed in range(3):
        pointer = publish(adapter_of(seed), empty_store, keep=9)
        eventually(lambda pointer=pointer: version(loader.status()) == pointer.version)  # type: ignore[misc]
    status = loader.status()
    assert (status.counters.loads, status.counters.swaps, status.counters.reloads) == (3, 3, 0)
    assert status.last_flip_seconds is not None
    assert 0 <= status.last_flip_seconds <= 0.010
    assert status.last_publish_to_live_seconds is not None
    assert 0 <= status.last_publish_to_live_seconds < 20
    loader.stop()
    publish(adapter_of(4), empty_store, keep=9)
    time.sleep(0.1)
    assert loader.current() is status.serving  # nobody looks any more, and what serves goes on serving


def test_an_old_publication_does_not_count_as_a_slow_one(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    os.utime(empty_store / LATEST, (1, 1))
    assert new_loader().reload().last_publish_to_live_seconds is None


def test_what_another_clock_dates_in_the_future_gives_no_time_to_live(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    later = time.time() + 1000
    os.utime(empty_store / LATEST, (later, later))
    assert new_loader().reload().last_publish_to_live_seconds is None


def test_a_request_keeps_the_model_it_began_with(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    began_with = loader.reload().serving
    before = logits(began_with)
    for seed in range(1, 5):
        publish(adapter_of(seed), empty_store, keep=1)
        assert not torch.equal(logits(loader.reload().serving), before)
    assert torch.equal(logits(began_with), before)


def test_without_an_adapter_the_base_serves_only_where_that_is_allowed(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    status = new_loader().reload()
    assert (status.serving, status.reason) == (None, "nothing has been published yet")
    loader = new_loader(allow_base_only=True)
    status = loader.reload()
    assert status.reason is None
    assert status.serving is not None
    assert (status.serving.version, status.serving.digest, status.serving.manifest) == (None, None, None)
    assert status.serving.model.event_emb is None
    assert (loader.reload().serving, loader.status().reason) == (status.serving, None)
    pointer = publish(adapter_of(0), empty_store, keep=9)
    assert version(loader.reload()) == pointer.version
    assert (
        new_loader(allow_base_only=True, base=None, state=empty_store.parent / "s2").reload().serving is None
    )


def test_a_reload_by_many_at_once_is_one_load(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def warm_up(serving: ServedModel) -> None:
        calls.append(serving.version)
        entered.set()
        assert leave.wait(20)

    loader = new_loader(warm_up=warm_up)
    answers: list[LoaderStatus] = []
    callers = [threading.Thread(target=lambda: answers.append(loader.reload())) for _ in range(12)]
    callers[0].start()
    assert entered.wait(20)
    for caller in callers[1:]:
        caller.start()
    time.sleep(0.1)
    assert loader.current() is None  # neither answer waits for the load
    assert loader.status().reason == "not loaded yet"
    leave.set()
    for caller in callers:
        caller.join(20)
    assert len(answers) == 12
    assert {version(status) for status in answers} == {calls[0]}
    assert len(calls) == 1
    assert loader.status().counters.reloads == 2  # the first, and one that began after all others had asked


def test_its_thread_bears_a_name_and_keeps_no_process_alive(new_loader: NewLoader) -> None:
    before = set(threading.enumerate())
    loader = new_loader()
    loader.start()
    loader.start()  # the second time there is nothing to do
    (thread,) = set(threading.enumerate()) - before
    assert (thread.name, thread.daemon) == ("adapter-loader", True)
    loader.stop()
    assert not thread.is_alive()


def test_the_same_adapter_under_another_generation_is_renamed_not_swapped(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    before = loader.look().serving
    second = Latest(
        generation=2,
        version=version_name(2, (adapter_of(0) / MANIFEST).read_bytes()),
        manifest_sha256=first.manifest_sha256,
    )
    (empty_store / LATEST).write_bytes(second.to_bytes())
    status = loader.look()
    assert before is not None
    assert status.serving is not None
    assert (status.serving.version, status.serving.generation) == (second.version, 2)
    assert status.serving.model is before.model
    assert status.serving.loaded_at == before.loaded_at
    assert (status.counters.loads, status.counters.swaps) == (1, 1)


def test_bytes_that_no_check_foresaw_are_a_verdict(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    with monkeypatch.context() as patch:
        patch.setattr("kronos_service.inference.models.cache.build", lambda *_, **__: 1 / 0)
        status = loader.look()
    reason = f"{first.version}: cannot be loaded: ZeroDivisionError: division by zero"
    assert (status.serving, status.reason) == (None, reason)
    assert (status.quarantined, status.counters.errors) == ({first.manifest_sha256: reason}, 0)
    assert loader.look().serving is None
    assert version(loader.reload()) == first.version


def test_a_base_that_was_read_for_a_rejected_adapter_is_not_read_again(
    empty_store: Path, new_loader: NewLoader, mocker: MockerFixture
) -> None:
    publish(next(SAMPLE_ADAPTERS.glob("versions/*")), empty_store, keep=9)
    loads = mocker.spy(BaseChoice, "load")
    loader = new_loader(base=None, warm_up=lambda _: 1 / 0)
    for _ in range(2):
        assert loader.reload().reason == "warm-up failed: ZeroDivisionError: division by zero"
    assert loads.call_count == 1


def test_stopping_waits_for_the_load_in_hand(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    pointer = publish(adapter_of(0), empty_store, keep=9)
    entered, leave = threading.Event(), threading.Event()

    def warm_up(_: ServedModel) -> None:
        entered.set()
        assert leave.wait(20)

    loader = new_loader(warm_up=warm_up)
    loader.start()
    assert entered.wait(20)
    stopping = threading.Thread(target=loader.stop)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()
    leave.set()
    stopping.join(20)
    assert not stopping.is_alive()
    assert version(loader.status()) == pointer.version


def test_what_serves_has_been_warmed_up_and_a_failure_to_warm_up_is_a_refusal(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    seen = []

    def warm_up(serving: ServedModel) -> None:
        seen.append((serving.version, loader.current()))
        if serving.generation == 2:
            raise RuntimeError("no kernel")

    loader = new_loader(warm_up=warm_up)
    loader.reload()
    assert seen == [(first.version, None)]
    second = publish(adapter_of(1), empty_store, keep=9)
    status = loader.reload()
    assert version(status) == first.version
    assert status.reason == "warm-up failed: RuntimeError: no kernel"
    assert status.quarantined == {second.manifest_sha256: status.reason}


def spoil(directory: Path) -> None:
    content = bytearray((directory / EVENT_WEIGHTS).read_bytes())
    content[-1] ^= 1
    (directory / EVENT_WEIGHTS).write_bytes(content)


def test_a_file_that_is_flipped_or_missing_is_looked_at_again_at_every_poll(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.start()
    eventually(lambda: version(loader.status()) == first.version)
    before = logits(loader.current())
    shutil.copytree(adapter_of(1), empty_store.parent / "good")
    second = publish(adapter_of(1), empty_store.parent / "elsewhere", keep=9)
    name = second.version.replace("000001", "000002")
    shutil.copytree(adapter_of(1), empty_store / VERSIONS / name)
    spoil(empty_store / VERSIONS / name)
    pointer = Latest(generation=2, version=name, manifest_sha256=second.manifest_sha256)
    replace_file(empty_store / LATEST, pointer.to_bytes())  # the loader polls: it must not see half a pointer
    eventually(lambda: loader.status().reason is not None)
    status = loader.status()
    assert status.reason == (
        f"{name}: event_emb.safetensors is not the file the manifest describes (size or sha256 differs)"
    )
    assert status.last_refusal is not None
    assert (status.last_refusal.version, status.last_refusal.digest) == (name, second.manifest_sha256)
    assert timedelta() <= datetime.now(UTC) - status.last_refusal.at < timedelta(minutes=1)
    assert status.quarantined == {}
    (empty_store / VERSIONS / name / EVENT_WEIGHTS).unlink()
    eventually(lambda: "is missing" in (loader.status().reason or ""))
    time.sleep(0.1)
    assert loader.status().counters.refusals == 2  # not one for each poll
    assert torch.equal(logits(loader.current()), before)
    shutil.copy(adapter_of(1) / EVENT_WEIGHTS, empty_store / VERSIONS / name)
    eventually(lambda: version(loader.status()) == name)
    assert loader.status().reason is None


def test_a_bad_digest_is_tried_once_until_somebody_asks(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    tried = []
    is_broken = True

    def warm_up(serving: ServedModel) -> None:
        tried.append(serving.generation)
        if serving.generation != 1 and is_broken:
            raise RuntimeError("out of memory")

    loader = new_loader(warm_up=warm_up)
    loader.start()
    eventually(lambda: version(loader.status()) == first.version)
    second = publish(adapter_of(1), empty_store, keep=9)
    eventually(lambda: bool(loader.status().quarantined))
    time.sleep(0.15)  # a dozen polls
    assert tried == [1, 2]
    loader.reload()
    assert tried == [1, 2, 2]
    is_broken = False
    status = loader.reload()
    assert version(status) == second.version
    assert (status.reason, status.quarantined) == (None, {})
    assert status.counters.refusals == 1


def test_generations_never_go_back_except_by_a_rollback(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    old = (empty_store / LATEST).read_bytes()
    second = publish(adapter_of(1), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    (empty_store / LATEST).write_bytes(old)
    status = loader.reload()
    assert version(status) == second.version
    assert status.reason == "generation 1 is older than 2, which was seen before"
    assert status.last_refusal is not None
    assert (status.last_refusal.version, status.last_refusal.digest) == (first.version, first.manifest_sha256)
    changed = Latest(generation=2, version=first.version, manifest_sha256=first.manifest_sha256)
    (empty_store / LATEST).write_bytes(changed.to_bytes())
    assert loader.reload().reason == f"generation 2 was {second.version} before"
    assert version(loader.status()) == second.version
    (empty_store / LATEST).write_bytes(second.to_bytes())
    status = loader.rollback()
    assert (version(status), status.reason) == (first.version, None)
    assert status.latest is not None
    assert (status.latest.generation, status.serving and status.serving.generation) == (3, 3)
    assert adapter_store.latest(empty_store) == status.latest


def test_a_pointer_that_is_gone_or_broken_leaves_what_serves(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    (empty_store / LATEST).unlink()
    assert loader.reload().reason == "LATEST.json is missing"
    for content in (b"", b"{", b"[]", b"[" * 4000, b" " * 5000, b'{"generation": 1, "generation": 2}'):
        (empty_store / LATEST).write_bytes(content)
        assert "LATEST.json is" in (loader.reload().reason or "")
    (empty_store / LATEST).unlink()
    (empty_store / LATEST).symlink_to(empty_store.parent / "state" / "last_good.json")
    assert loader.reload().reason == "LATEST.json is not a valid pointer: LATEST.json is a link"
    assert version(loader.status()) == first.version


def test_two_models_before_the_one_that_serves_stay_in_memory(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    versions = [publish(adapter_of(0), empty_store, keep=9).version]
    loader = new_loader()
    served = [loader.reload().serving]
    for seed in range(1, 5):
        versions.append(publish(adapter_of(seed), empty_store, keep=9).version)
        served.append(loader.reload().serving)
    assert loader.status().resident == tuple(reversed(versions[2:]))
    loads = loader.status().counters.loads
    shutil.rmtree(empty_store / VERSIONS / versions[2])
    status = loader.pin(versions[2])
    assert status.counters.loads == loads
    assert status.serving is not None
    assert served[2] is not None
    assert status.serving.model is served[2].model
    assert status.resident == (versions[2], versions[4], versions[3])


def test_a_base_that_is_not_there_is_a_reason_not_a_verdict(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, base_path: Path, tmp_path: Path
) -> None:
    pointer = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader(base=BaseChoice(model=str(tmp_path / "base")))
    status = loader.reload()
    assert status.serving is None
    assert "expected nano, mini, small, base" in (status.reason or "")
    assert status.quarantined == {}
    shutil.copytree(base_path, tmp_path / "base")
    assert version(loader.reload()) == pointer.version
    unnamed = new_loader(base=None).reload()
    assert "which cannot be found by name; configure the base" in (unnamed.reason or "")


def test_the_polling_thread_outlives_an_error_that_nobody_foresaw(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr("kronos_service.inference.models.latest.read_capped", lambda *_: 1 / 0)
        loader.start()
        eventually(lambda: loader.status().counters.errors > 2)
        assert [line["event"] for line in lines].count("adapter_unforeseen") == 1  # not at every poll
        assert loader.status().reason == "unforeseen ZeroDivisionError: division by zero"
    eventually(lambda: version(loader.status()) == pointer.version)
    assert loader.status().reason is None


def test_a_disk_in_trouble_is_said_and_counted(
    new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = new_loader(allow_base_only=True)
    with monkeypatch.context() as patch:

        def load(*_: object) -> Bundle:
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(BaseChoice, "load", load)
        for looks in (1, 2):
            status = loader.look()
            assert status.reason == "the disk cannot be used now (Input/output error); it is tried again"
            assert (status.serving, status.counters.errors) == (None, looks)
    assert loader.look().serving is not None


def test_a_base_that_cannot_be_found_is_told_beside_what_is_wrong_with_latest(
    empty_store: Path, new_loader: NewLoader, tmp_path: Path
) -> None:
    empty_store.mkdir()
    (empty_store / LATEST).write_text("{}")
    loader = new_loader(allow_base_only=True, base=BaseChoice(model=str(tmp_path / "base")))
    reason = loader.look().reason or ""
    assert reason.startswith(f"{LATEST} is not a valid pointer")
    assert "; the base: " in reason
    assert "expected nano, mini, small, base" in reason


def test_a_device_that_is_not_there_is_a_reason_not_a_verdict(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    status = new_loader(device="cuda:99").look()
    assert (status.serving, status.quarantined) == (None, {})
    assert "cuda:99" in (status.reason or "")


def test_other_files_under_a_version_s_name_are_never_read(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first, second = (publish(adapter_of(seed), empty_store, keep=9) for seed in range(2))
    shutil.rmtree(empty_store / VERSIONS / second.version)
    shutil.copytree(empty_store / VERSIONS / first.version, empty_store / VERSIONS / second.version)
    loader = new_loader()
    status = loader.look()  # all of it is a good adapter, and not the one that LATEST names
    assert (status.serving, status.quarantined) == (None, {})
    found, expected = first.manifest_sha256[:12], second.manifest_sha256[:12]
    assert status.reason == f"{second.version}: {MANIFEST} has sha256 {found}, expected {expected}"
    with pytest.raises(AdapterNotWholeError, match=f"{second.version}: its manifest has sha256 {found}"):
        loader.pin(second.version)
    assert loader.status().pinned is None


def test_a_version_that_a_link_brings_in_is_never_read(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    second = publish(adapter_of(1), empty_store, keep=9)
    (empty_store / VERSIONS / second.version).rename(empty_store.parent / "outside")
    (empty_store / VERSIONS / second.version).symlink_to(empty_store.parent / "outside")
    status = loader.reload()
    assert (version(status), status.reason) == (
        first.version,
        f"{second.version}: is a link, which may lead anywhere",
    )


def test_what_a_manifest_says_reaches_a_reason_as_one_short_line_without_paths(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    evil = shutil.copytree(adapter_of(0), tmp_path / "evil")
    manifest = AdapterManifest.from_bytes((evil / "manifest.json").read_bytes())
    base = manifest.base.model_copy(update={"repo": "\x1b[2J\n" + "x" * 9000, "content_sha256": "0" * 64})
    (evil / "manifest.json").write_bytes(manifest.model_copy(update={"base": base}).to_bytes())
    publish(evil, empty_store, keep=9)
    reason = new_loader().reload().reason
    assert reason is not None
    assert reason.isprintable()
    assert len(reason) < 600
    assert str(empty_store) not in reason

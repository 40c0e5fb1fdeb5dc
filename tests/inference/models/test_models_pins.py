"""Pins, rollbacks and restarts: what an operator asked for holds, and the last good one serves."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.loader_status import LoaderStatus
from kronos_service.inference.models.replica_state import LAST_GOOD, ReplicaStateError
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.adapter.canary import canary_logits
from kronos_service.model.adapter.files import AdapterError
from kronos_shared import adapter_store
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, LATEST, VERSIONS
from kronos_shared.adapter_store import StoreError, publish

AdapterOf = Callable[[int], Path]
NewLoader = Callable[..., AdapterLoader]


def logits(serving: ServedModel | None) -> torch.Tensor:
    assert serving is not None
    return torch.cat(canary_logits(serving.model, seed=5, length=24))


def version(status: LoaderStatus) -> str | None:
    return None if status.serving is None else status.serving.version


def spoil(directory: Path) -> None:
    content = bytearray((directory / EVENT_WEIGHTS).read_bytes())
    content[-1] ^= 1
    (directory / EVENT_WEIGHTS).write_bytes(content)


def fails_once(asked: list[str | None]) -> Callable[[ServedModel], None]:
    def warm_up(serving: ServedModel) -> None:
        asked.append(serving.version)
        if len(asked) == 1:
            raise ValueError("not this time")

    return warm_up


def test_a_pin_holds_against_newer_generations_and_a_restart(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    versions = [publish(adapter_of(seed), empty_store, keep=9).version for seed in range(2)]
    loader = new_loader()
    live = loader.reload().last_publish_to_live_seconds
    status = loader.pin(versions[0])
    assert (version(status), status.pinned, status.reason) == (versions[0], versions[0], None)
    assert status.last_publish_to_live_seconds == live  # that was of LATEST; a pin is no news
    versions.append(publish(adapter_of(2), empty_store, keep=9).version)
    status = loader.reload()
    assert version(status) == versions[0]
    assert status.latest is not None
    assert status.latest.version == versions[2]
    again = new_loader()
    status = again.reload()
    assert (version(status), status.pinned) == (versions[0], versions[0])
    status = again.pin(None)
    assert (version(status), status.pinned) == (versions[2], None)
    assert again.pin(None).pinned is None  # to follow LATEST already is no mistake
    assert version(new_loader().reload()) == versions[2]


def test_a_pin_does_not_depend_on_latest(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    versions = [publish(adapter_of(seed), empty_store, keep=9).version for seed in range(2)]
    loader = new_loader()
    loader.reload()
    (empty_store / LATEST).write_text("{}")
    status = loader.pin(versions[0])
    assert (version(status), status.reason) == (versions[0], None)
    assert status.last_refusal is not None
    assert "not a valid pointer" in status.last_refusal.reason
    status = loader.pin(None)
    assert version(status) == versions[0]
    assert "not a valid pointer" in (status.reason or "")


def test_a_pin_outlives_the_version_in_the_store(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    versions = [publish(adapter_of(seed), empty_store, keep=9).version for seed in range(2)]
    new_loader().pin(versions[0])
    shutil.rmtree(empty_store / VERSIONS / versions[0])
    status = new_loader().reload()
    assert (version(status), status.pinned) == (versions[0], versions[0])
    assert status.reason == f"{versions[0]}: is missing from versions"


@pytest.mark.parametrize("name", ["000009-0123456789ab", "../../state", "", "/etc", "000001-0123456789ab\n"])
def test_a_pin_or_rollback_to_what_is_not_there_changes_nothing(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, name: str
) -> None:
    publish(adapter_of(0), empty_store, keep=9)
    first = publish(adapter_of(1), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    for change in (loader.pin, loader.rollback):
        with pytest.raises(AdapterError, match=r"expected a version such as|is missing"):
            change(name)
    assert version(loader.reload()) == first.version
    assert (loader.status().pinned, adapter_store.latest(empty_store)) == (None, first)


def test_what_a_rollback_loads_beside_a_pin_is_named_as_resident(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    versions = [publish(adapter_of(seed), empty_store, keep=9).version for seed in range(3)]
    loader = new_loader()
    assert loader.pin(versions[2]).resident == (versions[2],)
    status = loader.rollback(versions[0])
    assert (version(status), status.resident) == (versions[2], (versions[2], versions[0]))
    shutil.rmtree(empty_store / VERSIONS / versions[0])
    assert version(loader.pin(versions[0])) == versions[0]


def test_a_rollback_to_what_would_be_refused_is_not_published(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first, second = (publish(adapter_of(seed), empty_store, keep=9) for seed in range(2))
    spoil(empty_store / VERSIONS / first.version)
    loader = new_loader()
    loader.reload()
    with pytest.raises(AdapterError, match="not the file the manifest describes"):
        loader.rollback()
    with pytest.raises(StoreError, match="is LATEST already"):
        loader.rollback(second.version)
    assert adapter_store.latest(empty_store) == second


def test_the_last_good_adapter_serves_after_a_restart_although_latest_is_bad_and_it_is_gone(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    before = logits(new_loader().reload().serving)
    second = publish(adapter_of(1), empty_store, keep=9)
    spoil(empty_store / VERSIONS / second.version)
    shutil.rmtree(empty_store / VERSIONS / first.version)
    with capture_logs() as lines:
        status = new_loader().reload()
    (told,) = (line for line in lines if line["event"] == "adapter_serves")
    assert (told["version"], told["reason"]) == (first.version, status.reason)
    assert version(status) == first.version
    assert status.last_publish_to_live_seconds is None
    assert torch.equal(logits(status.serving), before)
    assert "not the file the manifest describes" in (status.reason or "")
    shutil.rmtree(empty_store)
    status = new_loader().reload()
    assert (version(status), status.reason) == (first.version, "LATEST.json is missing")


def test_the_last_good_adapter_is_checked_again(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    new_loader().reload()
    shutil.rmtree(empty_store)
    spoil(tmp_path / "state" / VERSIONS / first.version)
    status = new_loader().reload()
    assert status.serving is None
    assert "the last good one" in (status.reason or "")
    assert "not the file the manifest describes" in (status.reason or "")
    (tmp_path / "state" / "last_good.json").write_text("{}")
    assert "last_good.json of the state directory cannot be read" in (new_loader().reload().reason or "")


def test_a_last_good_adapter_that_is_rejected_is_tried_again_when_somebody_asks_and_not_at_every_look(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    new_loader().reload()
    shutil.rmtree(empty_store)
    asked: list[str | None] = []
    loader = new_loader(warm_up=fails_once(asked))
    for status in (loader.look(), loader.look()):
        assert status.serving is None
        assert list(status.quarantined) == [first.manifest_sha256]
        assert "the last good one: warm-up failed: ValueError: not this time" in (status.reason or "")
    assert asked == [first.version]
    status = loader.reload()
    assert (version(status), status.quarantined) == (first.version, {})


def test_a_rejected_version_is_tried_again_when_somebody_pins_it(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader(warm_up=fails_once([]))
    assert list(loader.look().quarantined) == [first.manifest_sha256]
    status = loader.pin(first.version)
    assert (version(status), status.pinned, status.quarantined) == (first.version, first.version, {})


def test_a_rejected_latest_is_tried_again_when_somebody_removes_the_pin(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    second = publish(adapter_of(1), empty_store, keep=9)
    loader = new_loader(warm_up=fails_once([]))
    assert list(loader.look().quarantined) == [second.manifest_sha256]
    first = publish(adapter_of(0), empty_store, keep=9)
    assert version(loader.pin(first.version)) == first.version
    adapter_store.rollback(empty_store, second.version)
    status = loader.pin(None)
    assert (version(status), status.quarantined, status.reason) == (second.version, {}, None)


def test_a_rejected_pin_is_tried_again_when_somebody_asks_for_a_reload_and_not_at_every_look(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    new_loader().pin(first.version)
    (tmp_path / "state" / LAST_GOOD).unlink()
    asked: list[str | None] = []
    loader = new_loader(warm_up=fails_once(asked))
    for status in (loader.look(), loader.look()):
        assert (status.serving, status.pinned) == (None, first.version)
        assert status.reason == "warm-up failed: ValueError: not this time"
    assert asked == [first.version]
    assert version(loader.reload()) == first.version


def test_a_pin_that_cannot_be_read_is_no_leave_to_follow_latest(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.pin(first.version)
    second = publish(adapter_of(1), empty_store, keep=9)
    (tmp_path / "state" / "pin.json").write_text("{}")
    again = new_loader()
    status = again.reload()
    assert version(status) == first.version
    assert "pin.json of the state directory cannot be read" in (status.reason or "")
    assert version(again.pin(None)) == second.version


def test_a_state_directory_that_cannot_be_written_costs_the_memory_not_the_service(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    (tmp_path / "file").write_text("")
    loader = new_loader(state=tmp_path / "file" / "state")
    with capture_logs() as lines:
        status = loader.reload()
        loader.reload()
    assert [line["event"] for line in lines].count("state_unsaved") == 1  # not at every look
    assert (version(status), status.reason) == (first.version, None)
    assert "cannot write the state directory" in (status.state_unsaved or "")
    with pytest.raises(ReplicaStateError, match="a restart would lose"):
        loader.pin(first.version)
    assert loader.status().pinned is None
    (tmp_path / "file").unlink()
    assert loader.reload().state_unsaved is None


def test_the_state_must_lie_outside_the_store(empty_store: Path, new_loader: NewLoader) -> None:
    with pytest.raises(ReplicaStateError, match="lies inside the store"):
        new_loader(state=empty_store / "state")

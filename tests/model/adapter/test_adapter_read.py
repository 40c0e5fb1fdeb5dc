"""A good adapter, spoiled in every way that we could think of: each is refused with its reason, and the
last good one goes on answering with the same bits.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_damage import KINDS, Bomb, Files, put, seal, spoil
from memory_bucket import keys, read, unlink, write
from object_store import ObjectStore

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.model.adapter.canary import canary_logits
from kronos_service.model.adapter.read import NoAdapterError, find_adapter
from kronos_service.model.factory import BaseChoice
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import FILES, LARGEST, MANIFEST, VERSIONS
from kronos_shared.adapter_store import publish

MUTATIONS = 110 * int(os.environ.get("SOAK", "1"))

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes are POSIX")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def loader(store: Path, base_path: Path, tmp_path: Path) -> AdapterLoader:
    return AdapterLoader(store, state=tmp_path / "state", base=BaseChoice(model=str(base_path)))


@pytest.fixture
def good(adapter_of: Callable[[int], Path]) -> Files:
    directory = adapter_of(1)
    return {name: (directory / name).read_bytes() for name in (*FILES, MANIFEST)}


def test_an_adapter_is_named_by_its_directory_or_as_the_latest_of_a_store(
    adapter_of: Callable[[int], Path], store: Path
) -> None:
    with pytest.raises(
        NoAdapterError, match=f"{store} holds no adapter: expected a manifest.json or a LATEST"
    ):
        find_adapter(store)
    publish(adapter_of(1), store, keep=5)
    newest = publish(adapter_of(2), store, keep=5)
    assert find_adapter(store) == store / VERSIONS / newest.version
    assert find_adapter(str(adapter_of(1))) == adapter_of(1)
    assert (find_adapter("sample") / MANIFEST).exists()
    with pytest.raises(NoAdapterError, match="named with its commit"):
        find_adapter("hub:someone/fomc@main")


def answer(loader: AdapterLoader) -> torch.Tensor:
    serving = loader.current()
    assert serving is not None
    return torch.cat(canary_logits(serving.model, seed=9, length=24))


def copy_to(bucket: StoreUrl, store: Path) -> None:
    """Make a bucket hold the files of a directory, and nothing else; links and pipes are not files there."""
    files = {key for key in keys(store) if (store / key).resolve() == store.resolve() / key}
    for key in keys(bucket) - files:
        unlink(bucket, key)
    for key in files:
        write(bucket, key, read(store, key))


def check_mutations(
    numbers: range,
    store: Path,
    last_good: Path,
    good: Files,
    loader: AdapterLoader,
    *,
    publish: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """Mutation -> the reason for which it was refused.

    Args:
        publish: copies the store to where the loader follows it, where that is elsewhere.
    """
    put(store, 1, {name: (last_good / name).read_bytes() for name in (*FILES, MANIFEST)})
    publish()
    assert loader.reload().reason is None
    serving, expected = loader.current(), answer(loader)
    Bomb.trace = store.parent / "unpickled"
    reasons = {}
    for number in numbers:
        shutil.rmtree(store / VERSIONS)
        group, pointer = spoil(store, number, good)
        publish()
        name = f"{number} {group} {KINDS[number % len(KINDS)][1]}"
        status = loader.reload()
        assert status.reason, name
        assert status.reason.isprintable(), name
        assert "cannot be loaded" not in status.reason, (name, status.reason)  # a check must have foreseen it
        assert status.counters.errors == 0, (name, status.reason)
        assert status.last_refusal is not None
        assert status.last_refusal.reason == status.reason, name
        is_condemned = pointer.manifest_sha256 in status.quarantined
        size = (store / VERSIONS / pointer.version / MANIFEST).stat().st_size if group == "manifest" else 0
        is_guilty = group in ("sealed", "tensors", "manifest") and size <= LARGEST[MANIFEST]
        assert is_condemned == is_guilty, (name, status.reason)
        assert loader.current() is serving, name
        assert torch.equal(answer(loader), expected), name
        reasons[name] = status.reason
    assert not Bomb.trace.exists()
    return reasons


def test_each_kind_of_mutation_is_refused_and_the_good_one_is_not(
    store: Path, adapter_of: Callable[[int], Path], good: Files, loader: AdapterLoader
) -> None:
    numbers = range(2, 2 + len(KINDS))
    reasons = check_mutations(numbers, store, adapter_of(0), good, loader)
    assert len(set(reasons.values())) > len(KINDS) / 2  # specific, rather than one excuse for all
    seal(good, tensors=True)  # what the mutations do to a manifest is not what makes them bad
    pointer = put(store, 1000, good)
    status = loader.reload()
    assert status.reason is None
    assert status.serving is not None
    assert status.serving.version == pointer.version


@pytest.mark.soak
def test_every_mutation_is_refused_and_the_last_good_one_answers_with_the_same_bits(
    store: Path, adapter_of: Callable[[int], Path], good: Files, loader: AdapterLoader
) -> None:
    first = 2 + len(KINDS)
    numbers = range(first, first + MUTATIONS)
    reasons = check_mutations(numbers, store, adapter_of(0), good, loader)
    assert len(reasons) == MUTATIONS


@pytest.mark.soak
def test_every_mutation_in_a_bucket_is_refused_and_the_last_good_one_answers_with_the_same_bits(
    store: Path,
    adapter_of: Callable[[int], Path],
    good: Files,
    object_store: ObjectStore,
    base_path: Path,
    tmp_path: Path,
) -> None:
    bucket = object_store.new_store()
    loader = AdapterLoader(bucket, state=tmp_path / "state", base=BaseChoice(model=str(base_path)))
    numbers = range(2, 2 + MUTATIONS)
    reasons = check_mutations(
        numbers, store, adapter_of(0), good, loader, publish=lambda: copy_to(bucket, store)
    )
    assert len(reasons) == MUTATIONS

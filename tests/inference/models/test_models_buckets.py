"""The loader follows a bucket as it follows a directory; what it has fetched serves without the bucket."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from memory_bucket import buckets_in_memory, keys, read, unlink, write

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.loader_status import LoaderStatus
from kronos_service.model.adapter.files import AdapterError, AdapterNotWholeError
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, LATEST, MANIFEST, VERSIONS
from kronos_shared.adapter_store import publish

AdapterOf = Callable[[int], Path]
NewLoader = Callable[..., AdapterLoader]


@pytest.fixture
def empty_store() -> Iterator[StoreUrl]:
    with buckets_in_memory():
        yield StoreUrl("s3://bucket/desk/adapters")


def version(status: LoaderStatus) -> str | None:
    return None if status.serving is None else status.serving.version


def test_it_follows_pins_and_rolls_back(
    empty_store: StoreUrl, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    loader = new_loader()
    assert loader.look().reason == "nothing has been published yet"
    first = publish(adapter_of(0), empty_store, keep=9)
    status = loader.look()
    assert (version(status), status.latest, status.reason) == (first.version, first, None)
    assert status.last_publish_to_live_seconds is not None
    assert 0 <= status.last_publish_to_live_seconds < 60
    second = publish(adapter_of(1), empty_store, keep=9)
    assert version(loader.look()) == second.version
    status = new_loader(state=tmp_path / "elsewhere").pin(first.version)  # it has loaded nothing before
    assert (version(status), status.pinned, status.reason) == (first.version, first.version, None)
    status = loader.rollback()
    assert (version(status), status.serving and status.serving.generation) == (first.version, 3)


def test_what_is_not_there_is_named_without_the_bucket(
    empty_store: StoreUrl, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.look()
    absent = "000009-0123456789ab"
    with pytest.raises(AdapterNotWholeError, match=rf"{absent}: {MANIFEST} is missing"):
        loader.pin(absent)
    with pytest.raises(AdapterError, match="expected a version such as"):
        loader.pin("../../LATEST.json")
    write(empty_store, LATEST, b"{}")
    status = loader.look()
    assert version(status) == first.version
    assert str(empty_store) not in (status.reason or "")
    assert (status.reason or "").startswith(f"{LATEST}")
    write(empty_store, LATEST, first.to_bytes())
    assert loader.look().reason is None


def test_a_file_that_is_spoilt_or_missing_is_fetched_again_at_every_look(
    empty_store: StoreUrl, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.look()
    second = publish(adapter_of(1), empty_store, keep=9)
    key = f"{VERSIONS}/{second.version}/{EVENT_WEIGHTS}"
    whole = read(empty_store, key)
    write(empty_store, key, whole[:-1] + bytes([whole[-1] ^ 1]))
    for _ in range(2):
        status = loader.look()
        assert (version(status), status.quarantined, status.counters.errors) == (first.version, {}, 0)
        assert f"{EVENT_WEIGHTS} is not the file the manifest describes" in (status.reason or "")
    assert status.counters.refusals == 1
    unlink(empty_store, key)
    for _ in range(2):
        status = loader.look()
        assert (version(status), status.quarantined, status.counters.errors) == (first.version, {}, 0)
        assert status.reason == f"{second.version}: {EVENT_WEIGHTS} is missing"
    write(empty_store, key, whole)
    assert version(loader.look()) == second.version
    assert list((tmp_path / "state" / "fetched").rglob(second.version))  # its own copy, not the user's cache


def test_a_bucket_that_does_not_answer_costs_nothing_and_is_asked_again(
    empty_store: StoreUrl, adapter_of: AdapterOf, new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.look()

    def fails(*_args: Any, **_more: Any) -> Any:
        raise obstore.exceptions.GenericError("status code: 503 Slow Down: <Code>SlowDown</Code>")

    why = "cannot use adapters: the store answers 503 SlowDown; try again later"
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get", fails)
        status = loader.look()
        assert (version(status), status.quarantined, status.counters.errors) == (first.version, {}, 0)
        assert status.reason == why
        status = new_loader().look()  # a restart meanwhile serves the copy of its own
        assert (version(status), status.reason) == (first.version, why)
    second = publish(adapter_of(1), empty_store, keep=9)
    status = loader.look()
    assert (version(status), status.reason) == (second.version, None)


def test_the_last_good_adapter_outlives_the_bucket(
    empty_store: StoreUrl, adapter_of: AdapterOf, new_loader: NewLoader
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    new_loader().look()
    for key in keys(empty_store):
        unlink(empty_store, key)
    status = new_loader().look()
    assert (version(status), status.reason) == (first.version, f"{LATEST} is missing")

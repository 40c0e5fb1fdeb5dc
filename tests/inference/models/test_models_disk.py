"""An error of the disk is no verdict: it is said, tried again, and costs nothing once it has passed."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.loader_status import LoaderStatus
from kronos_service.inference.models.replica_state import LAST_GOOD
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, LATEST, MANIFEST, VERSIONS
from kronos_shared.adapter_store import StoreError, publish, published

AdapterOf = Callable[[int], Path]
NewLoader = Callable[..., AdapterLoader]

CALLS = ("open", "stat", "lstat", "listdir", "scandir")


@contextmanager
def failing(root: Path, *calls: str, number: int = errno.EACCES) -> Iterator[None]:
    """The system calls fail on this path and, but for a listing, on all below it (tests may run as root)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in calls or CALLS:
            real = getattr(os, name)

            def call(path: Any, *args: Any, real: Any = real, **more: Any) -> Any:
                if isinstance(path, str | Path) and Path(path).absolute().is_relative_to(root):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *args, **more)

            patch.setattr(os, name, call)
        yield


def version(status: LoaderStatus) -> str | None:
    return None if status.serving is None else status.serving.version


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("calls", [("listdir",), ("open",), ("lstat",), CALLS])
def test_a_version_that_cannot_be_read_for_a_while_serves_afterwards(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, calls: tuple[str, ...], number: int
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    second = publish(adapter_of(1), empty_store, keep=9)
    with failing(empty_store / VERSIONS / second.version, *calls, number=number):
        status = loader.look()
        assert version(status) == first.version
        assert status.quarantined == {}
        assert second.version in (status.reason or "")
        if number == errno.EACCES:
            assert "not permitted to this user" in (status.reason or "")
    status = loader.look()
    assert (version(status), status.reason) == (second.version, None)


@pytest.mark.parametrize("name", [MANIFEST, EVENT_WEIGHTS])
def test_so_does_one_of_which_a_file_cannot_be_read(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, name: str
) -> None:
    only = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    with failing(empty_store / VERSIONS / only.version / name):
        status = loader.look()
        assert (version(status), status.quarantined) == (None, {})
    assert version(loader.look()) == only.version


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_machine_in_trouble_is_not_held_against_the_adapter(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, error: Exception
) -> None:
    only = publish(adapter_of(0), empty_store, keep=9)
    troubles = [error]

    def warm_up(_: object) -> None:
        if troubles:
            raise troubles.pop()

    loader = new_loader(warm_up=warm_up)
    status = loader.look()
    assert (version(status), status.quarantined) == (None, {})
    assert version(loader.look()) == only.version


@pytest.mark.parametrize("calls", [("open",), ("lstat",), CALLS])
def test_a_store_that_cannot_be_read_is_not_an_empty_one(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, calls: tuple[str, ...]
) -> None:
    only = publish(adapter_of(0), empty_store, keep=9)
    loader = new_loader()
    with failing(empty_store, *calls):
        status = loader.look()
        assert status.serving is None
        assert (status.reason or "").startswith(f"{LATEST} is not permitted to this user")
    with failing(empty_store), pytest.raises(StoreError, match="not permitted"):
        published(empty_store)
    assert version(loader.look()) == only.version


@pytest.mark.parametrize("calls", [("lstat",), CALLS])
def test_a_state_directory_that_cannot_be_read_costs_the_memory_not_the_service(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path, calls: tuple[str, ...]
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    state = tmp_path / "state"
    state.mkdir()
    loader = new_loader()
    with failing(state, *calls):
        status = loader.look()
        assert version(status) == first.version
        assert (status.reason or "").startswith("pin.json of the state directory is not permitted")
        second = publish(adapter_of(1), empty_store, keep=9)
        assert version(loader.look()) == second.version
    status = loader.look()
    assert (status.reason, status.state_unsaved) == (None, None)


def test_a_pin_holds_while_it_cannot_be_read(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first, second = (publish(adapter_of(seed), empty_store, keep=9) for seed in range(2))
    loader = new_loader()
    loader.pin(first.version)
    with failing(tmp_path / "state" / "pin.json"):
        assert version(loader.look()) == first.version
        # a new process does not know the pin, but what served last
        status = new_loader().look()
        assert version(status) == first.version
        assert "pin.json of the state directory is not permitted" in (status.reason or "")
    with failing(tmp_path / "state"):  # not even whether something served before can be told
        status = loader.look()
        assert (version(status), status.pinned) == (first.version, first.version)
        assert "pin.json of the state directory is not permitted" in (status.reason or "")
    assert version(loader.pin(None)) == second.version


def test_a_last_good_one_that_is_not_valid_still_tells_that_there_may_be_a_pin(
    empty_store: Path, adapter_of: AdapterOf, new_loader: NewLoader, tmp_path: Path
) -> None:
    first, _ = (publish(adapter_of(seed), empty_store, keep=9) for seed in range(2))
    new_loader().pin(first.version)
    (tmp_path / "state" / LAST_GOOD).write_text("{}")
    again = new_loader()
    with failing(tmp_path / "state" / "pin.json"):
        status = again.look()
        assert version(status) is None
        assert "pin.json of the state directory is not permitted" in (status.reason or "")
        assert "last_good.json of the state directory cannot be read" in (status.reason or "")
    assert version(again.look()) == first.version

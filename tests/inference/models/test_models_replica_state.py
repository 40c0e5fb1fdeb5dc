"""One replica's own directory: one process at a time, and what serves kept whole in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.replica_state import ReplicaState, ReplicaStateError, sole_use
from kronos_service.model.adapter.files import AdapterError, AdapterNotWholeError, read_files
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, VERSIONS
from kronos_shared.adapter_store import publish


def test_two_services_on_one_state_directory_are_one_too_many(tmp_path: Path) -> None:
    with sole_use(tmp_path / "state"):
        refused = pytest.raises(ReplicaStateError, match="another service uses the state directory")
        with refused, sole_use(tmp_path / "state"):
            pass
        with sole_use(tmp_path / "other"):
            pass
    with sole_use(tmp_path / "state"):
        pass
    with capture_logs() as lines, sole_use(tmp_path / "not" / "made" / "yet"):
        pass
    assert not lines
    (tmp_path / "file").write_text("")
    with capture_logs() as lines, sole_use(tmp_path / "file" / "state"):  # it could hold nothing
        pass
    assert [line["event"] for line in lines] == ["state_not_held"]


def test_a_copy_that_was_damaged_is_made_again_when_its_version_serves(
    empty_store: Path,
    adapter_of: Callable[[int], Path],
    new_loader: Callable[..., AdapterLoader],
    tmp_path: Path,
) -> None:
    first = publish(adapter_of(0), empty_store, keep=9)
    new_loader().look()
    copy = tmp_path / "state" / VERSIONS / first.version
    (copy / EVENT_WEIGHTS).write_bytes(b"cut")
    with pytest.raises(AdapterError):
        read_files(copy)
    status = new_loader().look()
    assert (status.reason, status.state_unsaved) == (None, None)
    assert read_files(copy).digest == first.manifest_sha256


def test_only_the_last_good_adapter_is_kept(adapter_of: Callable[[int], Path], tmp_path: Path) -> None:
    state = ReplicaState(tmp_path / "state")
    pointers = [publish(adapter_of(seed), tmp_path / "adapters", keep=9) for seed in range(2)]
    for seed, pointer in enumerate(pointers):
        state.remember(pointer, read_files(adapter_of(seed)))
        assert state.last_good() == pointer
        assert state.last_good_files(pointer).digest == pointer.manifest_sha256
        assert [one.name for one in (tmp_path / "state" / VERSIONS).iterdir()] == [pointer.version]


def test_another_adapter_under_the_last_good_one_s_name_is_not_taken_for_it(
    adapter_of: Callable[[int], Path], tmp_path: Path
) -> None:
    state = ReplicaState(tmp_path / "state")
    pointer = publish(adapter_of(0), tmp_path / "adapters", keep=9)
    state.remember(pointer, read_files(adapter_of(0)))
    copy = tmp_path / "state" / VERSIONS / pointer.version
    shutil.rmtree(copy)
    shutil.copytree(adapter_of(1), copy)
    with pytest.raises(AdapterNotWholeError, match="has sha256"):
        state.last_good_files(pointer)
    state.remember(pointer, read_files(adapter_of(0)))
    assert state.last_good_files(pointer).digest == pointer.manifest_sha256

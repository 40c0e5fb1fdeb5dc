"""What is written survives a power cut: the order of writes, fsyncs and renames, and what an error leaves."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from power_cut import power_cuts
from small_tables import small_tables, write_small

from kronos_service.data.snapshot.read import read_tables
from kronos_service.finetune.event_conditioned.training.checkpoints import read_verified, write_verified
from kronos_service.inference.models.replica_state import ReplicaState
from kronos_service.model.adapter.files import read_files
from kronos_shared.adapter_manifest import Latest
from kronos_shared.adapter_store import latest, latest_version, publish, rollback
from kronos_shared.atomic import append, move_into_place, new_directory, replace_file, why_not_writable

Step = tuple[str, ...]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Each fsync with the size of the file or "directory", and each rename, as the process asks for them."""
    seen: list[Step] = []

    def traced(name: str, real: Callable[..., Any], describe: Callable[..., Step]) -> None:
        def call(*arguments: Any, **keywords: Any) -> Any:
            seen.append((name, *describe(*arguments)))
            return real(*arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    def synced(handle: int) -> Step:
        about = os.fstat(handle)
        return ("directory",) if stat.S_ISDIR(about.st_mode) else (f"{about.st_size} bytes",)

    traced("fsync", os.fsync, synced)
    for name in ("replace", "rename"):
        traced(name, getattr(os, name), lambda _, target: (Path(target).name,))
    return seen


def test_a_file_is_on_disk_before_it_is_renamed_and_its_directory_after(
    tmp_path: Path, steps: list[Step]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    replace_file(tmp_path / "a", b"newer")
    assert steps == [("fsync", "5 bytes"), ("replace", "a"), ("fsync", "directory")]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"newer"]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_a_file_can_be_read_by_all_and_written_by_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "a", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_nothing_can_be_written_below_a_file(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path) is None
    assert why_not_writable(tmp_path / "new" / "deep") is None
    (tmp_path / "file").touch()
    reason = f"{tmp_path / 'file'} is not a directory"
    assert why_not_writable(tmp_path / "file") == reason
    assert why_not_writable(tmp_path / "file" / "below") == reason


def test_a_directory_is_on_disk_with_all_in_it_before_it_is_renamed(
    tmp_path: Path, steps: list[Step]
) -> None:
    with new_directory(tmp_path / "d") as scratch:
        (scratch / "a").write_bytes(b"one")
        (scratch / "b").write_bytes(b"three")
        assert not (tmp_path / "d").exists()
        assert scratch.parent == tmp_path, "a rename from another disk is no single step"
    files = [("fsync", "3 bytes"), ("fsync", "5 bytes")]
    assert steps == [*files, ("fsync", "directory"), ("rename", "d"), ("fsync", "directory")]


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path, steps: list[Step]) -> None:
    append(tmp_path / "log", b"1\n")
    append(tmp_path / "log", b"22\n")
    assert steps == [
        ("fsync", "2 bytes"),
        ("fsync", "directory"),
        ("fsync", "5 bytes"),
        ("fsync", "directory"),
    ]
    assert (tmp_path / "log").read_bytes() == b"1\n22\n"


def test_the_tables_of_a_snapshot_are_on_disk_before_its_manifest_is(
    tmp_path: Path, steps: list[Step]
) -> None:
    write_small(tmp_path / "s")
    names = [(name, "directory" if what == "directory" else "file") for name, what in steps]
    table, place = ("fsync", "file"), ("fsync", "directory")
    assert names == [table] * 3 + [("replace", "file")] * 3 + [place, table, ("replace", "file"), place]
    assert steps[-2] == ("replace", "manifest.json")


def test_an_error_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        replace_file(tmp_path / "a", b"newer")
    with pytest.raises(OSError, match="disk full"), new_directory(tmp_path / "d") as scratch:
        (scratch / "a").write_bytes(b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


Write = Callable[[Path, int], object]
Read = Callable[[Path], object]
AdapterOf = Callable[[int], Path]


def survives(write: Write, read: Read, tmp_path: Path, *, fewest: int) -> None:
    """Overwriting the first with the second leaves one of them wherever the power fails, and the second once
    the call has returned.
    """
    root, scratch = tmp_path / "disk", tmp_path / "cuts"
    root.mkdir(parents=True)
    scratch.mkdir()
    write(root, 1)
    old = read(root)
    found: list[object] = []
    with power_cuts(root, scratch, lambda copy: found.append(read(copy))) as steps:
        write(root, 2)
    new = read(root)
    assert old != new
    assert len(steps) >= fewest
    assert [one for one in found if one not in (old, new)] == []
    assert found[:3] == 3 * [old]
    assert found[-3:] == 3 * [new]


def as_file(root: Path, number: int) -> None:
    replace_file(root / "a", bytes(5 * [number]))


def as_moved_file(root: Path, number: int) -> None:
    (root / ".scratch").write_bytes(bytes(5 * [number]))
    move_into_place(root / ".scratch", root / "a")


@pytest.mark.parametrize("write", [as_file, as_moved_file])
def test_after_a_power_cut_a_file_is_the_old_or_the_new_one(write: Write, tmp_path: Path) -> None:
    survives(write, lambda root: (root / "a").read_bytes(), tmp_path, fewest=3)


def test_after_a_power_cut_the_lines_before_the_last_are_there(tmp_path: Path) -> None:
    def read(root: Path) -> list[bytes]:
        return (root / "log").read_bytes().splitlines()

    survives(lambda root, number: append(root / "log", b"%d\n" % number), read, tmp_path, fewest=2)


def test_after_a_power_cut_a_checkpoint_is_whole_or_not_there(tmp_path: Path) -> None:
    def read(root: Path) -> dict[str, bytes]:
        return read_verified(max(root.glob("step-*")))

    def write(root: Path, number: int) -> None:
        write_verified(root / f"step-{number}", {"a": bytes([number]), "b": bytes(9)})

    survives(write, read, tmp_path, fewest=7)


def test_after_a_power_cut_a_snapshot_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    def write(root: Path, number: int) -> None:
        tables = small_tables()
        tables["bars"] = tables["bars"].assign(volume=float(number))
        write_small(root / "s", tables)

    survives(write, lambda root: read_tables(root / "s").sha256, tmp_path, fewest=10)


def served(store: Path) -> object:
    """The manifest of the version that LATEST names, once all of its files are what it says; None without."""
    pointer, directory = latest(store), latest_version(store)
    if pointer is None or directory is None:
        return None
    return read_files(directory, digest=pointer.manifest_sha256).digest


def test_after_a_power_cut_latest_names_a_whole_version(variant: AdapterOf, tmp_path: Path) -> None:
    survives(lambda store, number: publish(variant(number), store, keep=1), served, tmp_path, fewest=12)


def test_after_a_power_cut_a_new_store_is_empty_or_holds_its_first_version(
    variant: AdapterOf, tmp_path: Path
) -> None:
    def write(store: Path, step: int) -> None:
        if step == 2:
            publish(variant(1), store, keep=1)

    survives(write, served, tmp_path, fewest=10)


def test_after_a_power_cut_in_a_rollback_latest_names_a_whole_version(
    variant: AdapterOf, tmp_path: Path
) -> None:
    def write(store: Path, step: int) -> None:
        if step == 1:
            publish(variant(1), store, keep=5)
            publish(variant(2), store, keep=5)
        else:
            rollback(store)

    survives(write, served, tmp_path, fewest=3)


def test_after_a_power_cut_a_pin_and_the_last_good_adapter_are_whole(
    variant: AdapterOf, tmp_path: Path
) -> None:
    def pointer(number: int) -> Latest:
        digest = read_files(variant(number)).digest
        return Latest(generation=number, version=f"{number:06}-{digest[:12]}", manifest_sha256=digest)

    def remember(root: Path, number: int) -> None:
        ReplicaState(root).remember(pointer(number), read_files(variant(number)))
        ReplicaState(root).set_pin(pointer(number))

    def read(root: Path) -> object:
        good = ReplicaState(root).last_good()
        assert good is not None
        return ReplicaState(root).last_good_files(good).digest

    survives(remember, read, tmp_path, fewest=12)
    survives(
        lambda root, number: ReplicaState(root).set_pin(pointer(number)),
        lambda root: ReplicaState(root).pin(),
        tmp_path / "pin",
        fewest=3,
    )

"""What is written survives a power cut: the order of writes, fsyncs and renames, and what an error leaves."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_tables import NOW, WINDOW, small_tables

from kronos_service.data.snapshot.write import write_snapshot
from kronos_shared.atomic import append, new_directory, replace_file

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


def test_a_directory_is_on_disk_with_all_in_it_before_it_is_renamed(
    tmp_path: Path, steps: list[Step]
) -> None:
    with new_directory(tmp_path / "d") as scratch:
        (scratch / "a").write_bytes(b"one")
        (scratch / "b").write_bytes(b"three")
        assert not (tmp_path / "d").exists()
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
    write_snapshot(tmp_path / "s", **small_tables(), window=WINDOW, source="tests", now=NOW)
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

"""SIGKILL while a snapshot is written: afterwards the old one is intact or the new one complete, never half.

The writer is a fork of the test, so it starts in milliseconds and can be killed before every single step it
takes on the disk (each file opened, renamed or removed), and then some more at moments that nobody chose.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from small_tables import NOW, WINDOW, small_tables

from kronos_service.data.snapshot import SnapshotError, read_tables, write_snapshot

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are POSIX")

STEPS = ("open", "os.mkdir", "os.rename", "os.remove")
TABLES = (small_tables(seed=0), small_tables(seed=1))


def write(directory: Path, seed: int) -> str:
    manifest = write_snapshot(directory, **TABLES[seed], window=WINDOW, source="tests", now=NOW)
    return str(manifest["sha256"])


def write_and_die(directory: Path, seed: int, step: int) -> None:
    """Runs in the child: it kills itself before its `step`-th operation inside the directory."""
    done = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in STEPS and str(arguments[0]).startswith(str(directory)):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write(directory, seed)


def run_writer(directory: Path, seed: int, step: int, patience: float = 60.0) -> bool:
    """Write in a child that dies at `step` or after `patience` seconds; True if it lived to its end."""
    child = os.fork()
    if child == 0:
        try:
            write_and_die(directory, seed, step)
            os._exit(0)
        finally:
            os._exit(1)
    until = time.monotonic() + patience
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    exitcode = os.waitstatus_to_exitcode(status[1])
    assert exitcode in (0, -signal.SIGKILL)
    return exitcode == 0


def present(directory: Path) -> str | None:
    """The hash of a whole snapshot, or None where there is none at all; anything between raises."""
    if not (directory / "manifest.json").exists():
        with pytest.raises(SnapshotError, match=r"no such snapshot|no manifest\.json"):
            read_tables(directory)
        return None
    return read_tables(directory).sha256


def test_a_kill_before_any_step_leaves_the_old_or_the_new_snapshot_whole(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old", 0), write(tmp_path / "new", 1)
    seen = []
    for step in range(1, 100):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "s")
        finished = run_writer(tmp_path / "s", 1, step)
        seen.append(present(tmp_path / "s"))
        if finished:
            break
    switch = seen.index(new)
    assert seen == [old] * switch + [new] * (len(seen) - switch)
    assert switch > 8  # four files opened and renamed
    assert len(seen) - switch > 3  # the old files are removed after the switch, and the last run lived
    assert len(list((tmp_path / "s").iterdir())) == 4


def test_a_kill_before_any_step_of_a_first_write_leaves_nothing_or_all(tmp_path: Path) -> None:
    new = write(tmp_path / "new", 1)
    for step in range(1, 100):
        directory = tmp_path / f"s{step}"
        finished = run_writer(directory, 1, step)
        assert present(directory) in ((new,) if finished else (None, new))
        assert write(directory, 1) == new  # what a killed writer left is in nobody's way
        assert len(list(directory.iterdir())) == 4
        if finished:
            break
    assert step > 10


@pytest.mark.parametrize("patience", [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1])
def test_a_kill_at_any_moment_leaves_a_whole_snapshot(tmp_path: Path, patience: float) -> None:
    old, new = write(tmp_path / "s", 0), write(tmp_path / "new", 1)
    run_writer(tmp_path / "s", 1, step=-1, patience=patience)
    assert present(tmp_path / "s") in (old, new)

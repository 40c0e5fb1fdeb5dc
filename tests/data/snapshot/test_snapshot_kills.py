"""SIGKILL while a snapshot is written: afterwards the old one is intact or the new one complete, never half.

The writer is a fork of the test, so it starts in milliseconds and can be killed before every single step it
takes on the disk (each file opened, renamed or removed), and then some more at moments that nobody chose.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small_tables import small_tables, write_small

from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.data.snapshot.read import read_tables

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are POSIX")

resource = pytest.importorskip("resource")

STEPS = ("open", "os.mkdir", "os.rename", "os.remove")
TABLES = (small_tables(seed=0), small_tables(seed=1))


def write(directory: Path, seed: int) -> str:
    manifest = write_small(directory, TABLES[seed])
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


def write_cut_short(directory: Path, seed: int, table: str, is_killed: bool) -> None:
    """Runs in the child: the file of `table` ends after 100 bytes, with the writer or with an error."""
    if is_killed:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    def limit(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(directory)) and table in str(arguments[0]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    sys.addaudithook(limit)
    write(directory, seed)


def run_writer(work: Callable[[], object], patience: float = 60.0) -> int:
    """The exit code of a child that works, killed after `patience` seconds; 2 is an error of ours."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except SnapshotError:
            code = 2
        finally:
            os._exit(code)
    until = time.monotonic() + patience
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(status[1])


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
        code = run_writer(partial(write_and_die, tmp_path / "s", 1, step))
        seen.append(present(tmp_path / "s"))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    switch = seen.index(new)
    assert seen == [old] * switch + [new] * (len(seen) - switch)
    assert switch > 8  # four files opened and renamed
    assert len(seen) - switch > 3  # the old files are removed after the switch, and the last run lived
    assert len(list((tmp_path / "s").iterdir())) == 4


def test_a_kill_before_any_step_of_a_first_write_leaves_nothing_or_all(tmp_path: Path) -> None:
    new = write(tmp_path / "new", 1)
    for step in range(1, 100):
        directory = tmp_path / f"s{step}"
        code = run_writer(partial(write_and_die, directory, 1, step))
        assert code in (0, -signal.SIGKILL)
        assert present(directory) in ((None, new) if code else (new,))
        assert write(directory, 1) == new  # what a killed writer left is in nobody's way
        assert len(list(directory.iterdir())) == 4
        if code == 0:
            break
    assert step > 10


@pytest.mark.parametrize("patience", [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1])
def test_a_kill_at_any_moment_leaves_a_whole_snapshot(tmp_path: Path, patience: float) -> None:
    old, new = write(tmp_path / "s", 0), write(tmp_path / "new", 1)
    code = run_writer(partial(write, tmp_path / "s", 1), patience)
    assert code in (0, -signal.SIGKILL)
    assert present(tmp_path / "s") in (old, new)


@pytest.mark.parametrize("table", ["ohlcv_1d", "symbols", "economic_calendar", "manifest"])
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "disk full"])
def test_a_file_that_ends_half_way_is_never_part_of_a_snapshot(
    tmp_path: Path, table: str, is_killed: bool
) -> None:
    old = write(tmp_path / "s", 0)
    code = run_writer(partial(write_cut_short, tmp_path / "s", 1, table, is_killed))
    assert code == (-signal.SIGXFSZ if is_killed else 2)
    assert present(tmp_path / "s") == old

"""A disk that forgets: what is left if the power fails before any step of a piece of work.

Three disks stand for what a real one may do. The careful one keeps what was forced alone: a file's bytes at
its last fsync, a directory's names at its own. The eager one keeps every name at once, but a file's bytes
only as they were forced: a rename before the fsync leaves an empty file under the new name. The hasty one
keeps what was forced and the latest rename, and no other name that was not forced: disks may reorder.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")
"""The calls before which the power may fail."""


class Disk:
    """What of the tree under `root` has been forced, by inode."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self.renamed: Path | None = None
        """What was renamed last."""
        self._held: list[int] = []  # open files keep their inode: a new file must not get a known number
        for path in (root, *root.rglob("*")):
            handle = os.open(path, os.O_RDONLY)
            self.force(handle)
            os.close(handle)

    def force(self, handle: int) -> None:
        """What an fsync of this file or directory keeps."""
        about = os.fstat(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        self._held.append(os.open(path, os.O_RDONLY))
        if stat.S_ISDIR(about.st_mode):
            self._names[about.st_ino] = {one.name: one.lstat().st_ino for one in path.iterdir()}
        else:
            self._bytes[about.st_ino] = path.read_bytes()

    def careful(self, to: Path) -> None:
        """Write what was forced."""
        self._put(self.root.stat().st_ino, to)

    def hasty(self, to: Path) -> None:
        """Write what was forced, and what was renamed last."""
        self.careful(to)
        if self.renamed is None or not self.renamed.exists():
            return
        target = to / self.renamed.relative_to(self.root)
        if target.parent.exists():
            if target.is_dir():
                shutil.rmtree(target)
            self._put(self.renamed.stat().st_ino, target)

    def _put(self, inode: int, path: Path) -> None:
        if inode in self._names:
            path.mkdir()
            for name, one in self._names[inode].items():
                self._put(one, path / name)
        else:  # empty if its name was forced and nothing of it
            path.write_bytes(self._bytes.get(inode, b""))

    def eager(self, to: Path) -> None:
        """Write every name of now, with the bytes that were forced."""
        to.mkdir()
        for path in sorted(self.root.rglob("*")):
            target = to / path.relative_to(self.root)
            if path.is_dir():
                target.mkdir()
            else:
                target.write_bytes(self._bytes.get(path.stat().st_ino, b""))

    def close(self) -> None:
        for handle in self._held:
            os.close(handle)


@contextmanager
def power_cuts(root: Path, scratch: Path, look: Callable[[Path], None]) -> Iterator[list[str]]:
    """While the block works under `root`, `look` at what each disk would keep, before every step and at the
    end; yields the names of the steps.
    """
    disk = Disk(root)
    steps: list[str] = []

    def cut() -> None:
        for kept in (disk.careful, disk.eager, disk.hasty):
            copy = scratch / f"{kept.__name__}-{len(steps)}"
            kept(copy)
            look(copy)

    with pytest.MonkeyPatch.context() as patch:
        working = [True]

        def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                if not working[0]:
                    return real(*given, **named)
                working[0] = False  # what looking does is no step
                cut()
                steps.append(name)
                working[0] = True
                result = real(*given, **named)
                if name == "fsync":
                    disk.force(given[0])
                elif name in ("rename", "replace"):
                    disk.renamed = Path(given[1])
                return result

            return call

        for name in NAMES:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        yield steps
        working[0] = False
        cut()
    disk.close()

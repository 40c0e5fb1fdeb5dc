"""The one way to write to disk: files and directories appear whole or not at all, also after a power cut.

The order is what makes it so: write beside the target, fsync the file, rename, fsync the directory. A rename
before the first fsync may leave an empty file after a power cut; without the second, the rename itself may be
lost although its caller has gone on.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kronos_shared.disk_errors import UNSUPPORTED


@contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yield a scratch directory, which becomes `final` on success; `final` must not exist.

    On an error the scratch directory is removed; after a kill it stays, under a name that starts with a dot.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp lets only this user in; the service may run as another one
        yield scratch
        for path in sorted(scratch.rglob("*")):
            fsync(path)
        fsync(scratch)
        scratch.rename(final)
        fsync(final.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def move_into_place(scratch: Path, path: Path) -> None:
    """Make a finished file on the same disk the one at `path`, in one step."""
    fsync(scratch)
    os.replace(scratch, path)
    fsync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, whether or not a file was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync(path.parent)


def append(path: Path, line: bytes) -> None:
    """Add a line to a file that only grows, and make it if need be; a kill may cut the last line short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    fsync(path.parent)


def why_not_writable(directory: Path) -> str | None:
    """Why nothing can be written to a directory, which need not exist yet; None where something can."""
    try:
        there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        if not there.is_dir():
            return f"{there} is not a directory"
        return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable"
    except OSError as error:
        return str(error.strerror)


def remove(path: Path) -> None:
    """Remove a tree, a file or a link; of a link, not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def fsync(path: Path) -> None:
    """Force a file or directory to disk; Windows cannot open a directory, and some network disks cannot
    force one: what they promise about a rename is all there is.
    """
    if path.is_dir() and os.name == "nt":
        return
    is_directory = path.is_dir()
    handle = os.open(path, os.O_RDONLY if is_directory else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not is_directory or error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)

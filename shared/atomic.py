"""Files and directories that appear whole or not at all, also after a kill or a power cut."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yield a scratch directory beside `final`; on success fsync all in it and rename it to `final`,
    which must not exist.

    On an error the scratch directory is removed; after a kill it stays, under a name that starts with a dot.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        scratch.chmod(0o755)
        yield scratch
        for path in sorted(scratch.rglob("*")):
            fsync(path)
        fsync(scratch)
        scratch.rename(final)
        fsync(final.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


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


def remove(path: Path) -> None:
    """Remove whatever is there: a tree, a file, or a link, of which nothing but the link goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def fsync(path: Path) -> None:
    """Force a file or directory to disk; Windows cannot open a directory, and needs no such call."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

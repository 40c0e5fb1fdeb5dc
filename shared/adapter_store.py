"""The store of published adapters: immutable versions, and a pointer to the one that serves.

adapters/versions/<000001>-<sha12>/   one adapter directory; its number is the generation that published it
adapters/LATEST.json                  {generation, version, manifest_sha256}
adapters/.lock                        held while publishing or rolling back

A version whose number exceeds LATEST's generation was left by a publisher that was killed before its last
step.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kronos_shared.adapter_manifest import (
    FILES,
    LATEST,
    MANIFEST,
    VERSIONS,
    AdapterManifest,
    Latest,
    file_record,
    is_version,
    version_name,
    version_number,
)
from kronos_shared.atomic import fsync, new_directory, remove, replace_file
from kronos_shared.disk_errors import explain, is_missing
from kronos_shared.errors import KronosError

_log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
"""How long to wait for another publisher; publishing takes well under a second."""
LOCK_MODE = 0o664
"""Trainers and the service may be different users of one group, and each must be able to lock."""


class StoreError(KronosError):
    """A store cannot be read or written, or does not hold a version whole."""


def latest(adapters: Path) -> Latest | None:
    """What `LATEST.json` says, or None where nothing has been published.

    Raises:
        StoreError: it is not a valid pointer, or cannot be read.
    """
    try:
        return Latest.from_bytes((adapters / LATEST).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"cannot read {adapters / LATEST}: {error.strerror}; expected a directory of published adapters"
        ) from error
    except ValueError as error:
        raise StoreError(
            f"{adapters / LATEST} is not a valid pointer ({error}); restore it, or remove it and "
            "publish again"
        ) from None


def latest_version(adapters: Path) -> Path | None:
    """The directory that `LATEST.json` names, or None where nothing has been published."""
    pointer = latest(adapters)
    return None if pointer is None else adapters / VERSIONS / pointer.version


def published(adapters: Path) -> list[str]:
    """Names of the versions, oldest first.

    Raises:
        StoreError: they cannot be listed.
    """
    try:
        names = [path.name for path in (adapters / VERSIONS).iterdir()]
    except OSError as error:
        if is_missing(error):
            return []
        raise StoreError(f"{adapters / VERSIONS} {explain(error)}") from error
    return sorted(filter(is_version, names), key=version_number)


def publish(
    adapter: Path,
    adapters: Path,
    *,
    keep: int,
    require: Callable[[Latest | None], object] = lambda _: None,
) -> Latest:
    """Copy an adapter directory to the next version and make it LATEST; keep the newest `keep` versions, and
    always the one that served until now.

    A kill at any moment leaves the previous LATEST valid. Publishing the newest version's manifest again
    makes no second version: it completes what a killed publisher began; if that was complete it changes
    nothing, so that a rollback since then stays. Either way it returns what the first call would have
    returned.

    `require` is handed what LATEST says while no other publisher can change it, and raises to forbid it.

    Raises:
        StoreError: the files are not the manifest's, the store cannot be written, or the lock stays taken.
    """
    content = _read_whole(adapter)
    manifest = content[MANIFEST]
    with _locked(adapters):
        before = latest(adapters)
        names = published(adapters)
        if names and _holds(adapters / VERSIONS / names[-1], manifest):
            pointer = _pointer(version_number(names[-1]), names[-1], manifest)
            if before is not None and pointer.generation <= before.generation:
                return pointer
            require(before)
        else:
            require(before)
            generation = _next_generation(before, names)
            pointer = _pointer(generation, version_name(generation, manifest), manifest)
            with new_directory(adapters / VERSIONS / pointer.version) as scratch:
                for name, one in content.items():
                    (scratch / name).write_bytes(one)
        _point_to(adapters, pointer)
        _retire(adapters, keep=keep, serving={pointer.version, before.version if before else None})
    return pointer


def published_as(adapter: Path, adapters: Path) -> str | None:
    """The version under which an adapter directory was already made LATEST, or None.

    A resumed trainer does not know how far its publishing came, so it asks here first: another version
    may have become LATEST since.
    """
    manifest = (adapter / MANIFEST).read_bytes()
    pointer = latest(adapters)
    for name in published(adapters):
        number = version_number(name)
        if pointer and number <= pointer.generation and name == version_name(number, manifest):
            return name
    return None


def rollback(adapters: Path, version: str | None = None) -> Latest:
    """Make an older version LATEST again, as a new generation; None means the one before LATEST's.

    Raises:
        StoreError: there is no such version, its files are not the manifest's, or it is LATEST already.
    """
    with _locked(adapters):
        before = latest(adapters)
        name = previous(adapters) if version is None else version
        if name not in published(adapters):
            raise StoreError(
                f"no version {name!r} to roll back to; there are {', '.join(published(adapters)) or 'none'}"
            )
        if before is not None and name == before.version:
            raise StoreError(f"{name} is LATEST already: name another version to roll back to")
        manifest = _read_whole(adapters / VERSIONS / name)[MANIFEST]
        if name != version_name(version_number(name), manifest):
            raise StoreError(f"{name} has another manifest than the one whose sha256 its name begins with")
        pointer = _pointer(_next_generation(before, published(adapters)), name, manifest)
        _point_to(adapters, pointer)
    return pointer


def previous(adapters: Path) -> str:
    """The newest version older than the one LATEST names."""
    pointer = latest(adapters)
    older = [
        name
        for name in published(adapters)
        if pointer is not None and version_number(name) < version_number(pointer.version)
    ]
    if not older:
        raise StoreError(f"{adapters} holds no version older than LATEST's to roll back to")
    return older[-1]


@contextmanager
def _locked(adapters: Path) -> Iterator[None]:
    """Hold the store's lock, and first remove what killed publishers left half done."""
    try:
        (adapters / VERSIONS).mkdir(parents=True, exist_ok=True)
        with FileLock(adapters / ".lock", timeout=LOCK_SECONDS, mode=LOCK_MODE):
            _sweep(adapters)
            yield
    except Timeout:
        raise StoreError(
            f"another publisher has held {adapters / '.lock'} for {LOCK_SECONDS:g} s; end it, then try again"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot publish in {adapters}: it {explain(error)}") from error


def _sweep(adapters: Path) -> None:
    """Remove what killed publishers left and what is retired: names that begin with a dot.

    What cannot be removed (another user's, or busy on a network disk) stays until a later call: nothing reads
    it.
    """
    for path in (*(adapters / VERSIONS).glob(".*"), *adapters.glob(f".{LATEST}-*")):
        try:
            remove(path)
        except OSError as error:
            _log.warning("left over in %s: %s %s", adapters, path.name, explain(error))


def _read_whole(directory: Path) -> dict[str, bytes]:
    """The bytes of every file of an adapter, checked against its manifest."""
    try:
        content = {name: (directory / name).read_bytes() for name in (*FILES, MANIFEST)}
        manifest = AdapterManifest.from_bytes(content[MANIFEST])
    except (OSError, ValueError):
        needed = ", ".join((MANIFEST, *FILES))
        raise StoreError(f"{directory} is not a whole adapter: it needs a valid {needed}") from None
    bad = [name for name in FILES if manifest.files.get(name) != file_record(content[name])]
    if bad:
        raise StoreError(f"{directory}: not the files that its manifest describes: {', '.join(bad)}")
    return content


def _holds(version: Path, manifest: bytes) -> bool:
    """Whether a version is whole and has exactly this manifest."""
    try:
        return _read_whole(version)[MANIFEST] == manifest
    except StoreError:
        return False


def _pointer(generation: int, version: str, manifest: bytes) -> Latest:
    return Latest(
        generation=generation, version=version, manifest_sha256=hashlib.sha256(manifest).hexdigest()
    )


def _next_generation(before: Latest | None, versions: list[str]) -> int:
    """Above every generation and version so far, finished or not."""
    return 1 + max([before.generation if before else 0, *map(version_number, versions)])


def _point_to(adapters: Path, pointer: Latest) -> None:
    fsync(adapters)  # a new store's `versions` must be there before a pointer into it
    replace_file(adapters / LATEST, pointer.to_bytes())


def _retire(adapters: Path, *, keep: int, serving: set[str | None]) -> None:
    """Remove all but the newest versions; a rename hides each whole before its files go one by one.

    LATEST has moved by now, so nothing here may make publishing fail.
    """
    try:
        for name in published(adapters)[:-keep]:
            if name not in serving:
                (adapters / VERSIONS / name).rename(adapters / VERSIONS / f".{name}")
    except OSError as error:
        _log.warning("older versions stay in %s: removing one %s", adapters, explain(error))
    except StoreError as error:
        _log.warning("older versions stay: %s", error)
    _sweep(adapters)

"""The store of published adapters: immutable versions, and a pointer to the one that serves.

It lies in a directory (`directory_home`) or in a bucket of an object store (`object_home`), under the same
names:

versions/<000001>-<sha12>/   one adapter's files; its number is the generation that published it
LATEST.json                  {generation, version, manifest_sha256}
"""

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from kronos_shared.adapter_home import (
    AdapterHome,
    StoreError,
    pointer_to,
    pointer_to_new,
    read_whole,
)
from kronos_shared.adapter_location import StoreUrl, store_location
from kronos_shared.adapter_manifest import (
    MANIFEST,
    VERSIONS,
    Latest,
    version_name,
    version_number,
)
from kronos_shared.directory_home import DirectoryHome
from kronos_shared.object_home import ObjectHome, object_home

__all__ = [
    "Home",
    "Location",
    "StoreError",
    "home_of",
    "latest",
    "latest_version",
    "previous",
    "publish",
    "published",
    "published_as",
    "rollback",
    "version_in",
]

_log = logging.getLogger(__name__)

ATTEMPTS: Final = 30
"""How often a publisher in a bucket begins again because another one was faster."""
LONGEST_PAUSE: Final = 0.5
"""Seconds before it does, at most: at random, so that two of them part."""

Location = Path | StoreUrl | str
"""A store, as a user names it or already understood."""
Home = DirectoryHome | ObjectHome


def home_of(adapters: Location, *, cache: Path | None = None) -> Home:
    """The place that a store lies in.

    Args:
        cache: where versions of a bucket are kept on this machine; None is the user's cache directory.
    """
    place = store_location(adapters)
    return object_home(place, cache) if isinstance(place, StoreUrl) else DirectoryHome(place)


def version_in(adapters: Location, version: str) -> str:
    """How messages name a version."""
    return f"{home_of(adapters).shown}/{VERSIONS}/{version}"


def latest(adapters: Location) -> Latest | None:
    """What `LATEST.json` says, or None where nothing has been published.

    Raises:
        StoreError: it is not a valid pointer, or cannot be read.
    """
    return home_of(adapters).seen().latest


def latest_version(adapters: Location) -> Path | None:
    """The directory of the version that LATEST names, or None where nothing has been published; a bucket's
    is a copy on this machine.

    Raises:
        StoreError: as `latest`, or the version cannot be fetched.
    """
    home = home_of(adapters)
    pointer = home.seen().latest
    return None if pointer is None else home.directory(pointer.version)


def published(adapters: Location) -> list[str]:
    """Names of the versions, oldest first.

    Raises:
        StoreError: they cannot be listed.
    """
    return home_of(adapters).published()


def publish(
    adapter: Path,
    adapters: Location,
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

    `require` is handed what LATEST says while no other publisher can change it, and raises to forbid it; in a
    bucket it is asked again if another publisher was faster.

    Raises:
        StoreError: the files are not the manifest's, or the store cannot be written.
    """
    content = read_whole(lambda name: (adapter / name).read_bytes(), str(adapter))
    manifest = content[MANIFEST]
    home = home_of(adapters)
    with home.exclusive():
        for _ in _attempts(home):
            seen = home.seen()
            before, names = seen.latest, home.published()
            if names and _holds(home, names[-1], manifest):
                pointer = pointer_to(names[-1], version_number(names[-1]), manifest)
                if before is not None and pointer.generation <= before.generation:
                    return pointer
                require(before)
            else:
                require(before)
                pointer = home.reserve(seen, partial(pointer_to_new, manifest=manifest))
                home.add(pointer.version, content)
            if home.point_to(pointer, seen):
                break
            home.retire(())
        home.retire(_too_old(home, keep, {pointer.version, before.version if before else None}))
    return pointer


def published_as(adapter: Path, adapters: Location) -> str | None:
    """The version under which an adapter directory was already made LATEST, or None.

    A resumed trainer does not know how far its publishing came, so it asks here first: another version
    may have become LATEST since.
    """
    manifest = (adapter / MANIFEST).read_bytes()
    home = home_of(adapters)
    pointer = home.seen().latest
    for name in home.published():
        number = version_number(name)
        if pointer and number <= pointer.generation and name == version_name(number, manifest):
            return name
    return None


def rollback(adapters: Location, version: str | None = None) -> Latest:
    """Make an older version LATEST again, as a new generation; None means the one before LATEST's.

    Raises:
        StoreError: there is no such version, its files are not the manifest's, or it is LATEST already.
    """
    home = home_of(adapters)
    with home.exclusive():
        for _ in _attempts(home):
            seen, names = home.seen(), home.published()
            name = _previous(home) if version is None else version
            if name not in names:
                raise StoreError(
                    f"no version {name!r} to roll back to; there are {', '.join(names) or 'none'}"
                )
            if seen.latest is not None and name == seen.latest.version:
                raise StoreError(f"{name} is LATEST already: name another version to roll back to")
            manifest = home.content(name)[MANIFEST]
            if name != version_name(version_number(name), manifest):
                raise StoreError(
                    f"{name} has another manifest than the one whose sha256 its name begins with"
                )
            pointer = home.reserve(seen, partial(pointer_to, name, manifest=manifest))
            home.content(name)  # whoever retires versions spares it from here on, or has done so by now
            if home.point_to(pointer, seen):
                break
    return pointer


def previous(adapters: Location) -> str:
    """The newest version older than the one LATEST names.

    Raises:
        StoreError: there is none, or the store cannot be read.
    """
    return _previous(home_of(adapters))


def _previous(home: AdapterHome) -> str:
    pointer = home.seen().latest
    older = [
        name
        for name in home.published()
        if pointer is not None and version_number(name) < version_number(pointer.version)
    ]
    if not older:
        raise StoreError(f"{home.shown} holds no version older than LATEST's to roll back to")
    return older[-1]


def _attempts(home: AdapterHome) -> Iterator[int]:
    """Once in a directory, whose lock is held; in a bucket as often as somebody else moves LATEST first."""
    for attempt in range(ATTEMPTS):
        yield attempt
        time.sleep(random.uniform(0, LONGEST_PAUSE))
    raise StoreError(f"others have published in {home.shown} {ATTEMPTS} times meanwhile: try again")


def _holds(home: AdapterHome, version: str, manifest: bytes) -> bool:
    """Whether a version is whole and has exactly this manifest."""
    if not version.endswith(hashlib.sha256(manifest).hexdigest()[:12]):
        return False
    try:
        return home.content(version)[MANIFEST] == manifest
    except StoreError:
        return False


def _too_old(home: AdapterHome, keep: int, serving: set[str | None]) -> list[str]:
    """All but the newest versions; LATEST has moved by now, so nothing here may make publishing fail."""
    try:
        return [name for name in home.published()[:-keep] if name not in serving]
    except StoreError as error:
        _log.warning("older versions stay: %s", error)
        return []

"""Adapters in a bucket, whose publishers race: what one has made, no other replaces.

generations/<000000000001>.json       claimed once by whoever publishes it: {generation, version,
                                      manifest_sha256, after}
versions/<000001>-<sha12>/<file>      the manifest last: without it there is no version
versions/<000001>-<sha12>/retired     from when it is to be removed
LATEST.json                           replaced only if it is still what the publisher saw

`after` is the generation of LATEST that the publisher saw. LATEST is replaced only then, so the claims from
LATEST backwards name every generation that has been LATEST. A version between two of them never was: its
publisher was overtaken.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import Field

from kronos_shared.adapter_cache import VersionCache, cache_of
from kronos_shared.adapter_home import Seen, StoreError, latest_from, read_whole
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import (
    FILES,
    LARGEST,
    LARGEST_POINTER,
    LATEST,
    MANIFEST,
    VERSIONS,
    Latest,
    is_version,
    version_number,
)
from kronos_shared.object_store import Bucket

_log = logging.getLogger("kronos_shared.adapter_store")

GENERATIONS: Final = "generations"
RETIRED: Final = "retired"


class Claim(Latest):
    """A generation, and the version that it makes LATEST."""

    after: int | None = Field(default=None, ge=1)
    """The generation of LATEST that its publisher saw; None: there was no LATEST."""


@dataclass(frozen=True)
class ObjectHome:
    """A store in a bucket."""

    bucket: Bucket
    cache: VersionCache
    claims: dict[int, Claim] = field(default_factory=dict)
    """What was read before: claims never change."""

    @property
    def shown(self) -> str:
        """How messages name the place."""
        return str(self.bucket.url)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody is kept out: each write says what it expects."""
        self.retire(())
        yield

    def seen(self) -> Seen:
        """What LATEST says now."""
        found = self.bucket.read(LATEST, most=LARGEST_POINTER)
        if found is None:
            return Seen(latest=None)
        return Seen(latest=latest_from(found.content, f"{self.shown}/{LATEST}"), at=found.at, tag=found.tag)

    def published(self) -> list[str]:
        """Names of the versions that are LATEST, have been, or wait to be, oldest first."""
        versions = self._versions()
        names = [name for name, files in versions.items() if MANIFEST in files and RETIRED not in files]
        overtaken = self._overtaken(self.seen().latest, names)
        return sorted((name for name in names if name not in overtaken), key=version_number)

    def content(self, version: str) -> dict[str, bytes]:
        """The bytes of every file of a version that is whole."""
        content = self._fetch(version)

        def read(name: str) -> bytes:
            if name not in content:
                raise FileNotFoundError(name)
            return content[name]

        return read_whole(read, f"{self.shown}/{VERSIONS}/{version}")

    def file(self, version: str, name: str) -> bytes:
        """One file of a version, as it is."""
        found = self.bucket.read(f"{VERSIONS}/{version}/{name}", most=LARGEST[name])
        if found is None:
            raise StoreError(f"{self.shown}/{VERSIONS}/{version}: {name} is missing")
        return found.content

    def reserve(self, seen: Seen, pointer_of: Callable[[int], Latest]) -> Latest:
        """Claim the next generation; whoever finds it taken tries the one after it."""
        before = seen.latest.generation if seen.latest else None
        generation = 1 + max([before or 0, *map(version_number, self._versions()), *self._claimed(before)])
        while True:
            claim = Claim(**pointer_of(generation).model_dump(), after=before)
            key = _claim_key(generation)
            # False may also say that the answer to our own write was lost
            if self.bucket.create(key, claim.to_bytes()) or self._claim(generation) == claim:
                return pointer_of(generation)
            generation += 1

    def add(self, version: str, content: Mapping[str, bytes]) -> None:
        """Write a version's files, the manifest last."""
        for name in (*FILES, MANIFEST):
            self.bucket.write(f"{VERSIONS}/{version}/{name}", content[name])

    def point_to(self, pointer: Latest, seen: Seen) -> bool:
        """Replace LATEST.json if it is what was seen."""
        content = pointer.to_bytes()
        if seen.latest is None:
            done = self.bucket.create(LATEST, content)
        else:
            done = self.bucket.replace(LATEST, content, seen.tag)
        # the answer may have been lost, and others have published since
        return done or pointer in self._been_latest(self.seen().latest, down_to=pointer.generation)

    def retire(self, versions: Iterable[str]) -> None:
        """Remove versions, and those whose publishers were overtaken or killed."""
        try:
            for name in versions:
                self._remove(name)
            latest, left = self.seen().latest, self._versions()
            overtaken = self._overtaken(latest, left)
            for name, files in left.items():
                is_past = latest is not None and version_number(name) < latest.generation
                if name in overtaken or RETIRED in files or (is_past and MANIFEST not in files):
                    self._remove(name)
        except StoreError as error:
            _log.warning("older versions stay: %s", error)

    def directory(self, version: str) -> Path:
        """A copy on this machine, fetched unless a whole one is there; its reader judges what was fetched."""
        return self.cache.directory(version, lambda: self._fetch(version))

    def _fetch(self, version: str) -> dict[str, bytes]:
        """The files of a version that are there."""
        where = f"{self.shown}/{VERSIONS}/{version}"
        names = self._files(version)
        if MANIFEST not in names:
            raise StoreError(f"{where} is missing")
        if RETIRED in names:
            raise StoreError(f"{where} is being removed, because its publishers keep fewer versions")
        if extra := sorted(names - {*FILES, MANIFEST}):
            raise StoreError(f"{where} holds {extra[0][:80]!r}, which is no file of an adapter; remove it")
        return {name: self.file(version, name) for name in names}

    def _remove(self, version: str) -> None:
        """Mark a version, and remove it unless a rollback names it by then.

        A rollback claims its generation first and looks for the mark after that: of the two, at least one
        sees the other.
        """
        folder = f"{VERSIONS}/{version}"
        self.bucket.write(f"{folder}/{RETIRED}", b"")
        latest = self.seen().latest
        named = {self._claim(number) for number in self._claimed(latest.generation if latest else None)}
        if version in {one.version for one in (latest, *named) if one and not self._is_late(one, latest)}:
            self.bucket.remove(f"{folder}/{RETIRED}")
            return
        for name in (MANIFEST, *(self._files(version) - {MANIFEST, RETIRED}), RETIRED):
            self.bucket.remove(f"{folder}/{name}")

    def _versions(self) -> dict[str, set[str]]:
        """The files of each version that has any."""
        found: dict[str, set[str]] = defaultdict(set)
        for key in self.bucket.names(f"{VERSIONS}/"):
            name, _, file = key.removeprefix(f"{VERSIONS}/").partition("/")
            if is_version(name):
                found[name].add(file)
        return found

    def _files(self, version: str) -> set[str]:
        folder = f"{VERSIONS}/{version}/"
        return {key.removeprefix(folder) for key in self.bucket.names(folder)}

    def _claimed(self, latest: int | None) -> list[int]:
        """Generations above LATEST's that somebody has claimed."""
        keys = self.bucket.names(f"{GENERATIONS}/", after=_claim_key(latest) if latest else "")
        numbers = [key.removeprefix(f"{GENERATIONS}/").removesuffix(".json") for key in keys]
        return [int(number) for number in numbers if number.isdecimal()]

    def _claim(self, generation: int) -> Claim | None:
        if generation not in self.claims:
            found = self.bucket.read(_claim_key(generation), most=LARGEST_POINTER)
            if found is None:
                return None
            try:
                self.claims[generation] = Claim.from_bytes(found.content)
            except ValueError:
                return None
        return self.claims[generation]

    def _been_latest(self, latest: Latest | None, *, down_to: int) -> Iterator[Latest]:
        """The pointers that have been LATEST, the newest first, as far as the claims tell."""
        generation = latest.generation if latest else None
        while generation is not None and generation >= down_to:
            claim = self._claim(generation)
            if claim is None:
                return
            yield Latest(**claim.model_dump(exclude={"after"}))
            generation = claim.after

    def _is_late(self, claim: Latest | None, latest: Latest | None) -> bool:
        """Whether LATEST has moved since the publisher of a claim saw it."""
        return isinstance(claim, Claim) and latest is not None and (claim.after or 0) < latest.generation

    def _overtaken(self, latest: Latest | None, names: Iterable[str]) -> set[str]:
        """Those versions that have not been LATEST, and cannot become it."""
        numbers = {version_number(name): name for name in names}
        waiting = {number: name for number, name in numbers.items() if latest and number > latest.generation}
        overtaken = {name for number, name in waiting.items() if self._is_late(self._claim(number), latest)}
        been: set[str] = set()
        newer = latest.generation if latest else None
        while newer is not None and newer >= min(numbers, default=newer + 1):
            claim = self._claim(newer)
            if claim is None or claim.after is None:
                break  # nothing is known of what was before: all of it counts
            been.add(claim.version)
            overtaken |= {name for number, name in numbers.items() if claim.after < number < newer}
            newer = claim.after
        return overtaken - been


def object_home(url: StoreUrl, cache: Path | None) -> ObjectHome:
    """The store at a URL."""
    return _opened(url, cache_of(url, cache))


@lru_cache
def _opened(url: StoreUrl, cache: VersionCache) -> ObjectHome:
    return ObjectHome(Bucket(url), cache)


def _claim_key(generation: int) -> str:
    return f"{GENERATIONS}/{generation:012d}.json"

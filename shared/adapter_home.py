"""What a store of adapters needs of the place that it lies in, whichever that is."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kronos_shared.adapter_manifest import (
    FILES,
    MANIFEST,
    AdapterManifest,
    Latest,
    file_record,
    version_name,
)
from kronos_shared.errors import KronosError


class StoreError(KronosError):
    """A store cannot be read or written, or does not hold a version whole."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """LATEST as it was read, with what its place needs to tell whether it has changed since."""

    latest: Latest | None
    at: float = 0.0
    """When it was written, in seconds since 1970, by the clock of the place."""
    tag: object = None


class AdapterHome(Protocol):
    """Versions that never change, and a pointer to one of them that changes in one step."""

    @property
    def shown(self) -> str:
        """How messages name the place."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Around every change; what killed publishers left half done is removed first.

        Raises:
            StoreError: nothing can be written here, or another publisher does not end.
        """

    def seen(self) -> Seen:
        """What LATEST says now; raises StoreError."""

    def published(self) -> list[str]:
        """Names of the versions, oldest first; raises StoreError."""

    def content(self, version: str) -> dict[str, bytes]:
        """The bytes of every file of a version that is whole; raises StoreError."""

    def reserve(self, seen: Seen, pointer_of: Callable[[int], Latest]) -> Latest:
        """A pointer whose generation nobody else has or gets; raises StoreError."""

    def add(self, version: str, content: Mapping[str, bytes]) -> None:
        """Write a version, whole or not at all; raises StoreError."""

    def point_to(self, pointer: Latest, seen: Seen) -> bool:
        """Make it LATEST, unless LATEST has changed since it was seen; raises StoreError."""

    def retire(self, versions: Iterable[str]) -> None:
        """Remove versions, and what publishers left that were killed or overtaken; it never raises, since
        LATEST has moved by now.
        """

    def directory(self, version: str) -> Path:
        """A directory of this machine that holds a version's files; raises StoreError."""


def latest_from(content: bytes, shown: str) -> Latest:
    """The pointer that the bytes of LATEST.json hold.

    Raises:
        StoreError: they are none.
    """
    try:
        return Latest.from_bytes(content)
    except ValueError as error:
        raise StoreError(
            f"{shown} is not a valid pointer ({error}); restore it, or remove it and publish again"
        ) from None


def read_whole(read: Callable[[str], bytes], shown: str) -> dict[str, bytes]:
    """The bytes of every file of an adapter, checked against its manifest.

    Args:
        read: the bytes of a file by its name; an OSError says that there is none.
    """
    try:
        content = {name: read(name) for name in (*FILES, MANIFEST)}
        manifest = AdapterManifest.from_bytes(content[MANIFEST])
    except StoreError:
        raise
    except (OSError, ValueError):
        needed = ", ".join((MANIFEST, *FILES))
        raise StoreError(f"{shown} is not a whole adapter: it needs a valid {needed}") from None
    bad = [name for name in FILES if manifest.files.get(name) != file_record(content[name])]
    if bad:
        raise StoreError(f"{shown}: not the files that its manifest describes: {', '.join(bad)}")
    return content


def pointer_to(version: str, generation: int, manifest: bytes) -> Latest:
    """The pointer of a generation to a version with this manifest."""
    return Latest(
        generation=generation, version=version, manifest_sha256=hashlib.sha256(manifest).hexdigest()
    )


def pointer_to_new(generation: int, manifest: bytes) -> Latest:
    """The same to the version that this generation publishes."""
    return pointer_to(version_name(generation, manifest), generation, manifest)

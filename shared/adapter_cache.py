"""Versions of stores that lie elsewhere, kept on this machine.

<cache>/<sha16 of the URL>/store.txt            the store's URL
<cache>/<sha16 of the URL>/versions/<version>/  one adapter, as a store in a directory holds it; of the hub,
                                                `<owner>--<name>@<commit>`
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kronos_shared.adapter_home import StoreError, read_whole
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import MANIFEST, VERSIONS, is_version
from kronos_shared.atomic import new_directory, remove, replace_file
from kronos_shared.disk_errors import explain

ORIGIN: Final = "store.txt"
KEPT: Final = 8
"""Versions of a store that stay, the last fetched: more than a service has in memory."""


@dataclass(frozen=True)
class VersionCache:
    """The copies of one store's versions."""

    root: Path
    origin: str

    def directory(self, version: str, fetch: Callable[[], dict[str, bytes]]) -> Path:
        """A version's directory, fetched unless it is there and whole; what was fetched is not judged.

        Raises:
            StoreError: it cannot be fetched or written.
        """
        directory = self.root / VERSIONS / version
        if self._is_whole(directory):
            return directory
        content = fetch()
        try:
            if os.path.lexists(directory):
                remove(directory)
            if not (self.root / ORIGIN).exists():
                replace_file(self.root / ORIGIN, self.origin.encode())
            with new_directory(directory) as scratch:
                for name, one in content.items():
                    (scratch / name).write_bytes(one)
            self._prune(directory)
        except OSError as error:
            if not self._is_whole(directory):  # another process may have fetched it at the same time
                raise StoreError(
                    f"cannot keep a copy of {self.origin} in {self.root}: it {explain(error)}; make room, or "
                    "name another place in XDG_CACHE_HOME"
                ) from error
        return directory

    def _prune(self, newest: Path) -> None:
        others = [path for path in (self.root / VERSIONS).iterdir() if path != newest]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[: 1 - KEPT]:
            remove(path)

    def _is_whole(self, directory: Path) -> bool:
        try:
            content = read_whole(lambda name: (directory / name).read_bytes(), str(directory))
        except StoreError:
            return False
        digest = hashlib.sha256(content[MANIFEST]).hexdigest()
        is_named = not is_version(directory.name) or directory.name.endswith(digest[:12])
        return is_named and len(os.listdir(directory)) == len(content)


def cache_of(url: str, root: Path | None) -> VersionCache:
    """The copies of a store's versions under `root`, or in the user's cache directory."""
    return VersionCache((root or user_cache()) / hashlib.sha256(url.encode()).hexdigest()[:16], url)


def user_cache() -> Path:
    """Where this user's programs keep what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kronos-events" / "adapters"


def origin_of(adapter: Path) -> StoreUrl | None:
    """The bucket's store that an adapter's directory is a copy from; None where it is none."""
    note = adapter.resolve().parents[1] / ORIGIN
    said = note.read_text(encoding="utf-8") if note.is_file() else ""
    return StoreUrl(said) if "://" in said else None


def place_of(adapter: Path) -> str:
    """How messages name an adapter's directory: where it is a copy from, if it is one."""
    origin = origin_of(adapter)
    return str(adapter) if origin is None else f"{origin}/{VERSIONS}/{adapter.name}"

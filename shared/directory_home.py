"""Adapters in a directory, whose publishers take turns by a lock.

adapters/versions/<000001>-<sha12>/   one adapter directory; its number is the generation that published it
adapters/LATEST.json                  {generation, version, manifest_sha256}
adapters/.lock                        held while publishing or rolling back

A version whose number exceeds LATEST's generation was left by a publisher that was killed before its last
step.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kronos_shared.adapter_home import Seen, StoreError, latest_from, read_whole
from kronos_shared.adapter_manifest import LATEST, VERSIONS, Latest, is_version, version_number
from kronos_shared.atomic import fsync, new_directory, remove, replace_file
from kronos_shared.disk_errors import explain, is_missing

_log = logging.getLogger("kronos_shared.adapter_store")

LOCK_SECONDS = 60.0
"""How long to wait for another publisher; publishing takes well under a second."""
LOCK_MODE = 0o664
"""Trainers and the service may be different users of one group, and each must be able to lock."""


@dataclass(frozen=True)
class DirectoryHome:
    """A store in a directory."""

    path: Path

    @property
    def shown(self) -> str:
        """How messages name the place."""
        return str(self.path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store's lock, and first remove what killed publishers left half done."""
        try:
            (self.path / VERSIONS).mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / ".lock", timeout=LOCK_SECONDS, mode=LOCK_MODE):
                self._sweep()
                yield
        except Timeout:
            raise StoreError(
                f"another publisher has held {self.path / '.lock'} for {LOCK_SECONDS:g} s; end it, then try "
                "again"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot publish in {self.path}: it {explain(error)}") from error

    def seen(self) -> Seen:
        """What LATEST says now; nobody changes it while the lock is held."""
        path = self.path / LATEST
        try:
            return Seen(latest=latest_from(path.read_bytes(), str(path)))
        except FileNotFoundError:
            return Seen(latest=None)
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror}; expected a directory of published adapters"
            ) from error

    def published(self) -> list[str]:
        """Names of the versions, oldest first."""
        try:
            names = [path.name for path in (self.path / VERSIONS).iterdir()]
        except OSError as error:
            if is_missing(error):
                return []
            raise StoreError(f"{self.path / VERSIONS} {explain(error)}") from error
        return sorted(filter(is_version, names), key=version_number)

    def content(self, version: str) -> dict[str, bytes]:
        """The bytes of every file of a version that is whole."""
        directory = self.directory(version)
        return read_whole(lambda name: (directory / name).read_bytes(), str(directory))

    def reserve(self, seen: Seen, pointer_of: Callable[[int], Latest]) -> Latest:
        """Above every generation and version so far, finished or not."""
        before = seen.latest.generation if seen.latest else 0
        return pointer_of(1 + max([before, *map(version_number, self.published())]))

    def add(self, version: str, content: Mapping[str, bytes]) -> None:
        """Write beside, force to disk, rename."""
        with new_directory(self.directory(version)) as scratch:
            for name, one in content.items():
                (scratch / name).write_bytes(one)

    def point_to(self, pointer: Latest, seen: Seen) -> bool:
        """Replace LATEST.json; under the lock it is as it was seen."""
        fsync(self.path)  # a new store's `versions` must be there before a pointer into it
        replace_file(self.path / LATEST, pointer.to_bytes())
        return True

    def retire(self, versions: Iterable[str]) -> None:
        """Remove versions; a rename hides each whole before its files go one by one."""
        try:
            for name in versions:
                self.directory(name).rename(self.path / VERSIONS / f".{name}")
        except OSError as error:
            _log.warning("older versions stay in %s: removing one %s", self.path, explain(error))
        self._sweep()

    def directory(self, version: str) -> Path:
        """Where a version lies."""
        return self.path / VERSIONS / version

    def _sweep(self) -> None:
        """Remove what killed publishers left and what is retired: names that begin with a dot.

        What cannot be removed (another user's, or busy on a network disk) stays until a later call: nothing
        reads it.
        """
        for path in (*(self.path / VERSIONS).glob(".*"), *self.path.glob(f".{LATEST}-*")):
            try:
                remove(path)
            except OSError as error:
                _log.warning("left over in %s: %s %s", self.path, path.name, explain(error))

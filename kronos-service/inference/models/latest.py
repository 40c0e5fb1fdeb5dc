"""LATEST.json as one replica follows it: which generation it names, and since when."""

import os
from pathlib import Path

from kronos_service.model.adapter.files import AdapterError, read_capped
from kronos_shared.adapter_home import StoreError
from kronos_shared.adapter_manifest import LARGEST_POINTER, LATEST, Latest
from kronos_shared.adapter_store import Home
from kronos_shared.directory_home import DirectoryHome
from kronos_shared.disk_errors import explain, is_missing
from kronos_shared.object_home import ObjectHome


class PointerError(AdapterError):
    """LATEST.json is not to be followed; `pointer` is what it names, where that could be read."""

    def __init__(self, reason: str, pointer: Latest | None = None) -> None:
        super().__init__(reason)
        self.pointer = pointer


class LatestReader:
    """Reads LATEST.json again and again; used by one thread at a time."""

    def __init__(self, adapters: Home) -> None:
        self._adapters = adapters
        self._seen: Latest | None = None
        self.published_at = 0.0
        """When what was read last was written, by the clock of the machine that holds the store."""

    def read(self) -> Latest | None:
        """What LATEST.json names, or None where there is none.

        Raises:
            PointerError: it is invalid or cannot be read, or contradicts what was read before: generations
            only grow.
        """
        home = self._adapters
        pointer = self._in_directory(home.path) if isinstance(home, DirectoryHome) else self._in_bucket(home)
        if pointer is None:
            return None
        seen = self._seen
        if seen is not None and pointer.generation < seen.generation:
            reason = f"generation {pointer.generation} is older than {seen.generation}, which was seen before"
            raise PointerError(reason, pointer)
        if seen is not None and pointer.generation == seen.generation and pointer != seen:
            raise PointerError(f"generation {pointer.generation} was {seen.version} before", pointer)
        self._seen = pointer
        return pointer

    def _in_bucket(self, home: ObjectHome) -> Latest | None:
        try:
            seen = home.seen()
        except StoreError as error:
            raise PointerError(str(error)) from None
        self.published_at = seen.at
        return seen.latest

    def _in_directory(self, adapters: Path) -> Latest | None:
        try:
            os.lstat(adapters / LATEST)
        except OSError as error:
            if is_missing(error):
                return None
            raise PointerError(f"{LATEST} {explain(error)}") from error
        try:
            pointer = Latest.from_bytes(read_capped(adapters, LATEST, LARGEST_POINTER))
            self.published_at = (adapters / LATEST).stat().st_mtime
        except OSError as error:
            raise PointerError(f"{LATEST} {explain(error)}") from None
        except ValueError as error:
            if isinstance(error.__cause__, OSError):  # it could not be read: nothing is known about it
                raise PointerError(str(error)) from None
            raise PointerError(f"{LATEST} is not a valid pointer: {error}") from None
        return pointer

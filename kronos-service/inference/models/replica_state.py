"""What one replica keeps across restarts: the last adapter that served, and its pin.

state/last_good.json, pin.json   as LATEST.json: {generation, version, manifest_sha256}
state/versions/<version>/        a copy of the last good adapter, since the store may no longer hold it
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from kronos_service.model.adapter.files import (
    AdapterError,
    AdapterFiles,
    AdapterNotWholeError,
    read_capped,
    read_files,
)
from kronos_shared.adapter_manifest import LARGEST_POINTER, VERSIONS, Latest
from kronos_shared.atomic import new_directory, remove, replace_file
from kronos_shared.disk_errors import explain, is_missing
from kronos_shared.errors import KronosError

LAST_GOOD = "last_good.json"
PIN = "pin.json"
LOCK = ".lock"

_log = structlog.get_logger()


class ReplicaStateError(KronosError):
    """The state directory cannot be written, or what it holds cannot be read."""


class StateUnreachableError(ReplicaStateError):
    """The state directory is not permitted to this user, or its disk is in trouble: it may pass."""


@contextmanager
def sole_use(directory: Path) -> Iterator[None]:
    """Hold the state directory for this process; the system frees it however the process ends.

    One that cannot be written holds nothing that two services could spoil for each other.

    Raises:
        ReplicaStateError: another process holds it.
    """
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ReplicaStateError(
            f"another service uses the state directory {directory}: set KRONOS_STATE_DIR to one of its own"
        ) from None
    except OSError as error:
        _log.warning("state_not_held", reason=f"{directory} {explain(error)}")
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class ReplicaState:
    """The state directory of one replica; two replicas never share one."""

    directory: Path

    def last_good(self) -> Latest | None:
        """What served last, or None.

        Raises:
            ReplicaStateError: it can no longer be read.
        """
        return self._pointer(LAST_GOOD)

    def has_last_good(self) -> bool:
        """Whether there is a last good one, readable or not valid, as far as can be told."""
        try:
            return self.last_good() is not None
        except StateUnreachableError:
            return False
        except ReplicaStateError:
            return True

    def last_good_files(self, pointer: Latest) -> AdapterFiles:
        """The copy of the last good adapter.

        Raises:
            AdapterError: it is not there, or not whole.
        """
        return read_files(self.directory / VERSIONS / pointer.version, digest=pointer.manifest_sha256)

    def pin(self) -> Latest | None:
        """The version to stay with, or None.

        Raises:
            ReplicaStateError: it can no longer be read.
        """
        return self._pointer(PIN)

    def remember(self, pointer: Latest, files: AdapterFiles) -> None:
        """Save an adapter as the last good one.

        Raises:
            ReplicaStateError: the directory cannot be written.
        """
        versions = self.directory / VERSIONS
        try:
            if not self._holds(pointer):
                if os.path.lexists(versions / pointer.version):
                    remove(versions / pointer.version)
                with new_directory(versions / pointer.version) as scratch:
                    for name, content in files.content.items():
                        (scratch / name).write_bytes(content)
            replace_file(self.directory / LAST_GOOD, pointer.to_bytes())
            for old in versions.iterdir():
                if old.name != pointer.version:
                    remove(old)
        except OSError as error:
            raise self._unwritable(error) from error

    def set_pin(self, pointer: Latest | None) -> None:
        """Keep a version from now on; None removes the pin.

        Raises:
            ReplicaStateError: the directory cannot be written.
        """
        try:
            if pointer is None:
                (self.directory / PIN).unlink(missing_ok=True)
            else:
                replace_file(self.directory / PIN, pointer.to_bytes())
        except OSError as error:
            raise self._unwritable(error) from error

    def _pointer(self, name: str) -> Latest | None:
        try:
            os.lstat(self.directory / name)
        except OSError as error:
            if is_missing(error):
                return None
            raise StateUnreachableError(f"{name} of the state directory {explain(error)}") from error
        try:
            return Latest.from_bytes(read_capped(self.directory, name, LARGEST_POINTER))
        except AdapterNotWholeError as error:
            if isinstance(cause := error.__cause__, OSError):
                raise StateUnreachableError(f"{name} of the state directory {explain(cause)}") from cause
            raise ReplicaStateError(f"{name} of the state directory cannot be read ({error})") from None
        except ValueError as error:
            raise ReplicaStateError(f"{name} of the state directory cannot be read ({error})") from None

    def _holds(self, pointer: Latest) -> bool:
        try:
            return bool(self.last_good_files(pointer))
        except AdapterError:
            return False

    def _unwritable(self, error: OSError) -> ReplicaStateError:
        return ReplicaStateError(
            f"cannot write the state directory {self.directory.name} ({error.strerror}): a restart would "
            "lose what serves now and its pin"
        )

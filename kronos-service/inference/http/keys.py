"""The keys that are known, from the settings and from files that are read again when they change."""

import difflib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from kronos_service.inference.settings import EVERY_KEY, NamedKey, Settings, SettingsError, named_key
from kronos_shared.disk_errors import explain
from kronos_shared.errors import KronosError

Role = Literal["forecast", "admin"]

LOOK_SECONDS: Final = 1.0
"""How often a file is looked at, at most."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Caller:
    """Whose key it is, and what it may do."""

    name: str
    role: Role


class KeyRing:
    """Every known key; used from the event loop.

    Raises:
        SettingsError: on construction, a file that cannot be read or used, a key of both roles, or limits of
            a key that there is not.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = [
            path for path in (settings.api_keys_file, settings.admin_keys_file) if path is not None
        ]
        self._seen, self._looked_at = self._state(), time.monotonic()
        self._keys = self._read()
        names = {caller.name for _, caller in self._keys}
        for name in settings.key_limits.keys() - names - {EVERY_KEY}:
            near = difflib.get_close_matches(name, names, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
            raise SettingsError(f"KRONOS_KEY_LIMITS: no key is named {name}: {advice}")

    def caller_of(self, key: str) -> Caller | None:
        """Whose key it is, or None; every known key is compared, so the time tells nothing about them."""
        self._look()
        sent = key.encode()
        found = [
            caller
            for known, caller in self._keys
            if hmac.compare_digest(sent, known.secret.get_secret_value().encode())
        ]
        return found[-1] if found else None

    def _look(self) -> None:
        """Read the files again if they have changed; what cannot be used leaves the keys as they are."""
        if not self._files or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at, state = time.monotonic(), self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = self._read()
        except KronosError as error:
            _log.error("keys_unusable", reason=str(error))
            return
        _log.info("keys_read", names=sorted({caller.name for _, caller in self._keys}))

    def _read(self) -> list[tuple[NamedKey, Caller]]:
        settings = self._settings
        api = _of_role("api", settings.api_keys_of_environment, settings.api_keys_file)
        admin = _of_role("admin", settings.admin_keys_of_environment, settings.admin_keys_file)
        if not api:
            raise SettingsError(f"{settings.api_keys_file} holds no key: write NAME:KEY, one a line")
        if {one.secret for one in api} & {one.secret for one in admin}:
            raise SettingsError("a key is either an API key or an admin key, not both: make another one")
        return [
            *((one, Caller(one.name, "forecast")) for one in api),
            *((one, Caller(one.name, "admin")) for one in admin),
        ]

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_file_state(path) for path in self._files]


def _of_role(role: str, given: Sequence[NamedKey], path: Path | None) -> list[NamedKey]:
    keys = list(given)
    if path is None:
        return keys
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"{path} {explain(error)}") from None
    except ValueError:
        raise SettingsError(f"{path} is not text: write NAME:KEY, one a line") from None
    for number, line in enumerate(lines, start=1):
        if (entry := line.strip()) and not entry.startswith("#"):
            try:
                keys.append(named_key(entry, f"{role}-{len(keys) + 1}"))
            except ValueError as error:
                raise SettingsError(f"{path}, line {number}: {error}") from None
    return keys


def _file_state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

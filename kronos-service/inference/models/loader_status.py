"""The loader's state as `/v1/model`, `/readyz` and `/metrics` report it."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Final

from kronos_service.inference.models.served_model import ServedModel
from kronos_shared.adapter_manifest import VERSIONS, Latest

LONGEST_REASON: Final = 500


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An adapter that was rejected, and why."""

    version: str | None
    """None where LATEST.json itself could not be read; as is the digest."""
    digest: str | None
    reason: str
    at: datetime
    """When it was first rejected for this reason, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """How often each thing has happened since the process began."""

    loads: int = 0
    """Adapters read, checked and built."""
    swaps: int = 0
    """Times that a different model began to serve."""
    refusals: int = 0
    """Distinct rejections: one that repeats at every poll counts once."""
    reloads: int = 0
    """Loads that somebody asked for."""
    errors: int = 0
    """Unexpected errors that the polling thread survived."""


@dataclass(frozen=True, kw_only=True)
class LoaderStatus:
    """A snapshot of the loader's state."""

    serving: ServedModel | None = None
    reason: str | None = "not loaded yet"
    """Why what serves is not what LATEST (or the pin) names, or why nothing serves; None if it is."""
    latest: Latest | None = None
    """The newest pointer that was read."""
    pinned: str | None = None
    """The version that this replica is pinned to."""
    last_refusal: Refusal | None = None
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Digest -> reason, of adapters that are not tried again until a reload is asked for."""
    resident: tuple[str, ...] = ()
    """Versions in memory, the latest first; a pin or rollback to one of them is instant."""
    state_unsaved: str | None = None
    """Why a restart would not find what serves now; None if it would."""
    counters: Counters = Counters()
    last_flip_seconds: float | None = None
    """How long the last swap took."""
    last_publish_to_live_seconds: float | None = None
    """From the time LATEST.json was written to the moment its version served, by the two machines' clocks."""


def one_line(reason: str, *, without: Iterable[Path | str]) -> str:
    """A reason on one printable line, with no more of these places than their last names: a manifest may hold
    anything.
    """
    for root in map(str, without):
        for prefix in (f"{root}{os.sep}{VERSIONS}{os.sep}", f"{root}{os.sep}"):
            reason = reason.replace(prefix, "")
        reason = re.sub(rf"(^|[:;] ){re.escape(root)}: ", r"\1", reason)
        reason = reason.replace(root, PurePath(root).name or root)
    line = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"

"""The event types, their families, the leaders and the channels, read from `event_types.toml`."""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from kronos_shared.errors import KronosError


class UnknownEventType(KronosError):
    """The calendar has event types that `event_types.toml` does not list."""


_TAXONOMY: Final[dict[str, Any]] = tomllib.loads(
    files("kronos_shared").joinpath("event_types.toml").read_text(encoding="utf-8")
)

CHANNEL_VERSION: Final[int] = _TAXONOMY["version"]
CURRENCY: Final[str] = _TAXONOMY["currency"]
IMPACT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(_TAXONOMY["impact_weights"])
FAMILIES: Final[tuple[str, ...]] = tuple(_TAXONOMY["families"])
EVENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {event_type: family for family, types in _TAXONOMY["families"].items() for event_type in types}
)
"""Event type -> family."""
TIER1: Final[tuple[str, ...]] = tuple(_TAXONOMY["tier1"])
"""The families whose gain is shown apart."""
LEADER_ASSET_CLASS: Final[Mapping[str, str]] = MappingProxyType(_TAXONOMY["leaders"])
"""Leader -> asset class, in the order of the channels."""
LEADERS: Final[tuple[str, ...]] = tuple(LEADER_ASSET_CLASS)

SURPRISE: Final = len(FAMILIES)
DAYS_UNTIL: Final = SURPRISE + 1
FIRST_LEADER: Final = DAYS_UNTIL + 1
CHANNELS: Final[tuple[str, ...]] = (
    *FAMILIES,
    "surprise_z",
    "days_until",
    *(f"leader_{leader.lower()}" for leader in LEADERS),
)


def channel_hash() -> str:
    """The sha256 of everything that defines the channels; an adapter fits one hash only."""
    # Without the table of leaders, whose names are among the channels, and the first tier, which no channel
    # depends on: published adapters carry this hash.
    events = {key: value for key, value in _TAXONOMY.items() if key not in ("leaders", "tier1")}
    meaning = {"taxonomy": events, "channels": CHANNELS}
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def check_event_types(event_types: Iterable[str]) -> None:
    """Raise `UnknownEventType` with every type that is not in the taxonomy."""
    unknown = sorted({str(event_type) for event_type in event_types} - set(EVENT_TYPES))
    if unknown:
        raise UnknownEventType(
            f"expected event types of event_types.toml, got {', '.join(unknown)}: "
            "map them to a listed type or drop those rows from the calendar"
        )

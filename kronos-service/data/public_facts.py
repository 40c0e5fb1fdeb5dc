"""What is public about releases, asset classes and leaders, read from `plausibility.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, Literal

AcceptedName = Literal[
    "closed-day",
    "day-of-month",
    "weekday",
    "hour",
    "pause",
    "count",
    "unit",
    "figure",
    "price",
    "volume",
    "flat",
]
"""What --accept takes: all but a figure before its release, which nobody knows."""
DepartureName = Literal["early-figure", AcceptedName]


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """One event type; the comments of the file say what each means."""

    times: tuple[str, ...]
    weekdays: tuple[int, ...]
    per_year: tuple[int, int]
    longest_gap: int
    days: tuple[int, int] = (1, 31)
    figure: tuple[float, float] | None = None
    units: tuple[float, ...] = field(default=(1.0,))

    @property
    def has_long_window(self) -> bool:
        """Whether a date by chance is often within the days: a third of the month."""
        return sum(self.has_day(day) for day in range(1, 32)) >= 10

    def has_day(self, day: int) -> bool:
        """Whether releases fall on this day of the month."""
        first, last = self.days
        return first <= day <= last if first <= last else day >= first or day <= last


@dataclass(frozen=True, kw_only=True)
class ClassFacts:
    """One asset class."""

    jump: float
    volume: bool
    flat: int


def _read() -> dict[str, Any]:
    text = files("kronos_service.data").joinpath("plausibility.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


_FACTS: Final = _read()
RELEASES: Final[Mapping[str, ReleaseFacts]] = {
    name: ReleaseFacts(**_tuples(row)) for name, row in _FACTS["releases"].items()
}
"""Event type -> its facts, for each type of the taxonomy."""
CLASSES: Final[Mapping[str, ClassFacts]] = {
    name: ClassFacts(**row) for name, row in _FACTS["asset_classes"].items()
}
"""Asset class -> its facts."""
LEADER_PRICES: Final[Mapping[str, tuple[float, float]]] = {
    name: tuple(row["price"]) for name, row in _FACTS["leaders"].items()
}
"""Leader -> lowest and highest price."""

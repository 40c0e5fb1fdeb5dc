"""What the two sample markets are made of: their releases, leaders, and which leader moves the equities."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, read_taxonomy


class Release(NamedTuple):
    """Event types that are released together."""

    types: tuple[str, ...]
    time: str
    """Of New York."""
    per_year: float
    high_share: float
    """Of the releases that are of high impact."""
    otherwise: str
    """The impact of the others."""


class Shape(NamedTuple):
    """How a leader moves."""

    sigma: float
    """Standard deviation of a bar's log return on a non-event day."""
    level: float
    """Price that the path reverts to."""
    volume: float
    """Median volume; 0 for a series that does not trade."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The law of one market."""

    taxonomy: Taxonomy
    releases: tuple[Release, ...]
    shapes: Mapping[str, Shape]
    """Of the leaders."""
    anchor: str
    """The leader that is tradable, drifts after surprises, and whose noise the other equities share."""


# 42 certain high-impact dates a year and 5 by chance: about 17 % of the sessions are event days.
_US_RELEASES: Final = (
    Release(("fomc_rate_decision", "fomc_statement", "fomc_press_conference"), "14:00", 9, 1.0, "high"),
    Release(("fomc_minutes",), "14:00", 10, 0.25, "medium"),
    Release(("cpi", "core_cpi"), "08:30", 12, 1.0, "high"),
    Release(("pce", "core_pce"), "08:30", 10, 1.0, "high"),
    Release(("nfp", "unemployment_rate"), "08:30", 12, 1.0, "high"),
    Release(("ppi",), "08:30", 10, 0.0, "medium"),
    Release(("gdp",), "08:30", 10, 0.0, "medium"),
    Release(("retail_sales",), "08:30", 10, 0.0, "medium"),
    Release(("ism_manufacturing",), "10:00", 11, 0.0, "medium"),
    Release(("ism_services",), "10:00", 11, 0.0, "medium"),
    Release(("jobless_claims",), "08:30", 13, 0.0, "low"),
    Release(("consumer_sentiment",), "10:00", 10, 0.25, "medium"),
    Release(("jolts",), "10:00", 10, 0.0, "low"),
)

US_MACRO: Final = World(
    taxonomy=DEFAULT_TAXONOMY,
    releases=_US_RELEASES,
    shapes={
        "BTCUSDT": Shape(0.025, 40_000.0, 30_000.0),
        "SPY": Shape(0.009, 400.0, 80_000_000.0),
        "DXY": Shape(0.004, 100.0, 0.0),
        "VIX": Shape(0.05, 20.0, 0.0),
    },
    anchor="SPY",
)
OWN_TAXONOMY: Final = Path(str(files("kronos_service.data") / "own_events.toml"))


def own_events() -> World:
    """Two families and an event of each symbol that the default taxonomy lacks; QQQ leads, GLD is a decoy."""
    return World(
        taxonomy=read_taxonomy(OWN_TAXONOMY),
        releases=(
            Release(("ecb_rate_decision",), "08:15", 16, 1.0, "high"),
            Release(("oil_inventories",), "10:30", 16, 1.0, "high"),
            Release(("earnings_before_open",), "07:00", 8, 1.0, "high"),
            Release(("earnings_after_close",), "16:30", 8, 1.0, "high"),
        ),
        shapes={"QQQ": Shape(0.011, 300.0, 50_000_000.0), "GLD": Shape(0.008, 180.0, 8_000_000.0)},
        anchor="QQQ",
    )

"""Hand-made and random calendars, leaders and bars for the tests of the calendar side."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.encoder import EventTables, prepare
from kronos_service.events.sessions import DAILY, Interval, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.columns import ASSET_CLASSES, CALENDAR_COLUMNS

# Sessions next to what tends to go wrong: clock changes (also Europe's), half days, holidays, closures.
ANCHORS = (
    date(2024, 3, 8),
    date(2024, 3, 28),
    date(2024, 7, 2),
    date(2024, 10, 25),
    date(2024, 11, 1),
    date(2024, 11, 27),
    date(2024, 12, 24),
    date(2025, 1, 8),
)
HISTORY, SPAN = timedelta(days=130), timedelta(days=16)
SHORT_SPAN = timedelta(days=3)
"""For bars shorter than a day."""
TYPES = ("cpi", "nfp", "fomc_rate_decision")


@dataclass(frozen=True)
class World:
    """Everything one encoding sees."""

    asset_class: str
    bars: pd.DataFrame
    calendar: pd.DataFrame
    leaders: dict[str, pd.DataFrame]
    interval: Interval = DAILY

    def tables(self) -> EventTables:
        return prepare(self.calendar, self.leaders)


def utc_time(text: str, zone: str = "UTC") -> pd.Timestamp:
    return pd.Timestamp(text, tz=zone).tz_convert("UTC")


def new_york(text: str) -> pd.Timestamp:
    return utc_time(text, "America/New_York")


def event(event_id: str, event_type: str, release_at: pd.Timestamp, **values: Any) -> dict[str, Any]:
    """One calendar row: high impact, in USD, always known, unless `values` say otherwise."""
    row = {
        "event_id": event_id,
        "event_type": event_type,
        "event_name": event_type,
        "currency": "USD",
        "impact": "high",
        "release_at": release_at,
        "actual": np.nan,
        "forecast": np.nan,
        "previous": np.nan,
        "first_seen_at": pd.NaT,
    }
    return row | values


def calendar_of(rows: Iterable[dict[str, Any]], reach: str = "2030-01-01") -> pd.DataFrame:
    """A calendar with the rows, and one low-impact event far ahead so that it reaches."""
    last = event("last", "jobless_claims", utc_time(reach), impact="low")
    frame = pd.DataFrame([*rows, last], columns=list(CALENDAR_COLUMNS))
    for column in ("release_at", "first_seen_at"):
        frame[column] = pd.to_datetime(frame[column], utc=True).dt.as_unit("ns")
    return frame


def bars_of(days: Iterable[Any]) -> pd.DataFrame:
    return pd.DataFrame({"ts": pd.DatetimeIndex(pd.to_datetime(list(days), utc=True)).as_unit("ns")})


def session_days(asset_class: str, start: str, end: str) -> npt.NDArray[np.datetime64]:
    return sessions(asset_class, date.fromisoformat(start), date.fromisoformat(end)).dates


def empty_leaders() -> dict[str, pd.DataFrame]:
    frame = bars_of([]).assign(close=np.zeros(0))
    return dict.fromkeys(DEFAULT_TAXONOMY.leaders, frame)


@lru_cache(maxsize=1)
def walking_leaders() -> dict[str, pd.DataFrame]:
    """A random walk of each leader over all its sessions from autumn 2023 to spring 2025."""
    leaders = {}
    for seed, leader in enumerate(DEFAULT_TAXONOMY.leaders):
        days = session_days(DEFAULT_TAXONOMY.leader_asset_class[leader], "2023-09-01", "2025-04-30")
        walk = np.random.default_rng(seed).normal(0, 0.02, len(days)).cumsum()
        leaders[leader] = bars_of(days).assign(close=100 * np.exp(walk))
    return leaders


def span_of(interval: Interval) -> timedelta:
    return SPAN if interval == DAILY else SHORT_SPAN


def random_world(asset_class: str, anchor: date, seed: int, interval: Interval = DAILY) -> World:
    """Some weeks around an anchor, with gaps, revisions, postponements and times on every boundary."""
    if asset_class not in ASSET_CLASSES:
        raise AssertionError(asset_class)
    rng = np.random.default_rng(seed)
    span = span_of(interval)
    table = sessions(asset_class, anchor - span, anchor + span, interval)
    kept = rng.random(len(table.dates)) < 0.9
    kept[len(kept) // 2] = True
    return World(
        asset_class=asset_class,
        bars=bars_of(table.dates[kept]),
        calendar=_random_calendar(asset_class, anchor, rng, interval),
        leaders={name: _window(bars, anchor, rng) for name, bars in walking_leaders().items()},
        interval=interval,
    )


def random_moments(
    asset_class: str, anchor: date, rng: np.random.Generator, n: int, interval: Interval = DAILY
) -> pd.DatetimeIndex:
    """n moments around the anchor: on, just before and just after closes and as_ofs, or any minute at all."""
    span = span_of(interval)
    table = sessions(asset_class, anchor - span, anchor + span, interval)
    edges = rng.choice(np.concatenate([table.closes, table.as_of]), n)
    nudges = rng.choice(np.array([0, 0, 1, -1, 60_000_000_000, -3_600_000_000_000]), n)
    reach = int(span / timedelta(minutes=1))
    minutes = rng.integers(-reach, reach, n).astype("timedelta64[m]")
    anywhere = np.datetime64(anchor, "ns") + minutes
    moments = np.where(rng.random(n) < 0.6, edges + nudges.astype("timedelta64[ns]"), anywhere)
    return pd.DatetimeIndex(moments).tz_localize("UTC")


def random_rows(
    asset_class: str,
    anchor: date,
    rng: np.random.Generator,
    ids: list[str],
    seen: pd.DatetimeIndex,
    interval: Interval = DAILY,
) -> list[dict[str, Any]]:
    """One random row per event_id, first seen at the moments given."""
    releases = random_moments(asset_class, anchor, rng, len(ids), interval)
    return [
        event(
            event_id,
            str(rng.choice(TYPES)),
            releases[i],
            impact=str(rng.choice(["high", "high", "medium", "low"])),
            currency=str(rng.choice(["USD", "USD", "USD", "EUR"])),
            actual=float(rng.choice([np.nan, rng.normal(), rng.normal()])),
            forecast=float(rng.choice([np.nan, 0.1, 0.2, 0.3])),
            first_seen_at=seen[i],
        )
        for i, event_id in enumerate(ids)
    ]


def _random_calendar(
    asset_class: str, anchor: date, rng: np.random.Generator, interval: Interval
) -> pd.DataFrame:
    rows = [
        event(
            f"past-{kind}-{i}", kind, utc_time(str(anchor - timedelta(days=40 + 7 * i))) + pd.Timedelta("13h")
        )
        | {"actual": float(rng.normal()), "forecast": 0.0}
        for kind in TYPES
        for i in range(9)
    ]
    ids = [f"event-{i}" for i in range(24)]
    always = pd.DatetimeIndex([pd.NaT] * len(ids), tz="UTC")
    rows += random_rows(asset_class, anchor, rng, ids, always, interval)
    versions = [str(name) for name in rng.choice([*ids, "late-1", "late-2", "late-3"], 16)]
    seen = random_moments(asset_class, anchor, rng, 16, interval)
    rows += random_rows(asset_class, anchor, rng, versions, seen, interval)
    frame = calendar_of(rows).drop_duplicates(["event_id", "first_seen_at"])
    return frame.sample(frac=1, random_state=int(rng.integers(2**31)))


def _window(bars: pd.DataFrame, anchor: date, rng: np.random.Generator) -> pd.DataFrame:
    day = pd.Timestamp(anchor, tz="UTC")
    near = bars[(bars["ts"] >= day - HISTORY) & (bars["ts"] <= day + SPAN)]
    return near[rng.random(len(near)) < 0.97].sample(frac=1, random_state=int(rng.integers(2**31)))

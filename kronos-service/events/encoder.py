"""The event tensor: what is known about each position's target bar, in training and serving alike.

The target of position i is the next session of its asset class, not the next bar of the data: a gap must not
let a row look further ahead. The row may use what was known at as_of(i) = min(close(i) + 1 h, next open).
`prepare` reads calendar and leaders once, for all symbols; `encode_rows` encodes the bars of one symbol.

Letters: T bars, H horizon in bars, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarError, CalendarRows, calendar_reach, read_calendar
from kronos_service.events.leaders import Leader, LeaderError, leader_channel, read_leader
from kronos_service.events.scenario import Scenario, ScenarioError, scenario_rows
from kronos_service.events.schedule import schedule_channels
from kronos_service.events.sessions import (
    DAILY,
    LONGEST_CLOSURE,
    Indices,
    Interval,
    SessionError,
    Sessions,
    TimesLike,
    days_of,
    locate,
    session_dates,
    sessions,
)
from kronos_service.events.surprises import Surprises, find_surprises, surprise_channel
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, require_same

REACH_DAYS: Final = 10
"""Days that the calendar must reach past the last target, or its end would look like days without events."""

Events = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EventTables:
    """Calendar and leaders, read once for any symbol of any asset class."""

    rows: CalendarRows
    surprises: Surprises
    leaders: tuple[Leader, ...]
    reach: np.datetime64
    """UTC date of the last release."""

    @property
    def covers(self) -> np.datetime64:
        """The last target date about which the calendar can say everything."""
        return self.reach - np.timedelta64(REACH_DAYS, "D")

    @property
    def taxonomy(self) -> Taxonomy:
        """What the channels made of these tables mean."""
        return self.rows.taxonomy

    def of(self, symbol: str | None) -> "EventTables":
        """With the events that fall on a symbol's bars: everybody's, and its own."""
        kept = self.rows.falls_on(symbol)
        if kept.all():
            return self
        return replace(self, rows=self.rows.only(kept), surprises=self.surprises.only(kept))


def prepare(
    calendar: pd.DataFrame,
    leader_data: Mapping[str, pd.DataFrame],
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> EventTables:
    """Read the calendar (`CALENDAR_COLUMNS`) and the leaders' bars (ts, close), rows in any order.

    Raises:
        CalendarError, UnknownEventType: the calendar cannot be used.
        LeaderError: a leader is missing (it may have no rows), or its bars cannot be used.
    """
    missing = [leader for leader in taxonomy.leaders if leader not in leader_data]
    if missing:
        leaders = ", ".join(taxonomy.leaders)
        raise LeaderError(
            f"expected bars of the leaders {leaders}, got none of {', '.join(missing)}: add them"
        )
    rows = read_calendar(calendar, taxonomy)
    return EventTables(
        rows=rows,
        surprises=find_surprises(rows),
        leaders=tuple(read_leader(name, leader_data[name], taxonomy) for name in taxonomy.leaders),
        reach=calendar_reach(calendar, taxonomy),
    )


def encode_rows(
    tables: EventTables,
    ts: TimesLike,
    asset_class: str,
    *,
    interval: Interval = DAILY,
    symbol: str | None,
    horizon: int = 0,
    scenario: Scenario | None = None,
) -> Events:
    """The (T + max(H - 1, 0), C) float32 event tensor of a symbol's bars dated `ts` (T,), ascending.

    Row T - 1 describes the first forecast bar. Later rows use the schedule known at that as_of; their
    surprises and leaders are unknown, 0 or what the scenario supposes.
    """
    if scenario is not None and interval != DAILY:
        raise ScenarioError(f"what-ifs are by date, so {interval} bars have none: leave the scenario out")
    tables, taxonomy = tables.of(symbol), tables.taxonomy
    table, bar = _bar_sessions(ts, asset_class, interval, horizon)
    steps = np.arange(1, max(horizon, 1) + 1)
    target = np.concatenate([bar[:-1] + 1, bar[-1] + steps])
    _check_reach(tables.reach, days_of(table.dates[target[-1:]])[0])
    as_of, before = table.as_of[bar], table.as_of[bar[0] - 1]
    # Each row reports what became known since the row before it; the first one since the session before.
    previous = np.concatenate([[before], as_of[:-1]])

    events = np.zeros((len(target), len(taxonomy.channels)))
    # No forecast row knows more of the schedule than was known when the forecast is made.
    known = np.concatenate([as_of[:-1], np.full(len(steps), as_of[-1])])
    families, events[:, taxonomy.days_until] = schedule_channels(tables.rows, table, target, known)
    events[:, : families.shape[1]] = families
    events[: len(bar), taxonomy.surprise] = surprise_channel(tables.surprises, as_of, before)
    for number, leader in enumerate(tables.leaders):
        events[: len(bar), taxonomy.first_leader + number] = leader_channel(leader, as_of, previous)
    if scenario is not None:
        events[len(bar) :] += scenario_rows(scenario, table.dates[bar[-1] + steps], taxonomy)
    return events.astype(np.float32)


@dataclass(frozen=True)
class EventEncoder:
    """The way in to the event tensor: a base's bundle carries one, and it has no state."""

    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    """What the model's channels mean."""

    def encode(
        self,
        bars: pd.DataFrame,
        asset_class: str,
        calendar: pd.DataFrame | EventTables,
        leader_data: Mapping[str, pd.DataFrame] | None = None,
        horizon: int = 0,
        scenario: Scenario | None = None,
        interval: Interval = DAILY,
        *,
        symbol: str | None = None,
    ) -> Events:
        """The (T + max(H - 1, 0), C) float32 event tensor of `bars`, of which only the column ts is read.

        Args:
            calendar: rows of `CALENDAR_COLUMNS`, with the leaders' bars in `leader_data`; or both as
                `prepare` read them, so that many symbols share one reading.
            symbol: whose bars they are; without it no symbol event falls on them.

        Raises:
            TaxonomyError: the tables were prepared for channels of another meaning.
        """
        if isinstance(calendar, EventTables):
            tables = calendar
            require_same(self.taxonomy, tables.taxonomy, "the calendar")
        else:
            tables = prepare(calendar, leader_data or {}, self.taxonomy)
        return encode_rows(
            tables,
            bars["ts"],
            asset_class,
            interval=interval,
            symbol=symbol,
            horizon=horizon,
            scenario=scenario,
        )


def _bar_sessions(
    ts: TimesLike, asset_class: str, interval: Interval, horizon: int
) -> tuple[Sessions, Indices]:
    """The sessions from before the bars to past the horizon, and the (T,) index of each bar's."""
    days = session_dates(ts, interval)
    if len(days) == 0:
        raise SessionError("expected at least one bar, got none")
    if (days[1:] <= days[:-1]).any():
        raise SessionError(
            "expected bars in strictly ascending order of ts, got others: sort, drop duplicates"
        )
    # Less than half of all days are no sessions, so H sessions take at most 2 H days, plus one long closure.
    # Past the last target only the next 10 days matter: `days_until` looks no further.
    ahead = timedelta(days=2 * max(horizon, 1)) + LONGEST_CLOSURE + timedelta(days=REACH_DAYS)
    table = sessions(asset_class, days[0].item() - LONGEST_CLOSURE, days[-1].item() + ahead, interval)
    return table, locate(table, days)


def _check_reach(reach: np.datetime64, last_target: np.datetime64) -> None:
    needed = last_target + np.timedelta64(REACH_DAYS, "D")
    if reach < needed:
        raise CalendarError(
            f"expected a calendar until {needed}, {REACH_DAYS} days past the last target {last_target}, "
            f"got one until {reach}: extend the calendar or drop the last bars"
        )

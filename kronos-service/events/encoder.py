"""The event tensor: what each position may know about its target bar, for training and serving alike.

Position i is about the next session of the asset class's calendar, its target, and knows what was known at
as_of(i) = min(close(i) + 1 h, next open). `prepare` reads calendar and leaders once; `encode_rows` looks the
bars of one symbol up in them; `EventEncoder.encode` does both.

Letters: T bars, H horizon in bars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarError, CalendarRows, calendar_reach, read_calendar
from kronos_service.events.leaders import Leader, LeaderError, leader_channel, read_leader
from kronos_service.events.scenario import Scenario, scenario_rows
from kronos_service.events.schedule import schedule_channels
from kronos_service.events.sessions import (
    LONGEST_CLOSURE,
    Indices,
    SessionError,
    Sessions,
    TimesLike,
    locate,
    session_dates,
    sessions,
)
from kronos_service.events.surprises import Surprises, find_surprises, surprise_channel
from kronos_service.events.taxonomy import CHANNELS, DAYS_UNTIL, FIRST_LEADER, LEADERS, SURPRISE

REACH_DAYS: Final = 10
"""So many days past the last target the calendar must go on, or its end would look like quiet days."""

Events = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EventTables:
    """Calendar and leaders, read once: good for any symbol of any asset class."""

    rows: CalendarRows
    surprises: Surprises
    leaders: tuple[Leader, ...]
    reach: np.datetime64
    """UTC date of the last release."""

    @property
    def covers(self) -> np.datetime64:
        """The last target date about which the calendar can say everything."""
        return self.reach - np.timedelta64(REACH_DAYS, "D")


def prepare(calendar: pd.DataFrame, leader_data: Mapping[str, pd.DataFrame]) -> EventTables:
    """Read the calendar (columns of `CALENDAR_COLUMNS`) and the four leaders (ts, close), rows in any order.

    Raises CalendarError, UnknownEventType or LeaderError; a leader must be there, but may have no rows.
    """
    missing = [leader for leader in LEADERS if leader not in leader_data]
    if missing:
        raise LeaderError(
            f"expected bars of the leaders {', '.join(LEADERS)}, got none of {', '.join(missing)}: add them"
        )
    rows = read_calendar(calendar)
    return EventTables(
        rows=rows,
        surprises=find_surprises(rows),
        leaders=tuple(read_leader(leader, leader_data[leader]) for leader in LEADERS),
        reach=calendar_reach(calendar),
    )


def encode_rows(
    tables: EventTables,
    ts: TimesLike,
    asset_class: str,
    *,
    horizon: int = 0,
    scenario: Scenario | None = None,
) -> Events:
    """The (T + max(H - 1, 0), 20) float32 event tensor of bars dated `ts` (T,), ascending.

    Row T - 1 is about the first bar after the last one; the rows past it know the schedule as of that moment,
    and of surprises and leaders only what the scenario supposes.
    """
    table, bar = _bar_sessions(ts, asset_class, horizon)
    steps = np.arange(1, max(horizon, 1) + 1)
    target = np.concatenate([bar[:-1] + 1, bar[-1] + steps])
    _check_reach(tables.reach, table.dates[target[-1]])
    as_of, before = table.as_of[bar], table.as_of[bar[0] - 1]
    previous = np.concatenate([[before], as_of[:-1]])

    events = np.zeros((len(target), len(CHANNELS)))
    known = np.concatenate([as_of[:-1], np.full(len(steps), as_of[-1])])
    events[:, :SURPRISE], events[:, DAYS_UNTIL] = schedule_channels(tables.rows, table, target, known)
    events[: len(bar), SURPRISE] = surprise_channel(tables.surprises, as_of, before)
    for number, leader in enumerate(tables.leaders):
        events[: len(bar), FIRST_LEADER + number] = leader_channel(leader, as_of, previous)
    if scenario is not None:
        events[len(bar) :] += scenario_rows(scenario, table.dates[bar[-1] + steps])
    return events.astype(np.float32)


@dataclass(frozen=True)
class EventEncoder:
    """The way in to the event tensor: a base's bundle carries one, and it has no state."""

    def encode(
        self,
        bars: pd.DataFrame,
        asset_class: str,
        calendar: pd.DataFrame | EventTables,
        leader_data: Mapping[str, pd.DataFrame] | None = None,
        horizon: int = 0,
        scenario: Scenario | None = None,
    ) -> Events:
        """The (T + max(H - 1, 0), 20) float32 event tensor of `bars`, of which only the column ts is read.

        Args:
            calendar: rows of `CALENDAR_COLUMNS`, with the leaders' bars in `leader_data`; or both as
                `prepare` read them, so that many symbols share one reading.
        """
        tables = calendar if isinstance(calendar, EventTables) else prepare(calendar, leader_data or {})
        return encode_rows(tables, bars["ts"], asset_class, horizon=horizon, scenario=scenario)


def _bar_sessions(ts: TimesLike, asset_class: str, horizon: int) -> tuple[Sessions, Indices]:
    """The sessions around the bars, some before and enough behind, and the (T,) index of each bar's."""
    days = session_dates(ts)
    if len(days) == 0:
        raise SessionError("expected at least one bar, got none")
    if (days[1:] <= days[:-1]).any():
        raise SessionError(
            "expected bars in strictly ascending order of ts, got others: sort, drop duplicates"
        )
    # Weekends and holidays take less than half of all days; no event further ahead than 10 days matters.
    ahead = timedelta(days=2 * max(horizon, 1)) + LONGEST_CLOSURE + timedelta(days=REACH_DAYS)
    table = sessions(asset_class, days[0].item() - LONGEST_CLOSURE, days[-1].item() + ahead)
    return table, locate(table, days)


def _check_reach(reach: np.datetime64, last_target: np.datetime64) -> None:
    needed = last_target + np.timedelta64(REACH_DAYS, "D")
    if reach < needed:
        raise CalendarError(
            f"expected a calendar until {needed}, {REACH_DAYS} days past the last target {last_target}, "
            f"got one until {reach}: extend the calendar or drop the last bars"
        )

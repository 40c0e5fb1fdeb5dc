"""When each bar opens and closes, and what it may know: one table of bars per asset class and interval.

Times are numpy datetime64[ns] in UTC. A daily bar is named by its session date (datetime64[D]), a shorter one
by its opening time (datetime64[m], UTC); both are called dates here. The tables come from exchange calendars
and time zones, never from the data: a missing bar is a gap in the data, not a longer session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_shared.errors import KronosError

Times = npt.NDArray[np.datetime64]
Indices = npt.NDArray[np.int64]
TimesLike = pd.Series | pd.Index | Times | Sequence[str] | Sequence[date]

FIRST_DAY: Final = date(1990, 1, 1)
"""The earliest date that a bar may have."""
LONGEST_CLOSURE: Final = timedelta(days=14)
"""More days than any of the calendars was ever closed in a row."""
_TABLE_START: Final = FIRST_DAY - LONGEST_CLOSURE  # so that the first bar, too, has a session before it
ONE_HOUR: Final = np.timedelta64(1, "h")
ONE_DAY: Final = np.timedelta64(1, "D")
Interval = Literal["1d", "4h", "1h"]
"""How long a bar is; 1d is a session of its asset class, however long."""
DAILY: Final[Interval] = "1d"
LENGTHS: Final[dict[Interval, np.timedelta64]] = {
    "4h": np.timedelta64(4 * 60, "m"),
    "1h": np.timedelta64(60, "m"),
}
"""Of the bars shorter than a session: they divide the UTC day."""
ONLY_CRYPTO: Final = (
    "only crypto, which trades around the clock, has bars shorter than a day here: where sessions have half "
    "days, auctions and changes of the clock, neither the end of such a bar nor what was known at it is plain"
)
# Cboe keeps the days and half days of NYSE and closes 15 minutes later. The library's Cboe calendar, XCBF,
# knows only one of the three yearly half days: on 3 July and 24 December it would close three hours late.
_CLOSES_AFTER_NYSE: Final = {"us_equity": np.timedelta64(0, "m"), "index": np.timedelta64(15, "m")}


class SessionError(KronosError):
    """A bar or a date that does not fit the sessions of its asset class."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """Consecutive bars of one asset class: four read-only arrays of equal length, ascending.

    `as_of` is the moment until which a forecast of the *next* session may know things: min(close + 1 h, next
    open). The hour lets markets that close a little later count; the next open keeps the target itself out.
    """

    dates: Times
    opens: Times
    closes: Times
    as_of: Times
    interval: Interval = DAILY

    @property
    def per_day(self) -> int:
        """Bars of a day at most."""
        return 1 if self.interval == DAILY else int(ONE_DAY / LENGTHS[self.interval])


def sessions(asset_class: str, start: date, end: date, interval: Interval = DAILY) -> Sessions:
    """The bars dated from the day of `start` to that of `end`, both inclusive, whatever today's date is."""
    start, end = (day.date() if isinstance(day, datetime) else day for day in (start, end))
    if start < _TABLE_START:
        raise SessionError(f"expected dates from {FIRST_DAY}, got {start}: drop the earlier bars")
    # Whole decades, so that the many windows of a run share one cached table.
    table = _table(asset_class, (end.year // 10 + 1) * 10, interval)
    bounds = np.array([start, end + timedelta(days=1)], dtype="datetime64[D]")
    span = slice(*np.searchsorted(table.dates, bounds))
    return Sessions(table.dates[span], table.opens[span], table.closes[span], table.as_of[span], interval)


def locate(table: Sessions, ts: TimesLike) -> Indices:
    """The (n,) index in `table` of each bar's session; SessionError if a date is no session."""
    days = session_dates(ts, table.interval)
    index = np.searchsorted(table.dates, days)
    wrong = index == len(table.dates)
    wrong[~wrong] = table.dates[index[~wrong]] != days[~wrong]
    if wrong.any():
        first = ", ".join(str(day) for day in days[wrong][:3])
        raise SessionError(
            f"expected session dates of the asset class, got {wrong.sum()} others, the first {first}: "
            "check the symbol's asset_class and that ts is the session date"
        )
    return index


def target_index(table: Sessions, release_at: Times) -> Indices:
    """The (n,) session each release falls on: close of the one before <= release < its close.

    A release at the very close moves the next bar. Releases before the table fall on index 0 and those after
    it on len(table.dates).
    """
    return np.searchsorted(table.closes, release_at, side="right")


def session_dates(ts: TimesLike, interval: Interval = DAILY) -> Times:
    """The (n,) dates that name the bars at these times, each of which must be 00:00 UTC or, of bars shorter
    than a day, the time at which such a bar opens.
    """
    times = utc(ts)
    if interval != DAILY:
        return _opening_times(times, interval)
    days = times.astype("datetime64[D]")
    off = days != times
    if off.any():
        raise SessionError(f"expected ts at 00:00 UTC, got {times[off][0]}: store the bar's session date")
    return days


def days_of(dates: Times) -> Times:
    """The (n,) datetime64[D] UTC days of bars' dates."""
    return dates.astype("datetime64[D]")


def is_grid(times: Times, interval: Interval) -> npt.NDArray[np.bool_]:
    """Which times (n,) are those at which a bar of the interval opens: 00:00 UTC for daily ones."""
    length = ONE_DAY if interval == DAILY else LENGTHS[interval]
    is_opening: npt.NDArray[np.bool_] = (times - days_of(times)) % length == np.timedelta64(0)
    return is_opening


def _opening_times(times: Times, interval: Interval) -> Times:
    off = ~is_grid(times, interval)
    if off.any():
        raise SessionError(
            f"expected ts at which a {interval} bar opens (UTC), got {times[off][0]}: give the opening time"
        )
    return times.astype("datetime64[m]")


def utc(values: TimesLike) -> Times:
    """Any times as datetime64[ns] in UTC; those without a zone are UTC, and null stays NaT."""
    index = pd.Index(values)
    if not isinstance(index, pd.DatetimeIndex):
        index = pd.DatetimeIndex(pd.to_datetime(index, utc=True, cache=False))
    return index.tz_convert(None).as_unit("ns").to_numpy() if index.tz else index.as_unit("ns").to_numpy()


@lru_cache(maxsize=16)
def _table(asset_class: str, last_year: int, interval: Interval) -> Sessions:
    """All sessions up to a year's end; a month more is read, because as_of needs the next open."""
    last_day = date(last_year, 12, 31)
    until = last_day + timedelta(days=31)
    if interval != DAILY:
        dates, opens, closes = _short_bars(asset_class, until, interval)
    elif asset_class in _CLOSES_AFTER_NYSE:
        dates, opens, closes = _nyse_sessions(until)
        closes = closes + _CLOSES_AFTER_NYSE[asset_class]
    elif asset_class == "fx":
        dates, opens, closes = _fx_sessions(until)
    elif asset_class == "crypto":
        dates, opens, closes = _crypto_sessions(until)
    else:
        raise SessionError(
            f"expected asset class crypto, us_equity, index or fx, got {asset_class!r}: fix the symbols table"
        )
    as_of = np.minimum(closes[:-1] + ONE_HOUR, opens[1:])
    keep = slice(np.searchsorted(dates, np.datetime64(last_day) + ONE_DAY))
    table = Sessions(dates[keep], opens[keep], closes[keep], as_of[keep], interval)
    for array in (table.dates, table.opens, table.closes, table.as_of):
        array.setflags(write=False)
    return table


def _nyse_sessions(until: date) -> tuple[Times, Times, Times]:
    """NYSE with its holidays, half days and daylight saving (`exchange_calendars`)."""
    schedule = exchange_calendars.get_calendar("XNYS", start=_TABLE_START, end=until).schedule
    return schedule.index.to_numpy().astype("datetime64[D]"), utc(schedule["open"]), utc(schedule["close"])


def _fx_sessions(until: date) -> tuple[Times, Times, Times]:
    """Weekdays, from 17:00 New York on the day before to 17:00 New York."""
    days = np.arange(np.datetime64(_TABLE_START), np.datetime64(until))
    days = days[np.is_busday(days)]
    return days, _five_in_new_york(days - 1), _five_in_new_york(days)


def _five_in_new_york(days: Times) -> Times:
    return utc(pd.DatetimeIndex(days + np.timedelta64(17, "h")).tz_localize("America/New_York"))


def _crypto_sessions(until: date) -> tuple[Times, Times, Times]:
    """Every day, 24 hours from 00:00 UTC."""
    days = np.arange(np.datetime64(_TABLE_START), np.datetime64(until))
    return days, days.astype("datetime64[ns]"), (days + 1).astype("datetime64[ns]")


def _short_bars(asset_class: str, until: date, interval: Interval) -> tuple[Times, Times, Times]:
    """Bars of a few hours, one after the other."""
    require_intervals(asset_class, interval)
    opens = np.arange(np.datetime64(_TABLE_START, "m"), np.datetime64(until, "m"), LENGTHS[interval])
    return opens, opens.astype("datetime64[ns]"), (opens + LENGTHS[interval]).astype("datetime64[ns]")


def require_intervals(asset_class: str, interval: Interval) -> None:
    """Raise `SessionError` where bars of this length are not offered for the asset class."""
    if interval != DAILY and asset_class != "crypto":
        raise SessionError(f"{interval} bars of asset class {asset_class}: {ONLY_CRYPTO}")

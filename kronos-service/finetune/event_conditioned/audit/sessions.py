"""When bars open and close, computed a second time: session by session, on wall clocks.

Only the exchange's list of holidays and half days is shared with the encoder's session tables, so an error in
either shows as a difference.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import exchange_calendars

NEW_YORK: Final = ZoneInfo("America/New_York")
ONE_DAY: Final = timedelta(days=1)


class Session(NamedTuple):
    """A session's date, and when its bar opens and closes (UTC); each bar shorter than a day is a session,
    whose date is its opening time (UTC, without a zone).
    """

    day: date
    opens: datetime
    closes: datetime


@dataclass(frozen=True, eq=False)
class SessionTable:
    """Consecutive sessions of one asset class, and the index of each date among them."""

    sessions: list[Session]
    number: dict[date, int]

    def date_of(self, stamp: datetime) -> date:
        """What the session of a bar with this time stamp is dated by: its day, or its very time."""
        is_short = bool(self.sessions) and isinstance(self.sessions[0].day, datetime)
        return stamp.replace(tzinfo=None) if is_short else stamp.date()

    def as_of(self, number: int) -> datetime:
        """The last moment that a forecast of the session after session `number` may know of."""
        an_hour_later = self.sessions[number].closes + timedelta(hours=1)
        return min(an_hour_later, self.sessions[number + 1].opens)


def session_table(asset_class: str, first: date, last: date, hours: int | None = None) -> SessionTable:
    """The sessions of an asset class from `first` to `last`, both inclusive; or its bars of so many hours."""
    if hours is not None:
        length, count = timedelta(hours=hours), ((last - first).days + 1) * 24 // hours
        begin = datetime.combine(first, time(), UTC)
        opens = [begin + n * length for n in range(count)]
        sessions = [Session(one.replace(tzinfo=None), one, one + length) for one in opens]
    elif asset_class == "us_equity":
        sessions = _nyse(first, last, closes_later=timedelta(0))
    elif asset_class == "index":
        sessions = _nyse(first, last, closes_later=timedelta(minutes=15))
    elif asset_class == "fx":
        weekdays = [day for day in _days(first, last) if day.weekday() < 5]
        sessions = [Session(day, _at(day - ONE_DAY, 17), _at(day, 17)) for day in weekdays]
    else:
        midnights = [datetime.combine(day, time(), UTC) for day in _days(first, last)]
        sessions = [Session(moment.date(), moment, moment + ONE_DAY) for moment in midnights]
    return SessionTable(sessions=sessions, number={session.day: k for k, session in enumerate(sessions)})


def _nyse(first: date, last: date, *, closes_later: timedelta) -> list[Session]:
    """09:30 to 16:00 in New York; half days end at 13:00, and did at 14:00 until 1992."""
    calendar = exchange_calendars.get_calendar("XNYS", start=first, end=last)
    half_days = {stamp.date() for stamp in calendar.early_closes}
    sessions = []
    for stamp in calendar.sessions:
        day = stamp.date()
        early = 13 if day.year > 1992 else 14
        closes = _at(day, early if day in half_days else 16)
        sessions.append(Session(day, _at(day, 9, 30), closes + closes_later))
    return sessions


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _at(day: date, hour: int, minute: int = 0) -> datetime:
    """A wall-clock time in New York as UTC."""
    return datetime.combine(day, time(hour, minute), NEW_YORK).astimezone(UTC)

"""What is known about the bars to come: the events on them, and the sessions that the past ones lack."""

from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarRows
from kronos_service.events.sessions import LONGEST_CLOSURE, sessions, target_index
from kronos_service.events.taxonomy import IMPACT_WEIGHTS
from kronos_service.inference.schemas import Impact, KnownEvent

Days = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]

_IMPACTS: Final = {weight: impact for impact, weight in IMPACT_WEIGHTS.items()}


def known_events(
    rows: CalendarRows, future: Days, asset_class: str, as_of: np.datetime64
) -> list[KnownEvent]:
    """The releases on the future sessions (H,) as the calendar had them at `as_of`, in order of time.

    `rows` are those that fall on one symbol's bars (`EventTables.of`).
    """
    on = rows_on(rows, future, asset_class, stood_at(rows, as_of))
    return [known_event(rows, row, day) for row, day in on]


def stood_at(rows: CalendarRows, as_of: np.datetime64) -> Mask:
    """Which versions were current at a moment."""
    return (rows.first_seen_at <= as_of) & (as_of < rows.superseded_at)


def rows_on(rows: CalendarRows, days: Days, asset_class: str, counts: Mask) -> list[tuple[int, date]]:
    """The rows that count on the sessions from the first of `days` to the last, each with its session, in
    order of time.
    """
    table = sessions(asset_class, days[0].item() - LONGEST_CLOSURE, days[-1].item() + timedelta(days=1))
    on = target_index(table, rows.release_at)
    first, last = np.searchsorted(table.dates, [days[0], days[-1]])
    found = np.flatnonzero(counts & (on >= first) & (on <= last))
    found = found[np.lexsort((rows.event_type[found], rows.release_at[found]))]
    return [(int(row), table.dates[on[row]].item()) for row in found]


def known_event(rows: CalendarRows, row: int, day: date) -> KnownEvent:
    """A row of the calendar as responses show it, on the session of `day`."""
    return KnownEvent(
        date=day,
        event_type=str(rows.event_type[row]),
        family=rows.taxonomy.families[rows.family[row]],
        impact=cast(Impact, _IMPACTS[float(rows.weight[row])]),
        release_at=as_datetime(rows.release_at[row]),
    )


def missing_sessions(days: Days, asset_class: str) -> list[date]:
    """Sessions between the first and the last of the bars' `days` of which there is no bar."""
    expected = sessions(asset_class, days[0].item(), days[-1].item()).dates
    return [day.item() for day in np.setdiff1d(expected, days)]


def as_datetime(time: np.datetime64) -> datetime:
    """A numpy time in UTC as a datetime."""
    return pd.Timestamp(time).to_pydatetime().replace(tzinfo=UTC)

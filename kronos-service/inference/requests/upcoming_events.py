"""What is known about the bars to come: the events on them, and the sessions that the past ones lack."""

from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarRows
from kronos_service.events.sessions import LONGEST_CLOSURE, sessions, target_index
from kronos_service.events.taxonomy import FAMILIES, IMPACT_WEIGHTS
from kronos_service.inference.schemas import Impact, KnownEvent

Days = npt.NDArray[np.datetime64]

_IMPACTS: Final = {weight: impact for impact, weight in IMPACT_WEIGHTS.items()}


def known_events(
    rows: CalendarRows, future: Days, asset_class: str, as_of: np.datetime64
) -> list[KnownEvent]:
    """The releases on the future sessions (H,) as the calendar had them at `as_of`, in order of time."""
    table = sessions(asset_class, future[0].item() - LONGEST_CLOSURE, future[-1].item() + timedelta(days=1))
    on = target_index(table, rows.release_at)
    first, last = np.searchsorted(table.dates, [future[0], future[-1]])
    stood = (rows.first_seen_at <= as_of) & (as_of < rows.superseded_at)
    found = np.flatnonzero(stood & (on >= first) & (on <= last))
    found = found[np.lexsort((rows.event_type[found], rows.release_at[found]))]
    return [
        KnownEvent(
            date=table.dates[on[row]].item(),
            event_type=str(rows.event_type[row]),
            family=FAMILIES[rows.family[row]],
            impact=cast(Impact, _IMPACTS[float(rows.weight[row])]),
            release_at=as_datetime(rows.release_at[row]),
        )
        for row in found
    ]


def missing_sessions(days: Days, asset_class: str) -> list[date]:
    """Sessions between the first and the last of the bars' `days` of which there is no bar."""
    expected = sessions(asset_class, days[0].item(), days[-1].item()).dates
    return [day.item() for day in np.setdiff1d(expected, days)]


def as_datetime(time: np.datetime64) -> datetime:
    """A numpy time in UTC as a datetime."""
    return pd.Timestamp(time).to_pydatetime().replace(tzinfo=UTC)

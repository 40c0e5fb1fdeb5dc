"""The economic calendar as sorted arrays: every version of every event, and when each was current.

Only rows in the channels' currency (USD) count. Rows of one event_id are its versions, ordered by
`first_seen_at`; a version is current until the next one is seen. The order of the given rows does not matter.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.sessions import Times, utc
from kronos_service.events.taxonomy import (
    CURRENCY,
    EVENT_TYPES,
    FAMILIES,
    IMPACT_WEIGHTS,
    check_event_types,
)
from kronos_shared.errors import KronosError

ALWAYS: Final = np.datetime64("1700-01-01", "ns")
NEVER: Final = np.datetime64("2250-01-01", "ns")
_NEEDED: Final = ("event_id", "event_type", "currency", "impact", "release_at", "actual", "forecast")


class CalendarError(KronosError):
    """An economic calendar that cannot be encoded as it is."""


@dataclass(frozen=True, eq=False)
class CalendarRows:
    """The (R,) versions of all events, sorted by event_id and first_seen_at.

    `first_seen_at` is ALWAYS where null; `superseded_at` is when the next version was first seen, or NEVER.
    """

    event_id: npt.NDArray[np.str_]
    event_type: npt.NDArray[np.str_]
    family: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    is_high: npt.NDArray[np.bool_]
    release_at: Times
    first_seen_at: Times
    superseded_at: Times
    actual: npt.NDArray[np.float64]
    forecast: npt.NDArray[np.float64]


def read_calendar(calendar: pd.DataFrame) -> CalendarRows:
    """Check the calendar and sort it.

    Raises:
        CalendarError: a column, an event_id, a release_at or an impact is missing or invalid.
        UnknownEventType: a type outside the taxonomy.
    """
    rows = _usd_rows(calendar)
    check_event_types(rows["event_type"])
    _check_values(rows)
    event_id = rows["event_id"].to_numpy(dtype=np.str_)
    first_seen_at = _first_seen(rows)
    order = np.lexsort((first_seen_at, event_id))
    event_id, first_seen_at, rows = event_id[order], first_seen_at[order], rows.iloc[order]
    same_event = event_id[1:] == event_id[:-1]
    twins = same_event & (first_seen_at[1:] == first_seen_at[:-1])
    if twins.any():
        raise CalendarError(
            f"expected one row per event_id and first_seen_at, got {twins.sum()} more, the first of "
            f"{event_id[1:][twins][0]}: give each version its own first_seen_at, each event its own event_id"
        )
    # A version knows nothing of its successor: it is current until the moment the next one is first seen.
    superseded_at = np.full(len(rows), NEVER)
    superseded_at[:-1][same_event] = first_seen_at[1:][same_event]
    event_type = rows["event_type"].to_numpy(dtype=np.str_)
    return CalendarRows(
        event_id=event_id,
        event_type=event_type,
        family=np.array([FAMILIES.index(EVENT_TYPES[name]) for name in event_type], dtype=np.int64),
        weight=np.array([IMPACT_WEIGHTS[impact] for impact in rows["impact"]], dtype=np.float64),
        is_high=(rows["impact"] == "high").to_numpy(dtype=np.bool_),
        release_at=utc(rows["release_at"]),
        first_seen_at=first_seen_at,
        superseded_at=superseded_at,
        actual=rows["actual"].to_numpy(dtype=np.float64),
        forecast=rows["forecast"].to_numpy(dtype=np.float64),
    )


def calendar_reach(calendar: pd.DataFrame) -> np.datetime64:
    """The UTC date (datetime64[D]) of the last release in the channels' currency."""
    releases = utc(_usd_rows(calendar)["release_at"])
    if len(releases) == 0:
        raise CalendarError(f"expected events in {CURRENCY}, got none: export the calendar again")
    return np.datetime64(releases.max(), "D")


def _usd_rows(calendar: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in _NEEDED if name not in calendar.columns]
    if missing:
        raise CalendarError(
            f"expected calendar columns {', '.join(_NEEDED)}, got none named {', '.join(missing)}"
        )
    return calendar.loc[calendar["currency"] == CURRENCY]


def _first_seen(rows: pd.DataFrame) -> Times:
    """When each row was first seen; null, or no such column, means that it was always known."""
    if "first_seen_at" not in rows.columns:
        return np.full(len(rows), ALWAYS)
    seen = utc(rows["first_seen_at"])
    return np.where(np.isnat(seen), ALWAYS, seen)


def _check_values(rows: pd.DataFrame) -> None:
    if rows["event_id"].isna().any() or rows["release_at"].isna().any():
        raise CalendarError(
            "expected an event_id and a release_at in every row, got a null: fix the calendar"
        )
    unknown = sorted({str(impact) for impact in rows["impact"]} - set(IMPACT_WEIGHTS))
    if unknown:
        raise CalendarError(f"expected impact {', '.join(IMPACT_WEIGHTS)}, got {', '.join(unknown)}: fix it")

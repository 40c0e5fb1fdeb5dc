"""Which events really fell on each target: they weight the loss and split the metrics, never as inputs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kronos_service.events.calendar import NEVER, CalendarRows
from kronos_service.events.sessions import (
    DAILY,
    LONGEST_CLOSURE,
    Interval,
    TimesLike,
    locate,
    session_dates,
    sessions,
    target_index,
)


@dataclass(frozen=True, eq=False)
class TargetLabels:
    """For n targets: `is_event` (n,) bool and `families` (n, families) bool, of high-impact events only."""

    is_event: npt.NDArray[np.bool_]
    families: npt.NDArray[np.bool_]


def label_targets(
    rows: CalendarRows,
    asset_class: str,
    dates: TimesLike,
    interval: Interval = DAILY,
    *,
    symbol: str | None,
) -> TargetLabels:
    """Label session dates (n,) by the high-impact events that fell on a symbol's bars of these dates.

    The last version of each event counts, whenever it was seen: labels may know the future. An event falls on
    the session that closes first after its release.

    Raises:
        SessionError: a date is no session of the asset class.
    """
    days, count = session_dates(dates, interval), len(rows.taxonomy.families)
    if len(days) == 0:
        return TargetLabels(np.zeros(0, dtype=np.bool_), np.zeros((0, count), dtype=np.bool_))
    # Start before the first target: all older events fall on the table's first row, which must not be one.
    table = sessions(asset_class, days.min().item() - LONGEST_CLOSURE, days.max().item(), interval)
    index = locate(table, days)
    final = rows.is_high & (rows.superseded_at == NEVER) & rows.falls_on(symbol)
    target = target_index(table, rows.release_at[final])
    inside = target < len(table.dates)
    falls = np.zeros((len(table.dates), count), dtype=np.bool_)
    falls[target[inside], rows.family[final][inside]] = True
    return TargetLabels(is_event=np.any(falls[index], axis=1, keepdims=False), families=falls[index])

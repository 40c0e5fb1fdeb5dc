"""Surprises: how far each release was from its forecast, and which bar may know it first."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kronos_service.events.calendar import CalendarRows
from kronos_service.events.scaling import Floats, standardize
from kronos_service.events.sessions import Indices, Times

MIN_EARLIER: Final = 8
"""Earlier surprises of a type that a later one needs for its scale; with fewer its z is 0."""


@dataclass(frozen=True, eq=False)
class Surprises:
    """One per event, ascending in time: `usable_at` (E,), after which `z` (E,) may be used."""

    usable_at: Times
    z: Floats
    row: Indices
    """(E,) the row of the calendar that each is of."""

    def only(self, kept: npt.NDArray[np.bool_]) -> "Surprises":
        """Those of the rows of a mask (R,), numbered as in `CalendarRows.only` of it."""
        is_kept, number = kept[self.row], np.cumsum(kept) - 1
        return Surprises(usable_at=self.usable_at[is_kept], z=self.z[is_kept], row=number[self.row[is_kept]])


def find_surprises(rows: CalendarRows) -> Surprises:
    """The first complete version (actual and forecast) of each event, scaled by the earlier ones of its type,
    and of its symbol: what one company earns a share says nothing of how far another's may be off.

    A version replaced before its actual was usable (a postponed release) does not count: nobody saw that
    figure. Later revisions are no new surprise: the market moved on the first. z = (actual - forecast) /
    sigma, with ddof 1, clipped to +-5; 0 without sigma.
    """
    usable_at = usable_from(rows.release_at, rows.first_seen_at)
    complete = np.isfinite(rows.actual) & np.isfinite(rows.forecast) & (rows.superseded_at > usable_at)
    found = np.flatnonzero(complete)
    found = found[np.lexsort((usable_at[found], rows.event_id[found]))]
    _, first = np.unique(rows.event_id[found], return_index=True)
    found = found[first]
    # By event_id within one moment: sums then run in one order, to the bit, whatever the order of the rows.
    found = found[np.lexsort((rows.event_id[found], usable_at[found]))]
    usable_at, value = usable_at[found], rows.actual[found] - rows.forecast[found]
    sigma = np.zeros(len(found))
    types, symbols = rows.event_type[found], rows.symbol[found]
    for event_type, symbol in set(zip(types.tolist(), symbols.tolist(), strict=True)):
        alike = (types == event_type) & (symbols == symbol)
        sigma[alike] = _sigma(usable_at[alike], value[alike])
    return Surprises(usable_at=usable_at, z=standardize(value, sigma), row=found)


def surprise_channel(surprises: Surprises, as_of: Times, before: np.datetime64) -> Floats:
    """For T bars, `as_of` ascending: the largest-magnitude z (T,) of the surprises first known at each, or 0.

    A surprise is first known at the first bar with `usable_at < as_of`. Those usable before `before`, the
    as_of of the session before the first bar, belong to bars that are not given. Of equal magnitudes the
    positive wins.
    """
    position = np.searchsorted(as_of, surprises.usable_at, side="right")
    sits = (position < len(as_of)) & (surprises.usable_at >= before)
    highest, lowest = np.zeros(len(as_of)), np.zeros(len(as_of))
    np.maximum.at(highest, position[sits], surprises.z[sits])
    np.minimum.at(lowest, position[sits], surprises.z[sits])
    return np.where(highest >= -lowest, highest, lowest)


def usable_from(release_at: Times, first_seen_at: Times) -> Times:
    """When a version's actual became known; a position may use it only if its as_of is strictly later.

    Without first_seen_at, or seen earlier (a scheduled release), an actual is known from the release on.
    """
    return np.maximum(release_at, first_seen_at)


def _sigma(usable_at: Times, value: Floats) -> Floats:
    """For each surprise of a type, in order of time: the deviation of those usable strictly earlier, or 0."""
    deviations = np.zeros(len(value) + 1)
    mean = squares = 0.0
    # Welford's recurrence: one pass, however long a calendar is, and exact for equal values
    for count, one in enumerate(value.tolist(), start=1):
        away = one - mean
        mean += away / count
        squares += away * (one - mean)
        if count >= MIN_EARLIER:
            deviations[count] = math.sqrt(squares / (count - 1))
    return deviations[np.searchsorted(usable_at, usable_at, side="left")]

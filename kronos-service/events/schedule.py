"""The schedule as it was known at the time: the families' channels and `days_until`."""

from typing import Final

import numpy as np

from kronos_service.events.calendar import CalendarRows
from kronos_service.events.scaling import Floats
from kronos_service.events.sessions import ONE_DAY, Indices, Sessions, Times, target_index

HORIZON_DAYS: Final = 10
"""Calendar days from which on the next event does not show in `days_until`."""


def schedule_channels(
    rows: CalendarRows, table: Sessions, target: Indices, as_of: Times
) -> tuple[Floats, Floats]:
    """For n positions: family weights (n, families) on the target, and `days_until` (n,) from it.

    `target` (n,) holds strictly ascending indices into `table`; position i may know what was seen by
    `as_of[i]`.
    """
    event_session = target_index(table, rows.release_at)
    families = np.zeros((len(target), len(rows.taxonomy.families)))
    on_target, position = _known_on(rows, event_session, target, as_of)
    # Several events of a family on one day count as the strongest; the order of rows must not matter.
    np.maximum.at(families, (position, rows.family[on_target]), rows.weight[on_target])

    nearness = np.zeros(len(target))
    # Sessions are at least a day apart, so an event less than 10 days ahead is less than 10 sessions ahead;
    # of shorter bars there are as many as a day holds.
    for sessions_ahead in range(HORIZON_DAYS * table.per_day):
        ahead, position = _known_on(rows, event_session - sessions_ahead, target, as_of)
        ahead, position = ahead[rows.is_high[ahead]], position[rows.is_high[ahead]]
        inside = event_session[ahead] < len(table.dates)  # events past the table have no date to count to
        ahead, position = ahead[inside], position[inside]
        days = (table.dates[event_session[ahead]] - table.dates[target[position]]) / ONE_DAY
        np.maximum.at(nearness, position, 1 - np.minimum(days, HORIZON_DAYS) / HORIZON_DAYS)
    return families, nearness


def _known_on(rows: CalendarRows, session: Indices, target: Indices, as_of: Times) -> tuple[Indices, Indices]:
    """The rows whose `session` is a target and that were current at its as_of, with the target's position."""
    position = np.minimum(np.searchsorted(target, session), len(target) - 1)
    # Seen by then and not replaced yet: a postponed release counts at its old date until the new one is seen.
    known = (rows.first_seen_at <= as_of[position]) & (as_of[position] < rows.superseded_at)
    found = np.flatnonzero((target[position] == session) & known)
    return found, position[found]

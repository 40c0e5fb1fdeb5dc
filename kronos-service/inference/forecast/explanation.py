"""What each scheduled release and each leader does to a forecast: the same forecast without it.

Without a release is with the calendar that lacks it: its family on that bar and the days until it both go.
Without a leader is with its channel at zero on every bar, as where the leader is missing. All forecasts draw
with the same random numbers.
Letters: N sample paths, H horizon in bars, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from kronos_service.events.encoder import EventTables
from kronos_service.events.sessions import utc
from kronos_service.inference.forecast.asked import Asked
from kronos_service.inference.forecast.series import Series, prepare_series
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.upcoming_events import known_events
from kronos_service.model.generation.inputs import Prepared


@dataclass(frozen=True, kw_only=True, eq=False)
class Without:
    """A forecast's history with one input taken out."""

    kind: str
    """release or leader."""
    name: str
    """The event family or the leader."""
    on: date | None
    """Session date of the release."""
    prepared: Prepared


def without_each(
    series: Series, tables: EventTables, served: ServedModel, asked: Asked, known: Prepared
) -> Iterator[Without]:
    """One history for each family with a release on a forecast bar, in order of time, and for each leader."""
    own, taxonomy = tables.of(series.symbol), tables.taxonomy
    rows = own.rows
    events = known_events(rows, known.future_dates, series.asset_class, known.as_of)
    for on, family in dict.fromkeys((event.date, event.family) for event in events):
        # a family is one input: without one of its types of one moment, the others would say the same
        moments = [event.release_at for event in events if (event.date, event.family) == (on, family)]
        is_it = np.isin(rows.release_at, utc(moments)) & (rows.family == taxonomy.families.index(family))
        without = replace(own, rows=rows.only(~is_it))
        prepared = prepare_series(series, without, served, asked)
        yield Without(kind="release", name=family, on=on, prepared=prepared)
    assert known.history.events is not None
    for number, leader in enumerate(taxonomy.leaders):
        channels = known.history.events.clone()
        channels[:, taxonomy.first_leader + number] = 0
        history = replace(known.history, events=channels)
        yield Without(kind="leader", name=leader, on=None, prepared=replace(known, history=history))

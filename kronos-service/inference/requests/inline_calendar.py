"""A request's own calendar and its what-if scenario, as the event encoder takes them."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd

from kronos_service.events.calendar import CalendarError, read_calendar
from kronos_service.events.encoder import EventTables
from kronos_service.events.scenario import Scenario
from kronos_service.events.sessions import sessions
from kronos_service.events.surprises import find_surprises
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.inference.errors import FieldFault, unprocessable
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.schemas import CalendarIn, EventIn, KnownEvent, ScenarioIn
from kronos_shared.columns import CALENDAR_COLUMNS


def inline_tables(calendar: CalendarIn, own: EventTables) -> EventTables:
    """The service's leaders with the request's calendar in place of the service's own.

    Raises:
        Unprocessable: an unknown event type, or two rows of one event_id first seen at one time.
    """
    taxonomy = own.taxonomy
    faults = [
        _unknown_type(f"calendar.events.{index}.event_type", event.event_type, taxonomy)
        for index, event in enumerate(calendar.events)
        if event.event_type not in taxonomy.event_types
    ]
    if faults:
        raise unprocessable(*faults[:10])
    columns = [name for name in CALENDAR_COLUMNS if name in EventIn.model_fields]
    frame = pd.DataFrame([{name: getattr(event, name) for name in columns} for event in calendar.events])
    frame = frame.reindex(columns=columns)
    frame["currency"] = [taxonomy.currency_of(event.event_type) for event in calendar.events]
    for name in ("actual", "forecast"):
        frame[name] = frame[name].astype("float64")
    try:
        rows = read_calendar(frame, taxonomy)
    except CalendarError as error:
        raise unprocessable(FieldFault(field="calendar.events", message=str(error))) from None
    reach = np.datetime64(calendar.complete_until, "D")
    return replace(own, rows=rows, surprises=find_surprises(rows), reach=reach)


def read_scenario(
    scenario: ScenarioIn | None, serving: ServedModel, events: list[KnownEvent], taxonomy: Taxonomy
) -> Scenario | None:
    """The what-if values by date; of several surprises on one date the largest counts, as in training.

    Raises:
        Unprocessable: the plain base serves, which knows no events; an event type that is not scheduled on
        the date; two moves of one leader on one date.
    """
    if scenario is None:
        return None
    if serving.manifest is None:
        message = (
            "the plain base knows no events, so nothing would change: leave it out, or publish an adapter"
        )
        raise unprocessable(FieldFault(field="scenario", message=message))
    return Scenario(surprises=_surprises(scenario, events, taxonomy), leaders=_moves(scenario, taxonomy))


def _surprises(scenario: ScenarioIn, events: list[KnownEvent], taxonomy: Taxonomy) -> dict[date, float]:
    scheduled = {(event.date, event.event_type) for event in events}
    surprises: dict[date, float] = {}
    for index, one in enumerate(scenario.surprises):
        field = f"scenario.surprises.{index}"
        if one.event_type not in taxonomy.event_types:
            raise unprocessable(_unknown_type(f"{field}.event_type", one.event_type, taxonomy))
        if (one.date, one.event_type) not in scheduled:
            days = sorted(str(day) for day, event_type in scheduled if event_type == one.event_type)
            known = f"on {', '.join(days)}" if days else "on none of them"
            message = (
                f"expected a forecast bar with a scheduled {one.event_type}, got {one.date}: it is {known}"
            )
            raise unprocessable(FieldFault(field=f"{field}.date", message=message))
        surprises[one.date] = max(surprises.get(one.date, 0.0), one.z, key=abs)
    return surprises


def _moves(scenario: ScenarioIn, taxonomy: Taxonomy) -> dict[str, dict[date, float]]:
    moves: dict[str, dict[date, float]] = {}
    for index, one in enumerate(scenario.leaders):
        if one.leader not in taxonomy.leaders:
            message = f"expected one of {', '.join(taxonomy.leaders) or 'no leaders'}, got {one.leader!r}"
            raise unprocessable(FieldFault(field=f"scenario.leaders.{index}.leader", message=message))
        asset_class = taxonomy.leader_asset_class[one.leader]
        if not len(sessions(asset_class, one.date, one.date).dates):
            message = f"{one.leader} does not trade on {one.date}: expected a session of {asset_class}"
            raise unprocessable(FieldFault(field=f"scenario.leaders.{index}.date", message=message))
        of_leader = moves.setdefault(one.leader, {})
        if one.date in of_leader:
            message = f"{one.leader} moves twice on {one.date}: give one move"
            raise unprocessable(FieldFault(field=f"scenario.leaders.{index}.date", message=message))
        of_leader[one.date] = one.z
    return moves


def _unknown_type(field: str, event_type: str, taxonomy: Taxonomy) -> FieldFault:
    known = ", ".join(taxonomy.event_types)
    return FieldFault(field=field, message=f"expected one of {known}, got {event_type!r}")

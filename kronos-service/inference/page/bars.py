"""A symbol's bars around a date: what a forecast from there reads, what came after it, and the releases.

Nothing after the date reaches a forecast; it is only shown beside one.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from kronos_service.events.calendar import NEVER
from kronos_service.events.encoder import EventTables
from kronos_service.events.sessions import session_dates, sessions
from kronos_service.inference.errors import unprocessable
from kronos_service.inference.market.market import Market
from kronos_service.inference.market.symbol_bars import bars_until, symbol_faults
from kronos_service.inference.requests.upcoming_events import Days, known_event, rows_on, stood_at
from kronos_service.inference.schemas import AssetClass, Columns, KnownEvent
from kronos_service.model.generation.inputs import next_sessions

MOST_AFTER: Final = 64
"""Bars that are shown of what came after."""


class BarColumns(Columns):
    """One value per bar."""

    ts: list[date] = Field(description="Session dates.")


class NamedEvent(KnownEvent):
    """A release after as_of_date, as the calendar had it then."""

    name: str = Field(description="As the calendar calls it; may be empty.")


class ReleaseOut(NamedEvent):
    """A release on one of the bars, with its first complete figures."""

    actual: float | None
    forecast: float | None
    z: float | None = Field(
        description="Surprise in standard deviations, as the adapter is shown it; null without one."
    )


class BarsOut(BaseModel):
    """The bars of a symbol around a date."""

    symbol: str
    asset_class: AssetClass
    as_of_date: date = Field(description="The last of `bars`: a forecast with this as_of begins after it.")
    first_bar: date = Field(description="Of all bars that there are, as last_bar.")
    last_bar: date
    bars: BarColumns
    after: BarColumns = Field(description="What came: no forecast reads it.")
    events: list[ReleaseOut] = Field(description="On `bars` and `after`.")
    ahead: list[NamedEvent] = Field(description="On the sessions after as_of_date, as known then.")
    leaders: dict[str, list[date]] = Field(
        description="Leader -> those of the sessions ahead on which it trades: a move can be supposed there."
    )


def bars_around(market: Market, symbol: str, *, as_of: date | None, most: int, horizon: int) -> BarsOut:
    """The last `most` bars up to `as_of`, those after it, and the releases of `horizon` sessions ahead.

    Raises:
        Unprocessable: no such symbol, or nothing can be forecast from so early.
    """
    if faults := symbol_faults(market, symbol, as_of, ""):
        raise unprocessable(*faults)
    whole, asset_class = market.bars[symbol], market.asset_class[symbol]
    until, tables = bars_until(market, symbol, as_of), market.tables.of(symbol)
    shown, after = until.iloc[-most:], whole.iloc[len(until) : len(until) + MOST_AFTER]
    future, known_at = next_sessions(until["ts"].iloc[-1], asset_class, horizon)
    return BarsOut.model_validate(
        {
            "symbol": symbol,
            "asset_class": asset_class,
            "as_of_date": until["ts"].iloc[-1].date(),
            "first_bar": whole["ts"].iloc[0].date(),
            "last_bar": whole["ts"].iloc[-1].date(),
            "bars": _columns(shown),
            "after": _columns(after),
            "events": _releases(market, tables, pd.concat([shown, after])["ts"], asset_class),
            "ahead": _ahead(market, tables, future, known_at, asset_class),
            "leaders": {
                leader: _sessions_of(kind, future)
                for leader, kind in tables.taxonomy.leader_asset_class.items()
            },
        }
    )


def _columns(bars: pd.DataFrame) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {name: bars[name].tolist() for name in Columns.model_fields}
    return columns | {"ts": [day.date() for day in bars["ts"]]}


def _ahead(
    market: Market, tables: EventTables, future: Days, as_of: np.datetime64, asset_class: str
) -> list[NamedEvent]:
    """The releases on the future sessions (H,) as the calendar had them at `as_of`."""
    rows = tables.rows
    found = rows_on(rows, future, asset_class, stood_at(rows, as_of))
    names = _names(market, tables, [row for row, _ in found])
    return [
        NamedEvent(**known_event(rows, row, day).model_dump(), name=name)
        for (row, day), name in zip(found, names, strict=True)
    ]


def _sessions_of(asset_class: str, future: Days) -> list[date]:
    days = sessions(asset_class, future[0].item(), future[-1].item()).dates
    traded: list[date] = future[np.isin(future, days)].tolist()
    return traded


def _releases(market: Market, tables: EventTables, ts: pd.Series, asset_class: str) -> list[ReleaseOut]:
    """The releases from the first bar to the last, each with the version that its surprise is of."""
    rows, surprises = tables.rows, tables.surprises
    z = np.full(len(rows.event_id), np.nan)
    z[surprises.row] = surprises.z
    has_figures = np.isin(rows.event_id, rows.event_id[surprises.row])
    version = np.where(has_figures, ~np.isnan(z), rows.superseded_at == NEVER)
    found = rows_on(rows, session_dates(ts), asset_class, version)
    names = _names(market, tables, [row for row, _ in found])
    return [
        ReleaseOut(
            **known_event(rows, row, day).model_dump(),
            name=name,
            actual=_figure(rows.actual[row]),
            forecast=_figure(rows.forecast[row]),
            z=_figure(z[row]),
        )
        for (row, day), name in zip(found, names, strict=True)
    ]


def _names(market: Market, tables: EventTables, rows: Sequence[int]) -> list[str]:
    """What the calendar calls the events of these rows."""
    calendar = market.calendar
    names = dict(zip(calendar["event_id"].tolist(), calendar["event_name"].tolist(), strict=True))
    return [str(names[str(tables.rows.event_id[row])]) for row in rows]


def _figure(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

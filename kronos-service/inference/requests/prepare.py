"""From a request to histories for `generate`, as a training window is prepared; everything refused by field.

`plan` is the way in, `answers.answer` the way out. What a series is conditioned on was known at its as_of.
"""

import difflib
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarError
from kronos_service.events.encoder import EventTables
from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.events.sessions import session_dates
from kronos_service.inference.errors import FieldFault, unprocessable
from kronos_service.inference.market.market import Market
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.inline_calendar import inline_tables, read_scenario
from kronos_service.inference.requests.inline_candles import MIN_BARS, candle_faults, candle_frame
from kronos_service.inference.requests.upcoming_events import known_events, missing_sessions
from kronos_service.inference.scheduler.work import context_of
from kronos_service.inference.schemas import ForecastRequest, KnownEvent, SeriesIn
from kronos_service.model.generation.inputs import Prepared, next_sessions, prepare_history

Days = npt.NDArray[np.datetime64]

SUGGESTIONS: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """One series ready for `generate`, with what its answer says about it."""

    symbol: str
    asset_class: str
    days: Days
    """Session dates of the bars of history."""
    bars_given: int
    prepared: Prepared
    missing_sessions: list[date]
    events: list[KnownEvent]
    """On the forecast bars, as known at as_of."""
    reach: np.datetime64
    """Where the calendar ends."""


def plan(
    request: ForecastRequest, serving: ServedModel, market: Market, *, now: datetime, max_bars: int
) -> list[Planned]:
    """Look up or read the candles of every series, and make them ready.

    Raises:
        Unprocessable: names every field at fault.
    """
    longest = _longest_history(request, serving)
    tables = market.tables
    if request.calendar is not None:
        tables = inline_tables(request.calendar, market.tables)
    series = _find_bars(request.series, market, now=now, max_bars=max_bars)
    return [
        _plan_one(index, bars, asset_class, request, serving, tables, longest)
        for index, (bars, asset_class) in enumerate(series)
    ]


def _longest_history(request: ForecastRequest, serving: ServedModel) -> int:
    context = context_of(serving)
    most = context - MIN_BARS
    if request.horizon > most:
        message = f"this model reads {context} bars, {MIN_BARS} of them history: expected at most {most}"
        raise unprocessable(FieldFault(field="horizon", message=message))
    return context - request.horizon


def _find_bars(
    series: list[SeriesIn], market: Market, *, now: datetime, max_bars: int
) -> list[tuple[pd.DataFrame, str]]:
    """The bars and the asset class of every series."""
    faults: list[FieldFault] = []
    found: list[tuple[pd.DataFrame, str]] = []
    for index, one in enumerate(series):
        where = f"series.{index}"
        if one.candles is None or one.asset_class is None:
            faults += _lookup_faults(one.symbol, market, f"{where}.symbol")
            if not faults:
                found.append((market.bars[one.symbol].iloc[-max_bars:], market.asset_class[one.symbol]))
        else:
            at = f"{where}.candles"
            faults += candle_faults(one.candles, one.asset_class, at, now=now, max_bars=max_bars)
            if not faults:
                found.append((candle_frame(one.candles), one.asset_class))
    if faults:
        raise unprocessable(*faults)
    return found


def _lookup_faults(symbol: str, market: Market, field: str) -> list[FieldFault]:
    if symbol not in market.asset_class:
        near = difflib.get_close_matches(symbol, market.asset_class, n=SUGGESTIONS)
        advice = f"did you mean {' or '.join(near)}?" if near else "send its candles inline"
        return [FieldFault(field=field, message=f"{market.name} has no symbol {symbol!r}: {advice}")]
    count = len(market.bars.get(symbol, ()))
    if count < MIN_BARS:
        message = f"expected at least {MIN_BARS} bars, but {market.name} has {count} of {symbol!r}"
        return [FieldFault(field=field, message=message)]
    return []


def _plan_one(
    index: int,
    bars: pd.DataFrame,
    asset_class: str,
    request: ForecastRequest,
    serving: ServedModel,
    tables: EventTables,
    longest: int,
) -> Planned:
    future, as_of = next_sessions(bars["ts"].iloc[-1], asset_class, request.horizon)
    events = known_events(tables.rows, future, asset_class, as_of)
    scenario = read_scenario(request.scenario, serving, events)
    # One bar more than the model sees: moves and surprises are told from the bar before.
    kept = bars.iloc[-longest - 1 :]
    prepared = _prepare(index, kept, asset_class, request, serving, tables, longest, scenario)
    days = session_dates(bars["ts"].iloc[-longest:])
    return Planned(
        symbol=request.series[index].symbol,
        asset_class=asset_class,
        days=days,
        bars_given=len(bars),
        prepared=prepared,
        missing_sessions=missing_sessions(days, asset_class),
        events=events,
        reach=tables.reach,
    )


def _prepare(
    index: int,
    bars: pd.DataFrame,
    asset_class: str,
    request: ForecastRequest,
    serving: ServedModel,
    tables: EventTables,
    longest: int,
    scenario: Scenario | None,
) -> Prepared:
    try:
        return prepare_history(
            bars,
            asset_class,
            tables if serving.manifest is not None else None,
            horizon=request.horizon,
            longest=longest,
            min_history=MIN_BARS,
            seed=request.seed,
            scenario=scenario,
        )
    except ScenarioError as error:
        raise unprocessable(FieldFault(field="scenario", message=f"series {index}: {error}")) from None
    except CalendarError as error:
        field = "horizon" if request.calendar is None else "calendar.complete_until"
        raise unprocessable(FieldFault(field=field, message=f"series {index}: {error}")) from None

"""From a request to histories for `generate`, prepared as training windows are; faults are named by field.

`prepare` is the way in, `response.respond` the way out. What a series is conditioned on was known at as_of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.calendar import CalendarError
from kronos_service.events.encoder import EventTables
from kronos_service.events.scenario import ScenarioError
from kronos_service.events.sessions import session_dates
from kronos_service.inference.errors import FieldFault, unprocessable
from kronos_service.inference.market.market import Market, sessions_behind
from kronos_service.inference.market.symbol_bars import bars_until, symbol_faults
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.inline_calendar import inline_tables, read_scenario
from kronos_service.inference.requests.inline_candles import candle_faults, candle_frame
from kronos_service.inference.requests.upcoming_events import known_events, missing_sessions
from kronos_service.inference.schemas import ForecastRequest, KnownEvent, SeriesIn
from kronos_service.inference.settings import Settings
from kronos_service.model.generation.inputs import Prepared, next_sessions, prepare_history
from kronos_shared.normalization import MIN_HISTORY

Days = npt.NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSeries:
    """One series ready for `generate`, with what its answer says about it."""

    symbol: str
    asset_class: str
    days: Days
    """Session dates of the bars of history."""
    bars_given: int
    prepared: Prepared
    missing_sessions: list[date]
    stale_sessions: int
    """Sessions that have closed since the last bar."""
    events: list[KnownEvent]
    """On the forecast bars, as known at as_of."""
    reach: np.datetime64
    """Where the calendar ends."""


def inline_rows(request: ForecastRequest) -> int:
    """Events and candles that the request brings along: preparing them takes time."""
    events = 0 if request.calendar is None else len(request.calendar.events)
    return events + sum(len(one.candles or ()) for one in request.series)


def check_limits(request: ForecastRequest, settings: Settings) -> None:
    """Raise Unprocessable, naming every field that is over the operator's limit."""
    faults = tuple(_limit_faults(request, settings))
    if faults:
        raise unprocessable(*faults)


def _limit_faults(request: ForecastRequest, settings: Settings) -> Iterator[FieldFault]:
    limits = {
        "series": (len(request.series), settings.max_series),
        "horizon": (request.horizon, settings.max_horizon),
        "paths": (request.paths, settings.max_paths),
        "deadline_ms": (request.deadline_ms or 0, settings.max_deadline_ms),
    }
    for field, (value, limit) in limits.items():
        if value > limit:
            yield FieldFault(field=field, message=f"expected at most {limit}, got {value}")
    rows = len(request.series) * request.paths
    if rows > settings.max_rows:
        message = (
            f"{len(request.series)} series x {request.paths} paths are {rows}, more than {settings.max_rows}"
        )
        yield FieldFault(field="paths", message=message)
    if len(set(request.quantiles)) < len(request.quantiles):
        yield FieldFault(field="quantiles", message="expected each level once")


def prepare(
    request: ForecastRequest,
    serving: ServedModel,
    market: Market,
    *,
    now: datetime,
    max_bars: int,
    max_stale_sessions: int | None = None,
) -> list[PreparedSeries]:
    """Look up or read the candles of every series, and prepare their histories.

    Raises:
        Unprocessable: names every field at fault.
    """
    most = serving.context - MIN_HISTORY
    if request.horizon > most:
        message = (
            f"this model reads {serving.context} bars, {MIN_HISTORY} of them history: expected at most {most}"
        )
        raise unprocessable(FieldFault(field="horizon", message=message))
    tables = market.tables
    if request.calendar is not None:
        tables = inline_tables(request.calendar, market.tables)
    series = _find_bars(request.series, market, now=now, max_bars=max_bars)
    prepared = [
        _prepare_series(index, bars, asset_class, request, serving, tables, now)
        for index, (bars, asset_class) in enumerate(series)
    ]
    if max_stale_sessions is not None:
        _reject_stale(request, prepared, max_stale_sessions)
    return prepared


def _reject_stale(request: ForecastRequest, prepared: Sequence[PreparedSeries], most: int) -> None:
    """Raise Unprocessable for symbols of the source that are too old; a sender decides about his candles."""
    faults = [
        FieldFault(
            field=f"series.{index}.symbol",
            message=f"{one.symbol} ends at {one.days[-1]}, {one.stale_sessions} sessions ago: "
            f"expected at most {most}",
        )
        for index, one in enumerate(prepared)
        if request.series[index].candles is None and one.stale_sessions > most
    ]
    if faults:
        raise unprocessable(*faults)


def _find_bars(
    series: list[SeriesIn], market: Market, *, now: datetime, max_bars: int
) -> list[tuple[pd.DataFrame, str]]:
    """The bars and the asset class of every series."""
    faults: list[FieldFault] = []
    found: list[tuple[pd.DataFrame, str]] = []
    for index, one in enumerate(series):
        where = f"series.{index}"
        if one.candles is None or one.asset_class is None:
            faults += symbol_faults(market, one.symbol, one.as_of, f"{where}.")
            if not faults:
                bars = bars_until(market, one.symbol, one.as_of)
                found.append((bars.iloc[-max_bars:], market.asset_class[one.symbol]))
        else:
            at = f"{where}.candles"
            faults += candle_faults(one.candles, one.asset_class, at, now=now, max_bars=max_bars)
            if not faults:
                found.append((candle_frame(one.candles), one.asset_class))
    if faults:
        raise unprocessable(*faults)
    return found


def _prepare_series(
    index: int,
    bars: pd.DataFrame,
    asset_class: str,
    request: ForecastRequest,
    serving: ServedModel,
    tables: EventTables,
    now: datetime,
) -> PreparedSeries:
    asked = request.series[index]
    longest = serving.context - request.horizon
    future, as_of = next_sessions(bars["ts"].iloc[-1], asset_class, request.horizon)
    events = known_events(tables.of(asked.symbol).rows, future, asset_class, as_of)
    try:
        prepared = prepare_history(
            # one bar more than the model reads: surprises and moves of the first need the bar before
            bars.iloc[-longest - 1 :],
            asset_class,
            tables if serving.manifest is not None else None,
            symbol=asked.symbol,
            encoder=serving.base.event_encoder,
            context=serving.context,
            horizon=request.horizon,
            seed=request.seed,
            scenario=read_scenario(request.scenario, serving, events, tables.taxonomy),
            recalibration=serving.recalibration if request.recalibrated and request.is_plain else None,
        )
    except ScenarioError as error:
        raise unprocessable(FieldFault(field="scenario", message=f"series {index}: {error}")) from None
    except CalendarError as error:
        field = "horizon" if request.calendar is None else "calendar.complete_until"
        raise unprocessable(FieldFault(field=field, message=f"series {index}: {error}")) from None
    days = session_dates(bars["ts"].iloc[-longest:])
    return PreparedSeries(
        symbol=asked.symbol,
        asset_class=asset_class,
        days=days,
        bars_given=len(bars),
        prepared=prepared,
        missing_sessions=missing_sessions(days, asset_class),
        stale_sessions=sessions_behind(bars["ts"].iloc[-1], asset_class, _end_of(asked.as_of, now)),
        events=events,
        reach=tables.reach,
    )


def _end_of(as_of: date | None, now: datetime) -> datetime:
    """Until when a series' sessions count: a forecast of the past is not stale for what came after it."""
    if as_of is None or as_of >= now.date():
        return now
    return datetime.combine(as_of + timedelta(days=1), time(), tzinfo=UTC)

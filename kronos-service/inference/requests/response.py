"""From sample paths to the response: quantiles and mean of valid candles, with all that conditioned them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from kronos_service.data.forecasts import TARGETS
from kronos_service.events.sessions import Times
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import PreparedSeries
from kronos_service.inference.requests.upcoming_events import as_datetime
from kronos_service.inference.schemas import ForecastRequest, ForecastResponse, ModelOut, SeriesOut
from kronos_service.model.generation.generate import Generated
from kronos_service.model.generation.inputs import own_moves, to_prices
from kronos_shared.columns import CLOSE
from kronos_shared.normalization import Floats


def respond(
    request: ForecastRequest,
    series: Sequence[PreparedSeries],
    generated: Generated,
    *,
    serving: ServedModel,
    leader_dates: Mapping[str, Times],
    request_id: str,
    now: datetime,
    stale_after: int,
) -> ForecastResponse:
    """The response to a request whose histories have been generated, in their order."""
    return ForecastResponse(
        request_id=request_id,
        model=model_out(serving),
        seed=request.seed,
        series=[
            _series_out(request, one, to_prices(paths, one.prepared), used, leader_dates, now, stale_after)
            for one, paths, used in zip(series, generated.bars, generated.bars_used, strict=True)
        ],
    )


def model_out(serving: ServedModel) -> ModelOut:
    """What a response says about the model that computed it."""
    return ModelOut(
        version=serving.version,
        digest=serving.digest,
        generation=serving.generation,
        base=serving.base.base.repo,
        base_digest=serving.base.base.content_sha256,
        synthetic=serving.is_synthetic,
    )


def summarize(prices: Floats, levels: Sequence[float]) -> tuple[Floats, Floats]:
    """Mean (H, 6) and quantiles (K, H, 6) of sample paths (N, H, 6)."""
    quantiles = np.quantile(prices, levels, axis=0) if levels else np.empty((0, *prices.shape[1:]))
    return prices.mean(axis=0), quantiles


def known_at(series: PreparedSeries, now: datetime) -> datetime:
    """The moment after which nothing that became known was used."""
    return min(as_datetime(series.prepared.as_of), now)


def _series_out(
    request: ForecastRequest,
    series: PreparedSeries,
    prices: Floats,
    bars_used: int,
    leader_dates: Mapping[str, Times],
    now: datetime,
    stale_after: int,
) -> SeriesOut:
    mean, quantiles = summarize(prices, request.quantiles)
    prepared = series.prepared
    return SeriesOut.model_validate(
        {
            "symbol": series.symbol,
            "asset_class": series.asset_class,
            "last_bar": series.days[-1].item(),
            "stale_sessions": series.stale_sessions,
            "is_stale": series.stale_sessions > stale_after,
            "as_of": known_at(series, now),
            "bars_given": series.bars_given,
            "bars_used": bars_used,
            "history_shortened": bars_used < series.bars_given,
            "missing_sessions": series.missing_sessions,
            "missing_leaders": [
                {"leader": leader, "last_bar": _last_before(leader_dates[leader], prepared.as_of)}
                for leader in prepared.missing_leaders
            ],
            "recalibration": prepared.recalibration(),
            "events": series.events,
            "calendar_until": series.reach.item(),
            "dates": prepared.future_dates.tolist(),
            "last_close": prepared.last_close,
            "mean": _columns(mean),
            "quantiles": {
                str(level): _columns(values)
                for level, values in zip(request.quantiles, quantiles, strict=True)
            },
            "moves": _moves(prices[..., CLOSE], prepared.last_close, request.quantiles),
            "paths": _columns(prices) if request.return_paths else None,
        }
    )


def _moves(closes: Floats, last_close: float, levels: Sequence[float]) -> dict[str, list[float]]:
    """By level: quantiles (H,) of each bar's own move over the paths (N, H), in percent."""
    moves = own_moves(closes, last_close)
    return {str(level): np.quantile(moves, level, axis=0).tolist() for level in levels}


def _columns(prices: Floats) -> dict[str, Any]:
    """(..., H, 6) -> a nested list (..., H) per column."""
    return {name: prices[..., column].tolist() for column, name in enumerate(TARGETS)}


def _last_before(dates: Times, as_of: np.datetime64) -> Any:
    known = dates[dates < as_of]
    return known[-1].item() if len(known) else None

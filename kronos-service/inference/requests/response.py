"""From sample paths to the response: quantiles and mean of valid candles, with all that conditioned them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np

from kronos_service.events.sessions import Times
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import PreparedSeries
from kronos_service.inference.requests.upcoming_events import as_datetime
from kronos_service.inference.schemas import ForecastRequest, ForecastResponse, ModelOut, SeriesOut
from kronos_service.model.generation.generate import Generated
from kronos_service.model.generation.inputs import to_prices
from kronos_shared.columns import FEATURES
from kronos_shared.normalization import Floats

COLUMNS: Final = FEATURES[:5]
"""The columns of a response; turnover follows from volume and prices."""


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


def _series_out(
    request: ForecastRequest,
    series: PreparedSeries,
    prices: Floats,
    bars_used: int,
    leader_dates: Mapping[str, Times],
    now: datetime,
    stale_after: int,
) -> SeriesOut:
    quantiles = np.quantile(prices, request.quantiles, axis=0) if request.quantiles else ()
    prepared = series.prepared
    return SeriesOut.model_validate(
        {
            "symbol": series.symbol,
            "asset_class": series.asset_class,
            "last_bar": series.days[-1].item(),
            "stale_sessions": series.stale_sessions,
            "is_stale": series.stale_sessions > stale_after,
            "as_of": min(as_datetime(prepared.as_of), now),
            "bars_given": series.bars_given,
            "bars_used": bars_used,
            "history_shortened": bars_used < series.bars_given,
            "missing_sessions": series.missing_sessions,
            "missing_leaders": [
                {"leader": leader, "last_bar": _last_before(leader_dates[leader], prepared.as_of)}
                for leader in prepared.missing_leaders
            ],
            "events": series.events,
            "calendar_until": series.reach.item(),
            "dates": prepared.future_dates.tolist(),
            "mean": _columns(prices.mean(axis=0)),
            "quantiles": {
                str(level): _columns(values)
                for level, values in zip(request.quantiles, quantiles, strict=True)
            },
            "paths": _columns(prices) if request.return_paths else None,
        }
    )


def _columns(prices: Floats) -> dict[str, Any]:
    """(..., H, 6) -> a nested list (..., H) per column."""
    return {name: prices[..., column].tolist() for column, name in enumerate(COLUMNS)}


def _last_before(dates: Times, as_of: np.datetime64) -> Any:
    known = dates[dates < as_of]
    return known[-1].item() if len(known) else None

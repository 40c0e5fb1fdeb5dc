"""The one way from bars, calendar and leaders to prices: prepare the history, generate, denormalise.

Evaluation and the forecast command call `forecast_prices`. The service calls its two halves, `generate` and
`to_prices`, in two threads, because a batch holds the histories of several requests.
The origin is the last bar given. A forecast is prepared as a training window is: events as of the origin,
statistics over the bars before the first predicted one.
Letters: T bars of history, H horizon in bars, N sample paths, C event channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from kronos_service.events.encoder import EventEncoder, EventTables
from kronos_service.events.leaders import missing_leaders
from kronos_service.events.scenario import Scenario
from kronos_service.events.sessions import DAILY, LONGEST_CLOSURE, Interval, locate, session_dates, sessions
from kronos_service.model.generation.generate import History, generate, repair_candles
from kronos_service.model.generation.recalibration import step_factors, stretch
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_manifest import RecalibrationRecord
from kronos_shared.columns import AMOUNT, CLOSE, PRICES, VOLUME
from kronos_shared.errors import KronosError
from kronos_shared.normalization import (
    MIN_HISTORY,
    Floats,
    denormalize,
    feature_matrix,
    normalize,
    statistics,
    time_features,
)

LOWEST_PRICE: Final = 0.01
"""A forecast price is at least this share of the last close: in a far tail it could be negative."""


Shown = Literal["known", "zeroed", "none"]
"""What a model is shown: what was known, all channels zero, or no event embedding at all (the plain base)."""


class HistoryError(KronosError):
    """Bars from which nothing can be forecast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """One series ready for `generate`, and what is needed to read its forecast."""

    history: History
    mean: Floats
    std: Floats
    """(6,) statistics of the history's own bars."""
    last_close: float
    future_dates: npt.NDArray[np.datetime64]
    """(H,) session dates of the forecast bars, or when they open if they are shorter than a day."""
    as_of: np.datetime64
    """What became known up to this moment (UTC) conditions the forecast."""
    missing_leaders: tuple[str, ...]
    """Leaders whose latest bar to close by `as_of` is not there; their channel is 0. Empty without events."""
    factors: Floats | None = None
    """(H,) by which the forecast's widths are recalibrated; None leaves them as they are drawn."""

    def recalibration(self) -> dict[str, bool | list[float]]:
        """What an answer says of its widths: whether they are recalibrated, and the factor of each bar."""
        factors: list[float] = [] if self.factors is None else self.factors.tolist()
        return {"applied": self.factors is not None, "factors": factors}

    def shown(self, events: Shown) -> "Prepared":
        """The same history as another model is shown it."""
        if events == "known":
            return self
        assert self.history.events is not None
        channels = torch.zeros_like(self.history.events) if events == "zeroed" else None
        return replace(self, history=replace(self.history, events=channels), factors=None)


def prepare_history(
    bars: pd.DataFrame,
    asset_class: str,
    tables: EventTables | None,
    *,
    symbol: str | None,
    encoder: EventEncoder,
    context: int,
    horizon: int,
    seed: int,
    min_history: int = MIN_HISTORY,
    scenario: Scenario | None = None,
    recalibration: RecalibrationRecord | None = None,
    interval: Interval = DAILY,
) -> Prepared:
    """Normalise, stamp and condition the history of one series.

    Args:
        bars: columns ts and `FEATURES`, ascending; the last one is the origin, nothing later may be in it.
        tables: calendar and leaders as `events.encoder.prepare` reads them; None for the plain base.
        symbol: whose bars they are, for the events of its own.
        encoder: the one of the model's bundle.
        context: the model's limit in bars; the latest `context - horizon` bars of history are kept.
        min_history: bars of history at least, as the adapter's manifest says.
        scenario: what-if surprises and leader moves on the forecast bars.
        recalibration: the width factors of the adapter that is to forecast; they need `tables`.
        interval: how long the bars are.

    Raises:
        HistoryError: fewer bars than `min_history`.
        SessionError, CalendarError, ScenarioError: dates that are no sessions of the asset class or are out
            of order, a calendar that ends too early, a scenario that does not fit.
    """
    if len(bars) < min_history:
        raise HistoryError(
            f"expected at least {min_history} bars of history, got {len(bars)}: send earlier bars too"
        )
    future_dates, as_of = next_sessions(bars["ts"].iloc[-1], asset_class, horizon, interval)
    longest = context - horizon
    events = factors = None
    if tables is not None:
        # every bar is encoded, not only those kept: surprises and moves of the first need the bar before it
        rows = encoder.encode(
            bars, asset_class, tables, horizon=horizon, scenario=scenario, interval=interval, symbol=symbol
        )
        events = torch.from_numpy(rows[max(0, len(bars) - longest) :])
        if recalibration is not None:
            factors = step_factors(recalibration, rows[-horizon:], encoder.taxonomy)
    kept = bars.iloc[-longest:]
    features = feature_matrix(kept)
    mean, std = statistics(features)
    history = History(
        x=torch.from_numpy(normalize(features, mean, std)),
        stamps=torch.from_numpy(time_features(pd.DatetimeIndex(kept["ts"]))),
        future_stamps=torch.from_numpy(time_features(pd.DatetimeIndex(future_dates))),
        events=events,
        seed=seed,
    )
    return Prepared(
        history=history,
        mean=mean,
        std=std,
        last_close=float(features[-1, CLOSE]),
        future_dates=future_dates,
        as_of=as_of,
        missing_leaders=() if tables is None else missing_leaders(tables.leaders, as_of),
        factors=factors,
    )


def next_sessions(
    last: pd.Timestamp, asset_class: str, horizon: int, interval: Interval = DAILY
) -> tuple[npt.NDArray[np.datetime64], np.datetime64]:
    """The dates (H,) of the bars after the one dated `last`, and that bar's as_of."""
    day = session_dates(pd.DatetimeIndex([last]), interval)
    ahead = timedelta(days=2 * horizon) + LONGEST_CLOSURE
    table = sessions(asset_class, day[0].item(), day[0].item() + ahead, interval)
    origin = int(locate(table, day)[0])
    return table.dates[origin + 1 : origin + 1 + horizon], table.as_of[origin]


def forecast_prices(
    tokenizer: KronosTokenizer,
    model: Kronos,
    prepared: Sequence[Prepared],
    *,
    horizon: int,
    paths: int,
    sampling: Sampling,
    context: int,
) -> list[Floats]:
    """Sample paths (N, H, 6) of each prepared series, valid candles in its own units.

    Raises:
        GenerationError: see `generate`.
    """
    histories = [one.history for one in prepared]
    generated = generate(
        tokenizer, model, histories, horizon=horizon, paths=paths, sampling=sampling, context=context
    )
    return [to_prices(bars, one) for bars, one in zip(generated.bars, prepared, strict=True)]


def to_prices(bars: Tensor, prepared: Prepared) -> Floats:
    """Normalised sample paths (N, H, 6) of one series -> valid candles (N, H, 6) in its own units.

    Open, high, low and close are in the quote currency and contain each other; volume and amount are at
    least 0. The widths are recalibrated where the series says so.
    """
    lowest = LOWEST_PRICE * prepared.last_close
    prices = denormalize(bars.cpu().numpy(), prepared.mean, prepared.std)
    prices[..., PRICES] = np.maximum(prices[..., PRICES], lowest)
    prices[..., VOLUME : AMOUNT + 1] = np.maximum(prices[..., VOLUME : AMOUNT + 1], 0.0)
    candles = repair_candles(prices).astype(np.float64)
    if prepared.factors is None:
        return candles
    return stretch(candles, prepared.factors, lowest=lowest)


def own_moves(closes: Floats, last_close: float) -> Floats:
    """(N, H) closes -> each bar's own move (N, H), close to close, in percent."""
    before = np.concatenate([np.full((len(closes), 1), last_close), closes[:, :-1]], axis=1)
    moves: Floats = 100 * (closes / before - 1)
    return moves

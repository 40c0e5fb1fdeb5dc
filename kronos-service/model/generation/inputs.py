"""From bars, calendar and leaders at an origin to what `generate` reads, and from its bars back to prices.

The origin is the last bar given. A forecast is prepared as a training window is: events as of the origin,
statistics over the bars before the first predicted one.
Letters: T bars of history, H horizon in bars, N sample paths.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from kronos_service.events.encoder import EventTables, encode_rows
from kronos_service.events.leaders import missing_leaders
from kronos_service.events.scenario import Scenario
from kronos_service.events.sessions import LONGEST_CLOSURE, locate, session_dates, sessions
from kronos_service.model.generation.generate import History, repair_candles
from kronos_shared.errors import KronosError
from kronos_shared.normalization import (
    Floats,
    denormalize,
    feature_matrix,
    normalize,
    statistics,
    time_features,
)

LOWEST_PRICE: Final = 0.01
"""A forecast price is at least this share of the last close: in a far tail it could be negative."""


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
    """(H,) session dates of the forecast bars."""
    as_of: np.datetime64
    """What became known up to this moment (UTC) conditions the forecast."""
    missing_leaders: tuple[str, ...]
    """Leaders whose latest bar to close by `as_of` is not there; their channel is 0. Empty without events."""


def prepare_history(
    bars: pd.DataFrame,
    asset_class: str,
    tables: EventTables | None,
    *,
    horizon: int,
    longest: int,
    min_history: int,
    seed: int,
    scenario: Scenario | None = None,
) -> Prepared:
    """Normalise, stamp and condition the history of one series.

    Args:
        bars: columns ts and `FEATURES`, ascending; the last one is the origin, nothing later may be in it.
        tables: calendar and leaders as `events.encoder.prepare` reads them; None for the plain base.
        longest: bars of history at most, the latest ones; the model's context less the horizon, so that
            `generate` need not shorten it again.
        min_history: bars of history at least, as the adapter's manifest says.
        scenario: supposed surprises and leader moves on the forecast bars.

    Raises:
        HistoryError: fewer bars than `min_history`.
        SessionError, CalendarError, ScenarioError: dates that are no sessions of the asset class or are out
            of order, a calendar that ends too early, a scenario that does not fit.
    """
    if len(bars) < min_history:
        raise HistoryError(
            f"expected at least {min_history} bars of history, got {len(bars)}: send earlier bars too"
        )
    future_dates, as_of = next_sessions(bars["ts"].iloc[-1], asset_class, horizon)
    events = None
    if tables is not None:
        rows = encode_rows(tables, bars["ts"], asset_class, horizon=horizon, scenario=scenario)
        events = torch.from_numpy(rows[max(0, len(bars) - longest) :])
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
        last_close=float(features[-1, 3]),
        future_dates=future_dates,
        as_of=as_of,
        missing_leaders=() if tables is None else missing_leaders(tables.leaders, as_of),
    )


def next_sessions(
    last: pd.Timestamp, asset_class: str, horizon: int
) -> tuple[npt.NDArray[np.datetime64], np.datetime64]:
    """The dates (H,) of the sessions after the bar dated `last`, and that bar's as_of."""
    day = session_dates(pd.DatetimeIndex([last]))
    ahead = timedelta(days=2 * horizon) + LONGEST_CLOSURE
    table = sessions(asset_class, day[0].item(), day[0].item() + ahead)
    origin = int(locate(table, day)[0])
    return table.dates[origin + 1 : origin + 1 + horizon], table.as_of[origin]


def to_prices(bars: Tensor, prepared: Prepared) -> Floats:
    """Normalised sample paths (N, H, 6) of one series -> valid candles (N, H, 6) in its own units.

    Open, high, low and close are in the quote currency and contain each other; volume and amount are at
    least 0.
    """
    prices = denormalize(bars.cpu().numpy(), prepared.mean, prepared.std)
    prices[..., :4] = np.maximum(prices[..., :4], LOWEST_PRICE * prepared.last_close)
    prices[..., 4:] = np.maximum(prices[..., 4:], 0.0)
    return repair_candles(prices).astype(np.float64)

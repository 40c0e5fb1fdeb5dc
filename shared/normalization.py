"""One normaliser and one set of time features, for training and serving (numpy and pandas only)."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_shared.columns import AMOUNT, FEATURES, PRICES, VOLUME

EPSILON: Final = 1e-7
"""Share of a column's mean that is added to its deviation: a constant column divides by more than rounding.

Upstream Kronos adds 1e-5 whatever the unit. Both add the same at a price of 100, but a series quoted in other
units keeps its z-scores only with a share (docs/decisions.md has the difference).
"""
UPSTREAM_EPSILON: Final = 1e-5
"""Added to the deviation in windows that adapters were trained on before; their tokens are the same."""
CLIP: Final = 5.0
MIN_HISTORY: Final = 64
"""Bars before the first predicted one, at least: fewer give no steady mean and deviation."""

Floats = npt.NDArray[np.float64]


def feature_matrix(bars: pd.DataFrame) -> Floats:
    """The (T, 6) float64 matrix of `FEATURES`; a null amount becomes volume x mean(OHLC), as upstream
    Kronos does.
    """
    x = bars.loc[:, list(FEATURES)].to_numpy(dtype=np.float64, copy=True)
    missing = np.isnan(x[:, AMOUNT])
    x[missing, AMOUNT] = x[missing, VOLUME] * x[missing, PRICES].mean(axis=1)
    return x


def statistics(x: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation (ddof 0) per column of the (T, 6) bars of the lookback."""
    return x.mean(axis=0), x.std(axis=0)


def normalize(x: Floats, mean: Floats, std: Floats) -> npt.NDArray[np.float32]:
    """Z-scores clipped to +-5, in float32, whatever unit a column is in; a constant column becomes zero."""
    away = x - mean
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        z = np.where(away == 0, 0.0, away / _scale(mean, std))  # scale is 0 for a column of zeros
    return np.clip(z, -CLIP, CLIP).astype(np.float32)


def denormalize(z: npt.NDArray[np.floating], mean: Floats, std: Floats) -> Floats:
    """The inverse of `normalize` for values that were not clipped; z is (..., 6)."""
    return z.astype(np.float64) * _scale(mean, std) + mean


def _scale(mean: Floats, std: Floats) -> Floats:
    return std + EPSILON * np.abs(mean)


def time_features(ts: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    """The (T, 5) time features [minute, hour, weekday, day, month] of each bar, in UTC."""
    return np.stack([ts.minute, ts.hour, ts.day_of_week, ts.day, ts.month], axis=1).astype(np.int64)

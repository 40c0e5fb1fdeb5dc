"""One normaliser and one set of time features, for training and serving (numpy and pandas only)."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_shared.columns import AMOUNT, FEATURES, PRICES, VOLUME

EPSILON: Final = 1e-5
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
    """Z-scores clipped to +-5, in float32; a constant column becomes zero (epsilon 1e-5, as upstream)."""
    return np.clip((x - mean) / (std + EPSILON), -CLIP, CLIP).astype(np.float32)


def denormalize(z: npt.NDArray[np.floating], mean: Floats, std: Floats) -> Floats:
    """The inverse of `normalize` for values that were not clipped; z is (..., 6)."""
    return z.astype(np.float64) * (std + EPSILON) + mean


def time_features(ts: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    """The (T, 5) time features [minute, hour, weekday, day, month] of each bar, in UTC."""
    return np.stack([ts.minute, ts.hour, ts.day_of_week, ts.day, ts.month], axis=1).astype(np.int64)

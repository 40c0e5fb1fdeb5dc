"""How many outcomes fell inside the intervals of forecasts on disk: the scorecard's measure, for a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from kronos_service.data.forecasts import read_batches
from kronos_shared.quantiles import INTERVALS

DAYS: Final = 90
"""Target dates back from now."""
_READ: Final = ["symbol", "last_bar", "last_close", "date", "step", "samples", "version"]


@dataclass(frozen=True, kw_only=True)
class RollingCoverage:
    """Over all symbols, bars and versions."""

    targets: int
    shares: Mapping[str, float]
    """Interval -> share; empty where there is no target."""


def rolling_coverage(
    files: Sequence[Path], bars: Mapping[str, pd.DataFrame], now: datetime, *, days: int = DAYS
) -> RollingCoverage:
    """The coverage of the closes of the last days; the first of several forecasts of the same bar counts.

    Args:
        bars: symbol -> its bars, with ts and close.

    Raises:
        ForecastFileError: a file is damaged.
    """
    first = (now - timedelta(days=days)).date()
    closes = {name: dict(zip(rows["ts"].dt.date, rows["close"], strict=True)) for name, rows in bars.items()}
    seen = set[tuple[object, ...]]()
    inside: list[list[bool]] = []
    for path in files:
        for batch in read_batches(path, _READ):
            chosen = pc.and_(pc.is_valid(batch["samples"]), pc.greater_equal(batch["date"], first))
            for row in batch.filter(chosen).to_pylist():
                key = (row["version"], row["symbol"], row["last_bar"], row["step"])
                close = closes.get(row["symbol"], {})
                if key in seen or row["date"] not in close or row["last_bar"] not in close:
                    continue
                seen.add(key)
                moved = np.log(close[row["date"]]) - np.log(close[row["last_bar"]])
                inside.append(_inside(np.log(np.array(row["samples"]) / row["last_close"]), moved))
    shares = np.mean(inside, axis=0).tolist() if inside else []
    return RollingCoverage(targets=len(inside), shares=dict(zip(INTERVALS, shares, strict=False)))


def _inside(paths: np.ndarray, moved: float) -> list[bool]:
    """Whether the outcome lies in each interval; quantiles as the scorecard takes them."""
    ends = np.quantile(paths, list(INTERVALS.values()), method="weibull")
    return [bool(low <= moved <= high) for low, high in ends]

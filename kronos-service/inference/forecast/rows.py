"""From sample paths to the rows of a DataFrame, one symbol at a time.

Letters: N sample paths, H horizon in bars.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from kronos_service.inference.forecast.bands import Bands
from kronos_service.inference.forecast.explanation import Without
from kronos_service.model.generation.inputs import Prepared
from kronos_shared.columns import CLOSE, FEATURES
from kronos_shared.normalization import Floats

TARGETS: Final = FEATURES[:5]
"""What is forecast; turnover follows from volume and prices."""


def quantile_rows(
    symbol: str, dates: pd.DatetimeIndex, prices: Floats, levels: Sequence[float]
) -> pd.DataFrame:
    """The rows of one symbol from its sample paths (N, H, 6): target by target, bar by bar."""
    horizon, targets = len(dates), len(TARGETS)
    # the same call as the service's, whose answers these numbers equal
    values = np.quantile(prices, [0.5, *levels], axis=0)[..., :targets]
    columns = values.transpose(0, 2, 1).reshape(len(values), -1)
    return pd.DataFrame(
        {
            "symbol": symbol,
            "ts": dates.append([dates] * (targets - 1)),
            "step": np.tile(np.arange(1, horizon + 1), targets),
            "target_name": np.repeat(TARGETS, horizon),
            **dict(zip(("predictions", *map(str, levels)), columns, strict=True)),
        }
    )


def path_rows(symbol: str, dates: pd.DatetimeIndex, prices: Floats) -> pd.DataFrame:
    """The candles of one symbol's sample paths (N, H, 6): path by path, bar by bar."""
    paths, horizon = prices.shape[:2]
    return pd.DataFrame(
        {
            "symbol": symbol,
            "path": np.repeat(np.arange(paths), horizon),
            "ts": dates.append([dates] * (paths - 1)),
            "step": np.tile(np.arange(1, horizon + 1), paths),
            **{name: prices[..., column].ravel() for column, name in enumerate(TARGETS)},
        }
    )


def explanation_rows(
    symbol: str,
    dates: pd.DatetimeIndex,
    inputs: Sequence[Without],
    sampled: Sequence[Floats],
    known: Prepared,
) -> pd.DataFrame:
    """The rows of one symbol; `sampled` (N, H, 6) is the whole forecast, then the one without each input."""
    whole, *others = (
        Bands(label="", last_close=known.last_close, closes=prices[..., CLOSE]) for prices in sampled
    )
    rows = [
        pd.DataFrame(
            {
                "symbol": symbol,
                "kind": one.kind,
                "name": one.name,
                "date": pd.DatetimeIndex([one.on] * len(dates), tz=dates.tz).as_unit("ns"),
                "ts": dates,
                "step": np.arange(1, len(dates) + 1),
                "median": whole.median(),
                "median_change": whole.median() - without.median(),
                "width": whole.width(),
                "width_change": whole.width() - without.width(),
            }
        )
        for one, without in zip(inputs, others, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)

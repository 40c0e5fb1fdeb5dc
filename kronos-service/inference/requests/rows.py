"""A forecast as rows of a forecast file: the figures of the response, and the sample paths of the close.

Letters: N sample paths, H horizon in bars.
"""

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from kronos_service.data.forecasts import QUANTILES, SCHEMA, TARGETS
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import PreparedSeries
from kronos_service.inference.requests.response import known_at, summarize
from kronos_shared.columns import CLOSE
from kronos_shared.normalization import Floats
from kronos_shared.quantiles import LEVELS


def forecast_rows(
    series: PreparedSeries, prices: Floats, *, serving: ServedModel, seed: int, now: datetime
) -> pa.Table:
    """One row per forecast bar and column, from sample paths (N, H, 6) of one series."""
    prepared = series.prepared
    paths, horizon = prices.shape[:2]
    mean, quantiles = summarize(prices, LEVELS)
    count, columns = horizon * len(TARGETS), slice(len(TARGETS))
    closes: list[Any] = [None] * count
    closes[CLOSE :: len(TARGETS)] = list(prices[..., CLOSE].T)
    same = {
        "symbol": series.symbol,
        "asset_class": series.asset_class,
        "last_bar": series.days[-1].item(),
        "last_close": prepared.last_close,
        "as_of": known_at(series, now),
        "paths": paths,
        "seed": seed,
        "missing_leaders": ",".join(prepared.missing_leaders),
        "version": serving.version,
        "digest": serving.digest,
        "base_digest": serving.base.base.content_sha256,
    }
    each = {
        "date": np.repeat(prepared.future_dates.astype("datetime64[D]"), len(TARGETS)),
        "step": np.repeat(np.arange(1, horizon + 1, dtype=np.int32), len(TARGETS)),
        "target_name": list(TARGETS) * horizon,
        "mean": mean[:, columns].ravel(),
        "samples": closes,
        **{name: row[:, columns].ravel() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }
    arrays = [
        pa.array(each[field.name], type=field.type)
        if field.name in each
        else pa.repeat(pa.scalar(same[field.name], type=field.type), count)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)

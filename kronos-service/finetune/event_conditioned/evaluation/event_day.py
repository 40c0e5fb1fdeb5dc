"""One event day among the forecasts, to look at: what was known, what was said of it, and what came.

Everything is a log return from the origin's close, in percent.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.columns import CLOSE
from kronos_shared.quantiles import LEVELS, quantile_name

SHOWN_PAST: Final = 20
"""Bars up to the origin."""
SHOWN_MODELS: Final = ("base", "adapter")


def event_day(records: pd.DataFrame, series: Sequence[Series]) -> dict[str, Any] | None:
    """The forecast whose next bar has an event, and whose CRPS is the median of all such forecasts.

    Neither the best day nor the worst: of `among` forecasts, that in the middle by the adapter's CRPS. Days
    of tier-1 events are taken before others; None where no forecast's next bar has an event. `records` are
    those of `score_forecasts`; `rank` counts from the best.
    """
    taxonomy = series[0].taxonomy
    first = records[(records["model"] == "adapter") & (records["step"] == 1)]
    tier1 = first[first[list(taxonomy.tier1)].any(axis=1)]
    days = (tier1 if len(tier1) else first[first["is_event"]]).sort_values(
        ["crps", "origin", "symbol"], kind="stable"
    )
    if days.empty:
        return None
    rank = (len(days) - 1) // 2
    chosen = days.iloc[rank]
    rows = records[(records["symbol"] == chosen["symbol"]) & (records["origin"] == chosen["origin"])]
    forecasts = {name: rows[rows["model"] == name].sort_values("step") for name in SHOWN_MODELS}
    about, known = forecasts["adapter"], series[int(chosen["series"])]
    origin = int(chosen["bar"]) - 1
    closes = np.log(known.features[max(0, origin + 1 - SHOWN_PAST) : origin + 1, CLOSE])
    return {
        "symbol": str(chosen["symbol"]),
        "rank": rank + 1,
        "among": len(days),
        "past_dates": [str(day) for day in known.dates[max(0, origin + 1 - SHOWN_PAST) : origin + 1]],
        "past": (100 * (closes - closes[-1])).tolist(),
        "dates": [str(day.date()) for day in about["date"]],
        "events": [[name for name in taxonomy.families if row[name]] for _, row in about.iterrows()],
        "came": (100 * about["outcome"]).tolist(),
        "models": {
            name: {quantile_name(level): (100 * frame[quantile_name(level)]).tolist() for level in LEVELS}
            for name, frame in forecasts.items()
        },
    }

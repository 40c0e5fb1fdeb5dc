"""One row per model, origin and forecast bar: what came, what was said, and how good that was.

What is forecast is the log return of a bar's close from the origin's close: the same scale for every symbol
and price level, and it adds up over bars. Letters: n origins, N sample paths, H horizon in bars.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.finetune.event_conditioned.evaluation.metrics import (
    Columns,
    judge_quantiles,
    score_normal,
    score_samples,
)
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.normalization import Floats

MODELS: Final = ("persistence", "random_walk", "base", "zeroed", "adapter", "recalibrated")
"""Closes stay as they are; a normal random walk; the plain base; the adapter shown no events; shown them; the
same with the width factors of its manifest."""
VOLATILITY_RETURNS: Final = 20
"""Daily log returns up to the origin that give the random walk its deviation."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the forecasts are about: arrays (n, H) of the bars after each origin."""

    origins: Sequence[Origin]
    outcome: Floats
    """Log return of the close from the origin's close."""
    volatility: Floats
    """(n,) deviation (ddof 1) of the last 20 daily log returns known at the origin."""
    bars: npt.NDArray[np.int64]
    """Number of each forecast bar in its series."""


def find_targets(series: Sequence[Series], origins: Sequence[Origin], horizon: int) -> Targets:
    """The outcomes of the forecasts from these origins."""
    bars = np.array([origin.bar for origin in origins])[:, None] + np.arange(1, horizon + 1)
    logs = [np.log(series[origin.series].features[:, 3]) for origin in origins]
    outcome = [log[b] - log[o.bar] for log, b, o in zip(logs, bars, origins, strict=True)]
    volatility = [
        np.diff(log[o.bar - VOLATILITY_RETURNS : o.bar + 1]).std(ddof=1)
        for log, o in zip(logs, origins, strict=True)
    ]
    return Targets(origins=origins, outcome=np.stack(outcome), volatility=np.array(volatility), bars=bars)


def score_forecasts(
    series: Sequence[Series], targets: Targets, closes: Mapping[str, Floats], seed: int
) -> pd.DataFrame:
    """Every score of the models in `closes` (n, N, H) and of the two baselines.

    Columns: symbol, asset_class, origin and date (session dates), step (1..H), is_event and the families of
    the forecast bar, outcome, bar_move (the bar's own log return over the origin's 20-day volatility), model,
    crps, pit, spread, bar_spread (the forecast's deviation of bar_move), quantiles, pinball losses, inside
    and hit.
    """
    about = _about(series, targets)
    frames = []
    for name in MODELS:
        if name in ("persistence", "random_walk"):
            columns = _baseline(name, targets)
        elif name in closes:
            columns = _sampled(series, targets, closes[name], seed)
        else:
            continue
        columns |= judge_quantiles(columns, targets.outcome)
        frames.append(about.assign(model=name, **{key: value.ravel() for key, value in columns.items()}))
    return pd.concat(frames, ignore_index=True)


def _baseline(name: str, targets: Targets) -> Columns:
    """Persistence says the origin's close; the random walk spreads around it with the root of time."""
    steps = np.arange(1, targets.outcome.shape[1] + 1)
    scale = targets.volatility[:, None] * (name == "random_walk")
    bar_spread = np.broadcast_to(np.full_like(scale, name == "random_walk"), targets.outcome.shape)
    return score_normal(scale * np.sqrt(steps), targets.outcome) | {"bar_spread": bar_spread}


def _sampled(series: Sequence[Series], targets: Targets, closes: Floats, seed: int) -> Columns:
    last = np.array([series[o.series].features[o.bar, 3] for o in targets.origins])
    samples = np.log(closes / last[:, None, None])
    own = np.diff(samples, axis=2, prepend=0.0).std(axis=1, ddof=1)
    columns = score_samples(samples, targets.outcome, np.random.default_rng(seed))
    return columns | {"bar_spread": own / targets.volatility[:, None]}


def _about(series: Sequence[Series], targets: Targets) -> pd.DataFrame:
    """The rows' keys, one row per origin and bar."""
    horizon = targets.outcome.shape[1]
    rows = [
        {
            "series": origin.series,
            "bar": bar,
            "symbol": series[origin.series].symbol,
            "asset_class": series[origin.series].asset_class,
            "origin": series[origin.series].dates[origin.bar],
            "date": series[origin.series].dates[bar],
            "step": step,
            "is_event": series[origin.series].is_event[bar],
        }
        for origin, bars in zip(targets.origins, targets.bars.tolist(), strict=True)
        for step, bar in zip(range(1, horizon + 1), bars, strict=True)
    ]
    families = np.array([series[row["series"]].families[row["bar"]] for row in rows])
    own = np.diff(targets.outcome, axis=1, prepend=0.0) / targets.volatility[:, None]
    return pd.DataFrame(rows).assign(
        outcome=targets.outcome.ravel(),
        bar_move=own.ravel(),
        **{name: families[:, i] for i, name in enumerate(series[0].taxonomy.families)},
    )

"""The next bar's return and range by model and yardstick: scores of each target, and what is gained on which
days.

Letters: n origins, N sample paths.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.finetune.event_conditioned.evaluation.bootstrap import mean_over_dates
from kronos_service.finetune.event_conditioned.evaluation.densities import score_next_bar
from kronos_service.finetune.event_conditioned.evaluation.metrics import Columns, crps_samples, qlike
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import SampledBars
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import (
    SCORES,
    YARDSTICKS,
    Yardsticks,
    describe_bars,
    forecast_bars,
)
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.columns import CLOSE
from kronos_shared.normalization import Floats

ORDER: Final[tuple[str, ...]] = (*YARDSTICKS, "base", "zeroed", "adapter", "recalibrated")
PAIRS: Final = {
    "adapter": ("har_events", "har", "garch", "random_walk", "base"),
    "har_events": ("har",),
}
"""Whose gain is reported, over whom."""
HIGHER_IS_BETTER: Final = ("return_log_score", "range_log_score")

Mask = npt.NDArray[np.bool_]


def score_next_bars(
    yardsticks: Yardsticks,
    series: Sequence[Series],
    origins: Sequence[Origin],
    sampled: Mapping[str, SampledBars],
) -> pd.DataFrame:
    """One row per model or yardstick and origin, about the bar after it: the columns of `score_yardsticks`.

    Sample paths have CRPS and QLIKE, no log score (NaN): a few dozen paths leave the density of a tail to
    the choice of a kernel.
    """
    frames = []
    for number in sorted({origin.series for origin in origins}):
        one = series[number]
        places = [place for place, origin in enumerate(origins) if origin.series == number]
        bars = np.array([origins[place].bar + 1 for place in places])
        about = describe_bars(one, bars)
        came = about["log_return"].to_numpy(), about["log_range"].to_numpy()
        scores = {
            name: score_next_bar(forecast, *came)
            for name, forecast in forecast_bars(yardsticks, one, bars).items()
        }
        for name, paths in sampled.items():
            returns = np.log(paths.closes[places, :, 0] / one.features[bars - 1, CLOSE][:, None])
            scores[name] = _score_paths(returns, paths.log_range[places], *came)
        frames += [about.assign(model=name, **columns) for name, columns in scores.items()]
    return pd.concat(frames, ignore_index=True)


def _score_paths(returns: Floats, ranges: Floats, log_return: Floats, log_range: Floats) -> Columns:
    """Scores of sample paths (n, N) of the next bar."""
    unknown = np.full_like(log_return, np.nan)
    return {
        "return_crps": crps_samples(returns[..., None], log_return[:, None])[:, 0],
        "return_log_score": unknown,
        "return_qlike": qlike((returns**2).mean(axis=1), log_return**2),
        "range_crps": crps_samples(ranges[..., None], log_range[:, None])[:, 0],
        "range_log_score": unknown,
        "range_qlike": qlike(np.exp(2 * ranges).mean(axis=1), np.exp(2 * log_range)),
    }


def summarize_next_bars(records: pd.DataFrame, *, seed: int) -> dict[str, Any]:
    """The figures of the next bar as `score_next_bars` or `score_yardsticks` returns its rows, for JSON.

    `groups`: one entry for all targets, tier-1 days, other event days and non-event days, and for these in
    each asset class where there are several. Each has the number of targets and dates, every model's means
    of `SCORES` (None where it has none) and `gain`: for each of `PAIRS` and score how much better the first
    is (a lower CRPS and QLIKE, a higher log score), over the targets where both have one, with a 95 %
    interval (None on too few dates).
    """
    frames = {
        str(name): frame.set_index(["symbol", "date"]) for name, frame in records.groupby("model", sort=False)
    }
    models: list[str] = [name for name in ORDER if name in frames]
    about = frames[models[0]]
    groups = []
    for asset_class, group, members in _groups(about):
        if members.any():
            targets = about.index[members]
            part = {name: frames[name].loc[frames[name].index.isin(targets)] for name in models}
            groups.append({"asset_class": asset_class, "group": group, **_figures(part, seed)})
    return {"groups": groups}


def _groups(about: pd.DataFrame) -> Iterator[tuple[str, str, Mask]]:
    event, tier1 = about["is_event"].to_numpy(), about["tier1"].to_numpy()
    days = {"all": np.ones_like(event), "tier1": tier1, "other_event": event & ~tier1, "quiet": ~event}
    classes = sorted(about["asset_class"].unique())
    for asset_class in ["all", *(classes if len(classes) > 1 else [])]:
        inside = (about["asset_class"] == asset_class).to_numpy() | (asset_class == "all")
        for group, members in days.items():
            yield asset_class, group, members & inside


def _figures(frames: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Any]:
    about = next(iter(frames.values()))
    return {
        "targets": len(about),
        "dates": int(about.index.get_level_values("date").nunique()),
        "models": {
            name: {score: _number(frame[score].mean()) for score in SCORES} for name, frame in frames.items()
        },
        "gain": {
            better: {
                reference: _gains(frames[better], frames[reference], seed)
                for reference in others
                if reference in frames
            }
            for better, others in PAIRS.items()
            if better in frames
        },
    }


def _gains(better: pd.DataFrame, reference: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Per score, over the targets where both have one."""
    # Subtraction pairs the targets by symbol and date.
    differences = reference[list(SCORES)] - better[list(SCORES)]
    return {
        score: _gain((-1 if score in HIGHER_IS_BETTER else 1) * differences[score].dropna(), seed)
        for score in SCORES
    }


def _gain(values: pd.Series, seed: int) -> dict[str, Any] | None:
    if values.empty:
        return None
    gain = mean_over_dates(values, values.index.get_level_values("date").to_series(), seed=seed)
    enough = gain.dates >= FEWEST_DATES
    return {
        "mean": gain.mean,
        "low": gain.low if enough else None,
        "high": gain.high if enough else None,
        "targets": len(values),
        "dates": gain.dates,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

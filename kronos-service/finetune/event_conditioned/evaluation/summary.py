"""Means of forecast scores over groups of targets, each with its count, and paired differences of CRPS."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import mean_over_dates
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import MODELS
from kronos_shared.quantiles import INTERVALS, LEVELS, quantile_name

FEWEST_DATES: Final = 5
FEWEST_BLOCKS: Final = 3
"""Fewer origin dates, or blocks of them, give no interval."""
PIT_BINS: Final = 10
MEANS: Final = (
    "crps",
    *(f"pinball_{round(100 * level):02d}" for level in LEVELS),
    *(f"inside_{name}" for name in INTERVALS),
    "hit",
    "spread",
)

Mask = npt.NDArray[np.bool_]


def summarize_forecasts(records: pd.DataFrame, taxonomy: Taxonomy, *, seed: int) -> dict[str, Any]:
    """The figures of a set of forecasts as `score_forecasts` returns them, ready for JSON.

    `groups`: one entry per group of targets (all; event and quiet days; event families; asset classes;
    months; all by the target's bar) and steps (the first bar only, or all). Each has the number of targets,
    origins and origin dates, every model's means (None where it says nothing), and `gain`: how much lower
    the adapter's CRPS is than each other model's, with a 95 % interval (None where there are too few dates).
    `calibration`: per model, the counts of PIT values in ten bins and the share of outcomes below each
    quantile, first bar. `steps`: mean CRPS per model and bar.
    """
    models = [name for name in MODELS if (records["model"] == name).any()]
    frames = {name: records[records["model"] == name].reset_index(drop=True) for name in models}
    about = frames[models[0]]
    horizon = int(about["step"].max())
    groups = []
    for by, group, members in _groups(about, taxonomy):
        for steps, chosen in (("1", members & (about["step"] == 1).to_numpy()), ("all", members)):
            if chosen.any() and not (steps == "all" and horizon == 1):
                part = {name: frame[chosen] for name, frame in frames.items()}
                groups.append({"by": by, "group": group, "steps": steps, **_figures(part, horizon, seed)})
    return {
        "horizon": horizon,
        "groups": groups,
        "steps": {name: _numbers(frame.groupby("step")["crps"].mean()) for name, frame in frames.items()},
        "calibration": {
            name: _calibration(frame[frame["step"] == 1])
            for name, frame in frames.items()
            if name != "persistence"
        },
    }


def _groups(about: pd.DataFrame, taxonomy: Taxonomy) -> Iterator[tuple[str, str, Mask]]:
    yield "all", "all", np.ones(len(about), dtype=np.bool_)
    event = about["is_event"].to_numpy()
    yield "day", "event", event
    yield "day", "quiet", ~event
    for family in taxonomy.families:
        yield "family", family, about[family].to_numpy()
    for name in sorted(about["asset_class"].unique()):
        yield "asset_class", name, (about["asset_class"] == name).to_numpy()
    month = about["date"].dt.strftime("%Y-%m")
    for name in sorted(month.unique()):
        yield "month", name, (month == name).to_numpy()


def _figures(frames: dict[str, pd.DataFrame], horizon: int, seed: int) -> dict[str, Any]:
    about = next(iter(frames.values()))
    figures: dict[str, Any] = {
        "targets": len(about),
        "origins": len(about[["symbol", "origin"]].drop_duplicates()),
        "dates": int(about["origin"].nunique()),
        "up_share": float((about["outcome"] > 0).mean()),
        "models": {
            name: {column: _number(frame[column].mean()) for column in MEANS}
            for name, frame in frames.items()
        },
    }
    if "adapter" in frames:
        figures["gain"] = {
            name: _gain(frame, frames["adapter"], horizon, seed)
            for name, frame in frames.items()
            if name != "adapter"
        }
    return figures


def _gain(reference: pd.DataFrame, better: pd.DataFrame, horizon: int, seed: int) -> dict[str, Any]:
    """Overlapping forecasts share up to `horizon` bars, so blocks of dates are at least that long."""
    overlap = horizon if reference["step"].max() > 1 else 1
    gain = mean_over_dates(
        reference["crps"] - better["crps"], reference["origin"], seed=seed, shortest_block=overlap
    )
    known = gain.dates >= max(FEWEST_DATES, FEWEST_BLOCKS * overlap)
    return {
        "crps": gain.mean,
        "low": gain.low if known else None,
        "high": gain.high if known else None,
        "percent": 100 * gain.mean / float(reference["crps"].mean()),
    }


def _calibration(frame: pd.DataFrame) -> dict[str, Any]:
    counts, _ = np.histogram(frame["pit"], bins=PIT_BINS, range=(0.0, 1.0))
    below = {
        quantile_name(level): float((frame["outcome"] <= frame[quantile_name(level)]).mean())
        for level in LEVELS
    }
    return {"targets": len(frame), "pit": counts.tolist(), "below": below}


def _numbers(means: pd.Series) -> dict[str, float]:
    return {str(key): float(value) for key, value in means.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

"""The figures of a track record, per version and month, and whether its coverage has left the band."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from kronos_service.finetune.event_conditioned.evaluation.bootstrap import DatedMean, mean_over_dates
from kronos_service.finetune.event_conditioned.evaluation.summary import (
    FEWEST_BLOCKS,
    FEWEST_DATES,
    PIT_BINS,
)
from kronos_service.finetune.event_conditioned.evaluation.track_record import BASE, TrackRecord
from kronos_shared.quantiles import INTERVALS

TOLERANCE: Final = 0.05
"""Coverage may be this far from what an interval says before anything is wrong: no model is exact."""
ERRORS: Final = 4.0
"""And so many standard errors: with three intervals a night, two would call somebody every other week."""
FEWEST_DATES_TO_JUDGE: Final = 30
FEWEST_BLOCKS_TO_JUDGE: Final = 12
"""Dates in the window, and dates over the bars by which neighbouring forecasts overlap: of fewer the standard
error is a guess."""
_NORMAL: Final = 1.96


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """One interval of one version over the last days."""

    version: str
    steps: str
    """"1": the first bar; "all": all bars."""
    interval: str
    """In percent."""
    share: float
    """Of the outcomes that fell inside."""
    low: float
    high: float
    """The band in which the share may lie."""
    targets: int
    dates: int

    @property
    def is_inside(self) -> bool:
        """Whether nothing is wrong."""
        return self.low <= self.share <= self.high


def scorecard(record: TrackRecord, *, seed: int = 0) -> dict[str, Any]:
    """The figures ready for JSON.

    `versions`: one entry each, the latest forecast last, with `groups` (all; event and quiet days; months by
    the target's date), each for the first bar (`steps` "1") and all bars; a figure is its mean with a 95 %
    interval from a block bootstrap over dates (None where there are too few).
    """
    scores = record.scores
    order = scores.groupby("version")["origin"].max().sort_values(kind="stable").index
    base = scores[scores["version"] == BASE].set_index(["symbol", "origin", "step"])["crps"]
    return {
        "targets": len(scores),
        "pending": record.pending,
        "unknown": record.unknown,
        "versions": [
            _version(scores[scores["version"] == name], base.iloc[: 0 if name == BASE else None], seed)
            for name in order
        ],
    }


def recent_coverage(record: TrackRecord, *, days: int, seed: int = 0) -> list[Coverage]:
    """Coverage over the target dates of the last `days` days, per version that has enough of them.

    The band is what the interval says +- 5 points, or +- 4 standard errors where that is wider. The first bar
    and all bars are judged apart: all bars of neighbouring days overlap and need more dates. The base alone
    is judged only where nothing else forecast.
    """
    scores = record.scores
    if scores.empty:
        return []
    recent = scores[scores["date"] > scores["date"].max() - pd.Timedelta(days=days)]
    versions = sorted(set(recent["version"]) - {BASE}) or [BASE]
    judged = []
    for version in versions:
        rows = recent[recent["version"] == version]
        for steps, part in (("1", rows[rows["step"] == 1]), ("all", rows)):
            dates = part["date"].nunique()
            blocks = dates // int(part["step"].max()) if dates else 0
            is_enough = dates >= FEWEST_DATES_TO_JUDGE and blocks >= FEWEST_BLOCKS_TO_JUDGE
            if is_enough and not (steps == "all" and rows["step"].max() == 1):
                judged += [_coverage(part, version, steps, name, blocks, seed) for name in INTERVALS]
    return judged


def _coverage(
    scores: pd.DataFrame, version: str, steps: str, interval: str, blocks: int, seed: int
) -> Coverage:
    found = _mean(scores, f"inside_{interval}", seed, by="date")
    low, high = INTERVALS[interval]
    margin = max(TOLERANCE, ERRORS * _null_error(found, high - low, blocks))
    return Coverage(
        version=version,
        steps=steps,
        interval=interval,
        share=found.mean,
        low=high - low - margin,
        high=high - low + margin,
        targets=len(scores),
        dates=found.dates,
    )


def _null_error(found: DatedMean, expected: float, blocks: int) -> float:
    """The standard error that the share would have if it were what the interval says.

    The bootstrap's own is that of the share found, which vanishes as that nears 0 or 1: it is scaled by the
    deviation of one outcome; where all outcomes were alike, each block of dates counts as one.
    """
    spread, variance = found.mean * (1 - found.mean), expected * (1 - expected)
    if spread == 0:
        return float(np.sqrt(variance / blocks))
    return float((found.high - found.low) / (2 * _NORMAL) * np.sqrt(max(1.0, variance / spread)))


def _version(scores: pd.DataFrame, base: pd.Series, seed: int) -> dict[str, Any]:
    version = str(scores["version"].iloc[0])
    first = scores[scores["step"] == 1]
    counts, _ = np.histogram(first["pit"], bins=PIT_BINS, range=(0.0, 1.0))
    return {
        "version": version,
        "digest": None if version == BASE else scores["digest"].iloc[0],
        "first": f"{scores['date'].min():%Y-%m-%d}",
        "last": f"{scores['date'].max():%Y-%m-%d}",
        "symbols": int(scores["symbol"].nunique()),
        "pit": counts.tolist(),
        "groups": [
            {"by": by, "group": group, "steps": steps, **_figures(part, base, seed)}
            for by, group, rows in _groups(scores)
            for steps, part in (("1", rows[rows["step"] == 1]), ("all", rows))
            if len(part)
        ],
    }


def _groups(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    yield "all", "all", scores
    yield "day", "event", scores[scores["is_event"]]
    yield "day", "quiet", scores[~scores["is_event"]]
    for month, rows in scores.groupby(scores["date"].dt.strftime("%Y-%m")):
        yield "month", str(month), rows


def _figures(scores: pd.DataFrame, base: pd.Series, seed: int) -> dict[str, Any]:
    """Means, and how much lower the CRPS is than a random walk's and the base's on the same targets."""
    keys = pd.MultiIndex.from_frame(scores[["symbol", "origin", "step"]])
    paired = scores.assign(
        over_walk=scores["rw_crps"] - scores["crps"], over_base=base.reindex(keys).to_numpy() - scores["crps"]
    )
    names = ("crps", "width", *(f"inside_{name}" for name in INTERVALS), "over_walk", "over_base")
    return {
        "targets": len(scores),
        "dates": int(scores["date"].nunique()),
        **{name: _known(paired[paired[name].notna()], name, seed) for name in names},
        "rw_crps": float(scores["rw_crps"].mean()),
        "rw_width": float(scores["rw_width"].mean()),
    }


def _known(scores: pd.DataFrame, name: str, seed: int) -> dict[str, Any] | None:
    """The mean with its interval; without it where there are too few dates, None without any target."""
    if scores.empty:
        return None
    found = _mean(scores, name, seed, by="origin")
    overlap = int(scores["step"].max())
    is_enough = found.dates >= max(FEWEST_DATES, FEWEST_BLOCKS * overlap)
    return asdict(found) | ({} if is_enough else {"low": None, "high": None})


def _mean(scores: pd.DataFrame, name: str, seed: int, *, by: str) -> DatedMean:
    """Overlapping forecasts share up to `step` bars, so blocks of dates are at least that long."""
    return mean_over_dates(scores[name], scores[by], seed=seed, shortest_block=int(scores["step"].max()))

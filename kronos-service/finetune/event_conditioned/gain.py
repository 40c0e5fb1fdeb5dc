"""Paired loss differences between two models on the same targets, with a block-bootstrap interval."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much lower `better` is than `reference`, in nats per target (positive: better), with its 95 %
    interval.
    """

    nats: float
    low: float
    high: float
    percent: float
    """Gain as a share of the reference's loss, in percent."""
    targets: int
    dates: int


def paired_gain(reference: pd.DataFrame, better: pd.DataFrame, *, on_event: bool, seed: int = 0) -> Gain:
    """Mean of reference - better total loss over event (or quiet) targets; both as `validate.score`
    returns them.

    The interval is a circular block bootstrap over dates (Politis and Romano, 1992) with blocks of n^(1/3)
    dates (Hall, Horowitz and Jing, 1995): symbols on one day, and neighbouring days, are not independent.
    With few dates it is somewhat too narrow (it covers about 91 times in 100 at 80 dates).
    """
    keys = ["symbol", "date"]
    pairs = reference.merge(better, on=keys, suffixes=("_reference", "_better"), validate="one_to_one")
    if not len(pairs) == len(reference) == len(better):
        raise ValueError(
            f"the two models were scored on different targets: {len(reference)} and {len(better)}"
        )
    pairs = pairs[pairs["is_event_reference"] == on_event]
    pairs = pairs.assign(difference=pairs["total_reference"] - pairs["total_better"])
    by_date = pairs.groupby("date")["difference"].agg(["sum", "count"])
    nats = float(by_date["sum"].sum() / by_date["count"].sum())
    low, high = _interval(by_date["sum"].to_numpy(), by_date["count"].to_numpy(), seed)
    return Gain(
        nats=nats,
        low=low,
        high=high,
        percent=100 * nats / float(pairs["total_reference"].mean()),
        targets=len(pairs),
        dates=len(by_date),
    )


def _interval(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    dates = len(sums)
    block = round(dates ** (1 / 3))
    starts = np.random.default_rng(seed).integers(0, dates, (RESAMPLES, -(-dates // block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % dates).reshape(RESAMPLES, -1)[:, :dates]
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)

"""Means over dates and paired differences between two models, with a block-bootstrap interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_service.events.taxonomy import Taxonomy

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


@dataclass(frozen=True, kw_only=True)
class DatedMean:
    """A mean over rows, with a 95 % interval that treats dates, not rows, as what is drawn."""

    mean: float
    low: float
    high: float
    dates: int


def mean_over_dates(values: pd.Series, dates: pd.Series, *, seed: int, shortest_block: int = 1) -> DatedMean:
    """The mean of the values (n,), which belong to the dates (n,), with its interval.

    The interval is a circular block bootstrap over dates (Politis and Romano, 1992) with blocks of n^(1/3)
    dates (Hall, Horowitz and Jing, 1995) or `shortest_block`: symbols on one day, neighbouring days, and
    forecasts that overlap are not independent. With few dates it is somewhat too narrow (it covers about 91
    times in 100 at 80 dates).
    """
    # bars of a few hours count with all others of their day
    by_date = values.groupby(dates.to_numpy().astype("datetime64[D]")).agg(["sum", "count"])
    sums, counts = by_date["sum"].to_numpy(), by_date["count"].to_numpy()
    block = min(max(round(len(sums) ** (1 / 3)), shortest_block), len(sums))
    low, high = _interval(sums, counts, block, seed)
    return DatedMean(mean=float(sums.sum() / counts.sum()), low=low, high=high, dates=len(sums))


def gain_of(reference: pd.Series, better: pd.Series, dates: pd.Series, *, seed: int = 0) -> Gain:
    """Mean of reference - better over targets (n,) of these dates, with the interval of `mean_over_dates`."""
    gain = mean_over_dates(reference - better, dates, seed=seed)
    return Gain(
        nats=gain.mean,
        low=gain.low,
        high=gain.high,
        percent=100 * gain.mean / float(reference.mean()),
        targets=len(reference),
        dates=gain.dates,
    )


def paired_gain(reference: pd.DataFrame, better: pd.DataFrame, *, on_event: bool, seed: int = 0) -> Gain:
    """Mean of reference - better total loss over event (or quiet) targets, both as `validate.score` returns
    them, with the interval of `mean_over_dates`.
    """
    pairs = _pairs(reference, better)
    return _gain(pairs[pairs["is_event_reference"] == on_event], seed)


def family_gains(
    reference: pd.DataFrame, better: pd.DataFrame, taxonomy: Taxonomy, *, seed: int = 0
) -> dict[str, Gain]:
    """The same over the targets on which each event family has a high-impact event, where it has any."""
    pairs = _pairs(reference, better)
    present = [name for name in taxonomy.families if pairs[f"{name}_reference"].any()]
    return {name: _gain(pairs[pairs[f"{name}_reference"]], seed) for name in present}


def gains_over_control(records: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Gain]:
    """Gains `adapter_event`, `adapter_quiet` and the placebo's; empty where no control was trained."""
    if "control" not in records:
        return {}
    return {
        f"{name}_{group}": paired_gain(records["control"], better, on_event=group == "event", seed=seed)
        for name, better in records.items()
        if name != "control"
        for group in ("event", "quiet")
    }


def _pairs(reference: pd.DataFrame, better: pd.DataFrame) -> pd.DataFrame:
    keys = ["symbol", "date"]
    pairs = reference.merge(better, on=keys, suffixes=("_reference", "_better"), validate="one_to_one")
    if not len(pairs) == len(reference) == len(better):
        raise ValueError(
            f"the two models were scored on different targets: {len(reference)} and {len(better)}"
        )
    return pairs


def _gain(pairs: pd.DataFrame, seed: int) -> Gain:
    return gain_of(pairs["total_reference"], pairs["total_better"], pairs["date"], seed=seed)


def _interval(sums: np.ndarray, counts: np.ndarray, block: int, seed: int) -> tuple[float, float]:
    dates = len(sums)
    starts = np.random.default_rng(seed).integers(0, dates, (RESAMPLES, -(-dates // block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % dates).reshape(RESAMPLES, -1)[:, :dates]
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)

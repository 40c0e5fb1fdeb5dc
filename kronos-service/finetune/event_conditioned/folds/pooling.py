"""What the targets of all folds come to together: gains on tier-1, event and non-event days, and finer.

Seeds are averaged target by target first: they score the same market days, so more of them narrow no interval
that is about days. Every target lies in one fold only, so targets of all folds are simply put together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain, gain_of

Mask = npt.NDArray[np.bool_]

POWER: Final = 0.8
KEYS: Final = ["symbol", "date"]


@dataclass(frozen=True, kw_only=True)
class GroupGain:
    """How much lower a model's loss is than another's on one group of targets."""

    model: str
    over: str
    by: str
    """What the group is one of: day, family, asset_class, year or fold."""
    group: str
    gain: Gain
    detectable: float
    """The smallest true gain in nats whose interval would lie above 0 with a probability of 80 %."""


def mean_over_seeds(seeds: Sequence[pd.DataFrame], taxonomy: Taxonomy) -> pd.DataFrame:
    """One row per target of a fold: its labels, and the total loss of each model averaged over the seeds'
    val_losses.parquet.

    Raises:
        ValueError: the seeds were scored on different targets.
    """
    both = pd.concat(seeds)
    losses = both.pivot_table(index=KEYS, columns="model", values="total", aggfunc=["mean", "size"])
    if (losses["size"] != len(seeds)).to_numpy().any():
        raise ValueError("the seeds were scored on different targets: their data or settings differ")
    labels = both.drop_duplicates(KEYS).set_index(KEYS)[["is_event", *taxonomy.families]]
    return labels.join(losses["mean"]).reset_index().rename_axis(columns=None)


def pool(folds: Mapping[str, pd.DataFrame], asset_class: Mapping[str, str]) -> pd.DataFrame:
    """The targets of all folds, with the columns `asset_class`, `year` and `fold`.

    Raises:
        ValueError: a target lies in two folds.
    """
    every = pd.concat([one.assign(fold=name) for name, one in folds.items()], ignore_index=True)
    twice = every.duplicated(KEYS)
    if twice.any():
        row = every[twice].iloc[0]
        raise ValueError(f"{row.symbol} on {row.date:%Y-%m-%d} is a target of two folds")
    every = every.sort_values(KEYS, ignore_index=True)
    return every.assign(asset_class=every["symbol"].map(asset_class), year=every["date"].dt.year.astype(str))


def pooled_gains(pooled: pd.DataFrame, taxonomy: Taxonomy, *, seed: int = 0) -> list[GroupGain]:
    """The gains of the adapter over control and base, and of the placebo over the control, per group."""
    gains = []
    for model, over in (("adapter", "control"), ("adapter", "base"), ("placebo", "control")):
        if not {model, over} <= set(pooled.columns):
            continue
        for by, group, members in _groups(pooled, taxonomy):
            part = pooled[members]
            if len(part):
                gain = gain_of(part[over], part[model], part["date"], seed=seed)
                row = GroupGain(
                    model=model,
                    over=over,
                    by=by,
                    group=group,
                    gain=gain,
                    detectable=smallest_detectable(gain),
                )
                gains.append(row)
    return gains


def find(gains: Sequence[Mapping[str, Any]], model: str, over: str, group: str) -> Mapping[str, Any] | None:
    """The gain of that name over a group of days among `GroupGain`s as JSON, or None."""
    wanted = (model, over, "day", group)
    return next(
        (one for one in gains if (one["model"], one["over"], one["by"], one["group"]) == wanted), None
    )


def smallest_detectable(gain: Gain) -> float:
    """The gain whose 95 % interval lies above 0 in 80 of 100 samples with an interval of this one's width."""
    normal = NormalDist()
    deviation = (gain.high - gain.low) / (2 * normal.inv_cdf(0.975))
    return (normal.inv_cdf(0.975) + normal.inv_cdf(POWER)) * deviation


def is_tier1(records: pd.DataFrame, taxonomy: Taxonomy) -> Mask:
    """Whether a release of the first tier falls on each target (its family columns say which do)."""
    members: Mask = np.any(records[list(taxonomy.tier1)].to_numpy(dtype=np.bool_), axis=1, keepdims=False)
    return members


def _groups(about: pd.DataFrame, taxonomy: Taxonomy) -> Iterator[tuple[str, str, Mask]]:
    event, tier1 = about["is_event"].to_numpy(dtype=np.bool_), is_tier1(about, taxonomy)
    yield "day", "tier1", tier1
    yield "day", "event", event
    yield "day", "quiet", ~event
    yield "day", "all", np.ones(len(about), dtype=np.bool_)
    for family in taxonomy.families:
        yield "family", family, about[family].to_numpy(dtype=np.bool_)
    for by in ("asset_class", "year", "fold"):
        for name in sorted(about[by].unique()):
            inside = (about[by] == name).to_numpy()
            yield by, name, inside
            yield by, f"{name}, tier 1", inside & tier1

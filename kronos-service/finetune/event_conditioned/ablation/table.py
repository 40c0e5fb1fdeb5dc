"""Figures of an ablation: each variant's loss, and its paired gain over the adapter and over the control.

Seeds are averaged target by target before anything is compared. They score the same targets, so more seeds
do not make more market days: the interval is about the days, given these seeds. (Pooling the rows of all
seeds would give the same interval, as blocks of dates are drawn whole.) How much the seeds differ is shown
beside it, seed by seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain, paired_gain

KEYS = ["symbol", "date"]


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """What the comparison needs of one variant trained from one seed."""

    records: pd.DataFrame
    """Validation losses per target, as `validation.score` gives them."""
    trainable: int
    """Trained parameters."""
    seconds: float


BySeed = Mapping[int, VariantResult]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A variant on event or on non-event targets."""

    loss: float
    """Mean total loss in nats per target."""
    over_adapter: Gain | None
    over_control: Gain | None
    """Positive: the variant is better. None for a comparison with itself, or while the other is missing."""
    by_seed: dict[int, dict[str, float | None]]
    """loss, over_adapter and over_control (nats) of each seed alone."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant, over all its seeds."""

    name: str
    question: str
    seeds: list[int]
    trainable: int
    seconds: float
    """Mean over the seeds, training and validation."""
    event: Comparison
    quiet: Comparison


def table(results: Mapping[str, BySeed], questions: Mapping[str, str]) -> list[Row]:
    """A row for each variant that has finished for at least one seed; results are by variant and seed."""
    return [
        Row(
            name=name,
            question=questions[name],
            seeds=sorted(finished),
            trainable=next(iter(finished.values())).trainable,
            seconds=sum(one.seconds for one in finished.values()) / len(finished),
            event=_compare(name, results, on_event=True),
            quiet=_compare(name, results, on_event=False),
        )
        for name, finished in results.items()
        if finished
    ]


def gain_between(reference: BySeed, better: BySeed, *, on_event: bool) -> Gain | None:
    """Paired gain of one variant over another, over the seeds that both have; None where there are none."""
    seeds = sorted(reference.keys() & better.keys())
    if not seeds:
        return None
    return paired_gain(
        mean_over_seeds([reference[seed].records for seed in seeds]),
        mean_over_seeds([better[seed].records for seed in seeds]),
        on_event=on_event,
    )


def mean_over_seeds(records: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Each target's total loss, averaged over seeds."""
    means = pd.concat(records).groupby(KEYS, sort=True).agg({"is_event": "first", "total": "mean"})
    return means.reset_index()


def _compare(name: str, results: Mapping[str, BySeed], *, on_event: bool) -> Comparison:
    own = results[name]
    others = {f"over_{other}": results.get(other, {}) for other in ("adapter", "control") if other != name}
    gains = {label: gain_between(other, own, on_event=on_event) for label, other in others.items()}
    by_seed = {seed: _one_seed(one.records, seed, others, on_event) for seed, one in sorted(own.items())}
    return Comparison(
        loss=_loss(mean_over_seeds([one.records for one in own.values()]), on_event),
        over_adapter=gains.get("over_adapter"),
        over_control=gains.get("over_control"),
        by_seed=by_seed,
    )


def _one_seed(
    records: pd.DataFrame, seed: int, others: Mapping[str, BySeed], on_event: bool
) -> dict[str, float | None]:
    loss = _loss(records, on_event)
    gains = {
        label: _loss(other[seed].records, on_event) - loss if seed in other else None
        for label, other in others.items()
    }
    return {"loss": loss, **gains}


def _loss(records: pd.DataFrame, on_event: bool) -> float:
    return float(records.loc[records["is_event"] == on_event, "total"].mean())

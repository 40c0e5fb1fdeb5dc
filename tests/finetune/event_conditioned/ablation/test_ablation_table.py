"""Every figure of the table against differences worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from kronos_service.finetune.event_conditioned.ablation.table import VariantResult, gain_between, table
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import paired_gain

DATES = np.datetime64("2025-01-01") + np.arange(6)


def finished(losses: list[list[float]], trainable: int = 10, seconds: float = 2.0) -> VariantResult:
    """Losses (symbols, dates); the first two dates are event days."""
    symbols = len(losses)
    return VariantResult(
        records=pd.DataFrame(
            {
                "symbol": np.repeat([f"S{k}" for k in range(symbols)], len(DATES)),
                "date": np.tile(DATES, symbols),
                "is_event": np.tile(np.arange(len(DATES)) < 2, symbols),
                "total": np.array(losses).ravel(),
            }
        ),
        trainable=trainable,
        seconds=seconds,
    )


# event losses are the first two columns
CONTROL = {0: finished([[5, 7, 3, 3, 3, 3], [6, 6, 3, 3, 3, 3]]), 1: finished([[5, 5, 3, 3, 3, 3]] * 2)}
ADAPTER = {
    0: finished([[4, 4, 2, 2, 2, 2], [4, 4, 2, 2, 2, 2]], seconds=4.0),
    1: finished([[3, 3, 3, 3, 3, 3]] * 2),
}
OTHER = {1: finished([[2, 4, 3, 3, 3, 7]] * 2, trainable=5)}
ROWS = {
    row.name: row
    for row in table(
        {"adapter": ADAPTER, "control": CONTROL, "other": OTHER, "unfinished": {}},
        {"adapter": "a", "control": "c", "other": "o", "unfinished": "u"},
    )
}


def test_only_variants_with_a_finished_training_have_a_row() -> None:
    assert list(ROWS) == ["adapter", "control", "other"]
    assert (ROWS["adapter"].seeds, ROWS["adapter"].seconds) == ([0, 1], 3.0)
    assert (ROWS["other"].seeds, ROWS["other"].trainable, ROWS["other"].question) == ([1], 5, "o")


def test_losses_are_means_over_targets_and_seeds() -> None:
    assert ROWS["adapter"].event.loss == pytest.approx(3.5)
    assert ROWS["control"].event.loss == pytest.approx(5.5)
    assert ROWS["adapter"].quiet.loss == pytest.approx(2.5)


def test_gains_are_mean_paired_differences_over_the_seeds_that_both_have() -> None:
    event, quiet = ROWS["adapter"].event.over_control, ROWS["adapter"].quiet.over_control
    assert event is not None
    assert quiet is not None
    assert event.nats == pytest.approx(2.0)
    assert event.percent == pytest.approx(100 * 2.0 / 5.5)
    assert (event.targets, event.dates) == (4, 2)
    assert quiet.nats == pytest.approx(0.5)
    assert (quiet.targets, quiet.dates) == (8, 4)
    other = ROWS["other"].event.over_adapter
    assert other is not None
    assert other.nats == pytest.approx(0.0)  # seed 1 alone: 3 against (2 + 4) / 2
    assert ROWS["other"].quiet.over_adapter is not None
    assert ROWS["other"].quiet.over_adapter.nats == pytest.approx(-1.0)


def test_a_variant_is_not_compared_with_itself() -> None:
    assert ROWS["adapter"].event.over_adapter is None
    assert ROWS["control"].event.over_control is None
    assert ROWS["control"].event.over_adapter is not None
    assert ROWS["control"].event.over_adapter.nats == pytest.approx(-2.0)


def test_each_seed_alone_is_shown_beside_the_mean() -> None:
    assert ROWS["adapter"].event.by_seed == {
        0: {"loss": 4.0, "over_control": 2.0},
        1: {"loss": 3.0, "over_control": 2.0},
    }
    assert ROWS["other"].event.by_seed == {1: {"loss": 3.0, "over_adapter": 0.0, "over_control": 2.0}}


def test_another_seed_does_not_count_as_more_days() -> None:
    rng = np.random.default_rng(0)
    reference = finished((4 + rng.normal(size=(3, 6))).tolist())
    better = finished((3 + rng.normal(size=(3, 6))).tolist())
    alone = paired_gain(reference.records, better.records, on_event=False)
    twice = gain_between({0: reference, 1: reference}, {0: better, 1: better}, on_event=False)
    assert twice == alone


def test_without_a_common_seed_there_is_no_gain() -> None:
    assert gain_between({0: CONTROL[0]}, {1: ADAPTER[1]}, on_event=True) is None

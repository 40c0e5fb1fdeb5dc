"""Paired gains and their block-bootstrap interval."""

import numpy as np
import pandas as pd
import pytest

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import (
    family_gains,
    gain_of,
    gains_over_control,
    mean_over_dates,
    paired_gain,
)


def records(losses: np.ndarray, is_event: np.ndarray) -> pd.DataFrame:
    dates, symbols = losses.shape
    return pd.DataFrame(
        {
            "symbol": np.tile([f"S{k}" for k in range(symbols)], dates),
            "date": np.repeat(np.datetime64("2024-01-01") + np.arange(dates), symbols),
            "is_event": np.repeat(is_event, symbols),
            "total": losses.ravel(),
        }
    )


def noisy(gain: float, seed: int, dates: int = 120, shared: float = 0.3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    reference = rng.normal(8, 1, (dates, 6))
    difference = gain + shared * rng.normal(size=(dates, 1)) + 0.05 * rng.normal(size=(dates, 6))
    event = np.arange(dates) % 3 == 0
    return records(reference, event), records(reference - difference, event)


def test_the_gain_is_the_mean_difference_over_the_targets_asked_for() -> None:
    reference, better = noisy(0.5, seed=0)
    chosen = reference["is_event"]
    gain = paired_gain(reference, better.sample(frac=1, random_state=0), on_event=True)
    assert gain.nats == pytest.approx((reference["total"] - better["total"])[chosen].mean())
    assert gain.percent == pytest.approx(100 * gain.nats / reference["total"][chosen].mean())
    assert (gain.targets, gain.dates) == (240, 40)
    assert paired_gain(reference, better, on_event=False).targets == 480


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        gain = paired_gain(*noisy(0.1, seed, dates=300), on_event=False, seed=seed)
        hits += gain.low <= 0.1 <= gain.high
    assert 88 <= hits <= 99


def test_the_interval_is_as_wide_as_95_percent_of_a_normal_mean_is() -> None:
    """A 90 % interval has 0.84 of this width, a 99 % one 1.31."""
    widths = []
    for seed in range(20):
        values = pd.Series(np.random.default_rng(seed).normal(size=1000))
        found = mean_over_dates(values, pd.Series(np.datetime64("2020-01-01") + np.arange(1000)), seed=seed)
        widths.append((found.high - found.low) / (2 * 1.96 * values.std() / 1000**0.5))
    assert np.mean(widths) == pytest.approx(1.0, abs=0.05)


def test_neighbouring_dates_that_move_together_widen_the_interval() -> None:
    """The same values in a random order have no memory; a bootstrap without blocks sees none in either."""
    rng = np.random.default_rng(0)
    values = np.convolve(rng.normal(size=1019), np.ones(20), mode="valid")
    dates = pd.Series(np.datetime64("2020-01-01") + np.arange(1000))
    together, apart = (
        mean_over_dates(pd.Series(one), dates, seed=0) for one in (values, rng.permutation(values))
    )
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_resample_is_as_long_as_the_data_and_a_block_may_run_past_its_end() -> None:
    """Five dates, of which the last counts 1, in blocks of four: a resample's mean is a number of fifths, and
    blocks that stopped at the end would all be the same.
    """
    values, dates = pd.Series([0.0, 0, 0, 0, 1]), pd.Series(np.datetime64("2020-01-01") + np.arange(5))
    found = mean_over_dates(values, dates, seed=0, shortest_block=4)
    assert found.low < found.mean < found.high
    assert [5 * one for one in (found.low, found.high)] == pytest.approx(
        [round(5 * one) for one in (found.low, found.high)]
    )


def test_a_date_counts_as_often_as_it_has_rows() -> None:
    """Ten dates of 99 rows and ten of one row."""
    dates = np.repeat(np.datetime64("2020-01-01") + np.arange(20), [99, 1] * 10)
    values = pd.Series((np.arange(20) % 2 == 0).repeat([99, 1] * 10).astype(float))
    found = mean_over_dates(values, pd.Series(dates), seed=0)
    assert found.mean == pytest.approx(0.99)
    assert found.low > 0.95


def test_the_seed_draws_the_interval_and_nothing_else() -> None:
    reference, better = noisy(0.1, seed=0)
    first, again, other = (paired_gain(reference, better, on_event=False, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.nats == other.nats


def test_symbols_of_one_day_do_not_count_as_independent() -> None:
    together = paired_gain(*noisy(0.1, seed=1, shared=0.3), on_event=False)
    apart = paired_gain(*noisy(0.1, seed=1, shared=0.0), on_event=False)
    assert together.high - together.low > 4 * (apart.high - apart.low)


def test_models_scored_on_different_targets_are_not_compared() -> None:
    reference, better = noisy(0.1, seed=0)
    with pytest.raises(ValueError, match="different targets"):
        paired_gain(reference, better.iloc[1:], on_event=True)


def test_the_gain_of_a_family_is_over_its_own_targets() -> None:
    """The first 60 dates have CPI releases; GDP has one date, the others none."""
    reference, better = noisy(0.5, seed=0)
    late = reference["date"] >= np.datetime64("2024-01-01") + 60
    marks = dict.fromkeys(DEFAULT_TAXONOMY.families, False) | {
        "cpi": ~late,
        "gdp": reference["date"] == "2024-04-01",
    }
    found = family_gains(reference.assign(**marks), better.assign(**marks), DEFAULT_TAXONOMY)
    assert set(found) == {"cpi", "gdp"}
    difference = reference["total"] - better["total"]
    assert found["cpi"].nats == pytest.approx(difference[~late].mean())
    assert (found["cpi"].targets, found["cpi"].dates) == (360, 60)
    assert (found["gdp"].targets, found["gdp"].dates) == (6, 1)


def test_forecasts_that_overlap_widen_the_interval_by_their_blocks() -> None:
    """A moving sum over ten days: blocks of n^(1/3) = 7 dates see less of its memory than blocks of 40."""
    rng = np.random.default_rng(0)
    values = pd.Series(np.convolve(rng.normal(size=409), np.ones(10), mode="valid"))
    dates = pd.Series(np.datetime64("2024-01-01") + np.arange(400))
    short, long = (mean_over_dates(values, dates, seed=0, shortest_block=size) for size in (1, 40))
    assert short.mean == long.mean == pytest.approx(values.mean())
    assert long.high - long.low > 1.1 * (short.high - short.low)


def test_blocks_have_as_many_dates_as_the_cube_root_of_all() -> None:
    values = pd.Series(np.random.default_rng(0).normal(size=1000))
    dates = pd.Series(np.datetime64("2020-01-01") + np.arange(1000))
    usual = mean_over_dates(values, dates, seed=0)
    assert usual == mean_over_dates(values, dates, seed=0, shortest_block=10)
    assert usual != mean_over_dates(values, dates, seed=0, shortest_block=11)


def test_few_dates_are_drawn_one_by_one() -> None:
    """Of two dates a resample may hold either one alone."""
    two = pd.Series(np.datetime64("2020-01-01") + np.arange(2))
    found = mean_over_dates(pd.Series([0.0, 1.0]), two, seed=0)
    assert (found.low, found.mean, found.high, found.dates) == (0.0, 0.5, 1.0, 2)


def test_a_day_counts_once_however_many_bars_it_has() -> None:
    hours = pd.Series(np.datetime64("2020-01-01T00") + np.arange(48))
    assert mean_over_dates(pd.Series(np.arange(48.0)), hours, seed=0).dates == 2


def test_gains_over_the_control_are_of_each_model_that_has_one() -> None:
    control, adapter = noisy(0.5, seed=0)
    placebo = control.assign(total=control["total"] - 0.1)
    found = gains_over_control({"control": control, "adapter": adapter, "placebo": placebo}, seed=3)
    assert found == {
        f"{name}_{group}": paired_gain(control, one, on_event=group == "event", seed=3)
        for name, one in (("adapter", adapter), ("placebo", placebo))
        for group in ("event", "quiet")
    }
    assert gains_over_control({"adapter": adapter, "placebo": placebo}, seed=3) == {}


def test_what_is_drawn_without_a_seed_is_drawn_by_seed_0() -> None:
    reference, better = noisy(0.5, seed=0)
    total, other, dates = reference["total"], better["total"], reference["date"]
    assert paired_gain(reference, better, on_event=True) == paired_gain(
        reference, better, on_event=True, seed=0
    )
    assert gain_of(total, other, dates) == gain_of(total, other, dates, seed=0)
    marks = dict.fromkeys(DEFAULT_TAXONOMY.families, reference["is_event"])
    pair = reference.assign(**marks), better.assign(**marks)
    assert family_gains(*pair, DEFAULT_TAXONOMY) == family_gains(*pair, DEFAULT_TAXONOMY, seed=0)


def test_a_target_that_comes_twice_is_not_compared() -> None:
    reference, better = noisy(0.1, seed=0)
    twice = pd.concat([reference, reference.iloc[:1]])
    with pytest.raises(ValueError, match=r"one-to-one|different targets"):
        paired_gain(twice, better, on_event=True)

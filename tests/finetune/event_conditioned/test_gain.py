"""Paired gains and their block-bootstrap interval."""

import numpy as np
import pandas as pd
import pytest

from kronos_service.finetune.event_conditioned.gain import paired_gain


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
        gain = paired_gain(*noisy(0.1, seed, dates=600), on_event=False, seed=seed)
        hits += gain.low <= 0.1 <= gain.high
    assert 88 <= hits <= 99


def test_symbols_of_one_day_do_not_count_as_independent() -> None:
    together = paired_gain(*noisy(0.1, seed=1, shared=0.3), on_event=False)
    apart = paired_gain(*noisy(0.1, seed=1, shared=0.0), on_event=False)
    assert together.high - together.low > 4 * (apart.high - apart.low)


def test_models_scored_on_different_targets_are_not_compared() -> None:
    reference, better = noisy(0.1, seed=0)
    with pytest.raises(ValueError, match="different targets"):
        paired_gain(reference, better.iloc[1:], on_event=True)

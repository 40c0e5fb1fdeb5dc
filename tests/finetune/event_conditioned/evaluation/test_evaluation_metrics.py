"""Scores against closed forms, brute force and hand-made cases."""

from math import pi, sqrt

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kronos_service.finetune.event_conditioned.evaluation.metrics import (
    crps_samples,
    judge_quantiles,
    score_normal,
    score_samples,
)
from kronos_shared.quantiles import LEVELS, quantile_name

Floats = npt.NDArray[np.float64]


def at(value: float) -> Floats:
    return np.array([[value]])


def one(samples: list[float], outcome: float) -> float:
    return float(crps_samples(np.array(samples)[None, :, None], at(outcome))[0, 0])


@given(
    samples=hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-5, 5)),
    outcome=st.floats(-5, 5),
)
def test_crps_of_samples_is_its_definition(samples: Floats, outcome: float) -> None:
    """Mean distance to the outcome less half the mean distance between two different samples."""
    m = len(samples)
    apart = sum(abs(samples[i] - samples[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    expected = float(np.abs(samples - outcome).mean()) - apart / 2
    assert one(samples.tolist(), outcome) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("outcome", [-2.5, 0.0, 0.3, 4.0])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_crps_of_a_normal_is_the_integral_of_its_definition(outcome: float, sigma: float) -> None:
    """CRPS = integral of (F(x) - 1[x >= y])^2, summed on a fine grid."""
    x = np.linspace(-30, 30, 600_001)
    density = np.exp(-((x / sigma) ** 2) / 2) / (sigma * sqrt(2 * pi))
    below = np.cumsum(density) * (x[1] - x[0])
    expected = ((below - (x >= outcome)) ** 2).sum() * (x[1] - x[0])
    got = score_normal(at(sigma), at(outcome))["crps"][0, 0]
    assert got == pytest.approx(expected, abs=2e-4)


def test_crps_of_few_samples_is_fair() -> None:
    """Averaged over draws of five, it is the normal's CRPS; without the correction it would be 12 % more."""
    rng = np.random.default_rng(0)
    outcome = rng.normal(size=(40_000, 1))
    mean = crps_samples(rng.normal(size=(40_000, 5, 1)), outcome).mean()
    exact = score_normal(np.ones_like(outcome), outcome)["crps"].mean()
    assert mean == pytest.approx(exact, rel=0.02)
    assert exact == pytest.approx(1 / sqrt(pi), rel=0.02)


def test_the_truth_scores_better_than_what_is_too_narrow_too_wide_or_beside_it() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.normal(size=(20_000, 1))
    truth = score_normal(np.ones_like(outcome), outcome)["crps"].mean()
    for sigma, mean in ((0.6, 0.0), (1.6, 0.0), (1.0, 0.4)):
        assert score_normal(np.full_like(outcome, sigma), outcome, mean)["crps"].mean() > truth + 0.01


def test_a_point_forecast_scores_its_absolute_error_and_has_no_interval() -> None:
    assert score_normal(at(0.0), at(-0.3), mean=0.5)["crps"][0, 0] == pytest.approx(0.8)
    columns = score_normal(at(0.0), at(-0.3))
    judged = judge_quantiles(columns, at(-0.3))
    assert columns["crps"][0, 0] == pytest.approx(0.3)
    assert np.isnan(columns["pit"][0, 0])
    assert np.isnan(judged["inside_90"][0, 0])
    assert np.isnan(judged["hit"][0, 0])
    assert judged["pinball_90"][0, 0] == pytest.approx(0.1 * 0.3)
    assert judged["pinball_10"][0, 0] == pytest.approx(0.9 * 0.3)


@pytest.mark.parametrize("paths", [20, 64])
def test_quantiles_of_calibrated_samples_have_their_share_below(paths: int) -> None:
    """However few the paths: the 5 % quantile of 20 has 5 % below it, not 7 %."""
    rng = np.random.default_rng(2)
    outcome = rng.normal(size=(20_000, 1))
    columns = score_samples(rng.normal(size=(20_000, paths, 1)), outcome, rng)
    for level in LEVELS:
        share = (outcome < columns[quantile_name(level)]).mean()
        assert share == pytest.approx(level, abs=0.008)
    judged = judge_quantiles(columns, outcome)
    for width in (50, 80, 90):
        assert judged[f"inside_{width}"].mean() == pytest.approx(width / 100, abs=0.01)


def test_pit_is_uniform_for_calibrated_samples_ties_included() -> None:
    """Rounded to whole numbers, most outcomes tie with several samples."""
    rng = np.random.default_rng(3)
    outcome = rng.normal(size=(20_000, 1)).round()
    pit = score_samples(rng.normal(size=(20_000, 19, 1)).round(), outcome, rng)["pit"]
    counts, _ = np.histogram(pit, bins=10, range=(0, 1))
    assert counts == pytest.approx(2000, rel=0.1)
    assert pit.min() > 0
    assert pit.max() < 1


def test_too_narrow_a_forecast_covers_too_little_and_its_pit_piles_up_at_the_ends() -> None:
    rng = np.random.default_rng(4)
    outcome = rng.normal(size=(5_000, 1))
    columns = score_samples(rng.normal(0, 0.5, size=(5_000, 64, 1)), outcome, rng)
    counts, _ = np.histogram(columns["pit"], bins=10, range=(0, 1))
    assert judge_quantiles(columns, outcome)["inside_80"].mean() < 0.55
    assert min(counts[0], counts[-1]) > 2 * max(counts[4], counts[5])


def test_pinball_inside_and_direction_by_hand() -> None:
    """21 samples 0, 1, .. 20: quantile p is at 22 p - 1."""
    samples = np.arange(21.0)[None, :, None]
    columns = score_samples(samples, at(18.0), np.random.default_rng(0))
    judged = judge_quantiles(columns, at(18.0))
    assert columns["q50"][0, 0] == pytest.approx(10)
    assert columns["q90"][0, 0] == pytest.approx(18.8)
    assert columns["spread"][0, 0] == pytest.approx(np.arange(21).std(ddof=1))
    assert judged["pinball_50"][0, 0] == pytest.approx(0.5 * 8)
    assert judged["pinball_90"][0, 0] == pytest.approx(0.1 * 0.8)
    assert judged["pinball_25"][0, 0] == pytest.approx(0.25 * (18 - 4.5))
    assert [judged[f"inside_{width}"][0, 0] for width in (50, 80, 90)] == [0.0, 1.0, 1.0]
    assert judged["hit"][0, 0] == 1.0
    assert judge_quantiles(columns, at(-1.0))["hit"][0, 0] == 0.0
    assert np.isnan(judge_quantiles(columns, at(0.0))["hit"][0, 0])

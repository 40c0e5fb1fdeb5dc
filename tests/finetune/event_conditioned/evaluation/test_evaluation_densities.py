"""Forecasts in closed form: densities against torch's, quantiles against a normal's own CRPS."""

from math import log, pi

import numpy as np
import pytest
import torch

from kronos_service.finetune.event_conditioned.evaluation.densities import (
    GRID,
    NORMAL,
    NextBar,
    Student,
    fit_shape,
    fit_student,
    score_next_bar,
)
from kronos_service.finetune.event_conditioned.evaluation.metrics import (
    crps_quantiles,
    qlike,
    score_normal,
)


def test_the_student_density_is_torchs() -> None:
    values = np.linspace(-6, 6, 50)
    torchs = torch.distributions.StudentT(5.0, 0.3, 1.7)
    other = torchs.log_prob(torch.from_numpy(values))  # type: ignore[no-untyped-call]
    mine = Student(location=0.3, scale=1.7, degrees=5.0).log_density(values)
    np.testing.assert_allclose(mine, other.numpy(), rtol=1e-6)


def test_the_fit_finds_the_distribution_it_was_given() -> None:
    draws = 0.2 + 0.5 * np.random.default_rng(0).standard_t(4, 20_000)
    found = fit_student(draws)
    assert found.degrees == 4.0
    assert found.location == pytest.approx(0.2, abs=0.02)
    assert found.scale == pytest.approx(0.5, abs=0.02)
    assert fit_student(np.random.default_rng(0).normal(size=20_000)).degrees >= 30


def test_a_shape_keeps_the_quantiles_of_its_residuals() -> None:
    draws = np.random.default_rng(1).exponential(size=5_000)
    shape = fit_shape(draws)
    shares = (draws[:, None] <= shape.quantiles).mean(axis=0)
    np.testing.assert_allclose(shares, GRID, atol=1e-3)


def test_the_crps_of_quantiles_is_that_of_the_distribution_they_stand_for() -> None:
    outcome = np.linspace(-3, 3, 25)
    exact = score_normal(np.ones((25, 1)), outcome[:, None])["crps"][:, 0]
    mine = crps_quantiles(np.tile(NORMAL.quantiles, (25, 1)), outcome, GRID)
    np.testing.assert_allclose(mine, exact, rtol=1e-3)


def test_qlike_is_least_at_the_truth_and_says_nothing_without_a_variance() -> None:
    realized = np.full(3, 2.0)
    assert qlike(np.array([2.0, 1.0, 4.0]), realized).tolist() == pytest.approx(
        [0.0, 1 - log(2), log(2) - 0.5]
    )
    assert np.isnan(qlike(np.array([0.0, 1.0]), np.array([1.0, 0.0]))).all()


def next_bar(return_scale: float, range_scale: float) -> NextBar:
    return NextBar(
        return_center=np.array([0.01]),
        return_scale=np.array([return_scale]),
        return_shape=NORMAL,
        return_square=np.array([return_scale**2]),
        range_center=np.array([-4.0]),
        range_scale=range_scale,
        range_quantiles=NORMAL.quantiles,
        range_square=np.array([np.exp(-8.0)]),
    )


def test_scores_of_a_normal_forecast_by_hand() -> None:
    scores = score_next_bar(next_bar(0.02, 0.4), np.array([0.03]), np.array([-3.8]))
    assert scores["return_log_score"][0] == pytest.approx(-log(0.02) - log(2 * pi) / 2 - 0.5)
    assert scores["range_log_score"][0] == pytest.approx(-log(0.4) - log(2 * pi) / 2 - 0.125)
    assert scores["return_qlike"][0] == pytest.approx(2.25 - log(2.25) - 1)
    assert scores["range_qlike"][0] == pytest.approx(np.exp(0.4) - 0.4 - 1)
    exact = score_normal(np.array([[0.4]]), np.array([[0.2]]))["crps"][0, 0]
    assert scores["range_crps"][0] == pytest.approx(exact, rel=1e-3)


def test_a_point_forecast_has_an_error_and_no_density() -> None:
    scores = score_next_bar(next_bar(0.0, 0.0), np.array([0.03]), np.array([-3.8]))
    assert scores["return_crps"][0] == pytest.approx(0.02)
    assert scores["range_crps"][0] == pytest.approx(0.2)
    for name in ("return_log_score", "range_log_score", "return_qlike"):
        assert np.isnan(scores[name]).all()

"""Yardsticks are fitted on a training window only, and say the next bar of the targets that models have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log, pi

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation import garch, yardsticks
from kronos_service.finetune.event_conditioned.evaluation.garch import Parameters, fit_garch
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import (
    SCORES,
    YARDSTICKS,
    Yardsticks,
    fit_yardsticks,
    outcomes,
    score_yardsticks,
    target_bars,
)
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_shared.normalization import Floats

TRAIN = (np.datetime64("2021-06-01"), np.datetime64("2022-05-31"))
FOLD = (np.datetime64("2022-06-01"), np.datetime64("2022-09-30"))


@pytest.fixture(scope="module")
def series(market: Snapshot) -> list[Series]:
    return build_series(market)


@pytest.fixture(scope="module")
def fitted(market: Snapshot, series: list[Series]) -> Yardsticks:
    return fit_yardsticks(market, series, first=TRAIN[0], last=TRAIN[1])


@pytest.fixture(scope="module")
def scores(fitted: Yardsticks, series: list[Series]) -> pd.DataFrame:
    return score_yardsticks(fitted, series, first=FOLD[0], last=FOLD[1])


def test_each_yardstick_says_every_target_of_the_split_once(scores: pd.DataFrame, splits: Splits) -> None:
    dataset = splits.dataset("val")
    wanted = {
        (one.symbol, one.dates[bar])
        for window in dataset.windows
        for one in (dataset.series[window.series],)
        for bar in range(window.first_target, window.stop)
        if one.follows[bar]
    }
    assert set(scores["model"]) == set(YARDSTICKS)
    for _, frame in scores.groupby("model"):
        found = list(zip(frame["symbol"], frame["date"].to_numpy().astype("datetime64[D]"), strict=True))
        assert len(found) == len(wanted)
        assert set(found) == wanted


def test_only_persistence_lacks_a_density(scores: pd.DataFrame) -> None:
    known = scores.groupby("model")[list(SCORES)].count() > 0
    point = ["return_log_score", "range_log_score", "return_qlike"]
    assert not known.loc["persistence", point].any()
    assert known.drop("persistence").all(axis=None)


def test_the_planted_events_are_found(fitted: Yardsticks, scores: pd.DataFrame) -> None:
    """On tier-1 days the sample market's bars are wider, and only har_events foresees it."""
    assert fitted.panels["har"]["us_equity"].coefficients[-1] == 0
    assert fitted.panels["har_events"]["us_equity"].coefficients[-1] > 0.3
    tier1 = scores[scores["tier1"]]
    har, har_events = (
        tier1[tier1["model"] == name].mean(numeric_only=True) for name in ("har", "har_events")
    )
    assert har_events["range_log_score"] > har["range_log_score"] + 0.5
    assert har_events["range_crps"] < har["range_crps"]
    assert har_events["return_crps"] < har["return_crps"]


def with_another_future(
    snapshot: Snapshot, series: Sequence[Series], after: np.datetime64
) -> tuple[Snapshot, list[Series]]:
    """Bars dated later than `after` have other prices, those of the leaders too."""
    rng = np.random.default_rng(7)
    bars = snapshot.bars.copy()
    late = (bars["ts"].dt.tz_localize(None) > pd.Timestamp(after)).to_numpy()
    prices = ["open", "high", "low", "close"]
    bars.loc[late, prices] *= np.exp(rng.normal(0, 0.3, (late.sum(), 4)))
    changed = []
    for one in series:
        features = one.features.copy()
        rows = one.dates > after
        features[rows] *= np.exp(rng.normal(0, 0.3, (rows.sum(), 6)))
        changed.append(replace(one, features=features))
    return replace(snapshot, bars=bars), changed


def coefficients(fitted: Yardsticks) -> list[bytes]:
    """Every number that was fitted."""
    panels = [panel for panels in fitted.panels.values() for panel in panels.values()]
    found = [np.array([*one.coefficients, one.deviation, *one.level.values()]).tobytes() for one in panels]
    found += [one.return_shape.quantiles.tobytes() for one in panels]
    walks = [(one.parameters, one.range_center, one.range_scale) for one in fitted.garch.values()]
    return [*found, repr(walks).encode()]


def assert_blind_to_the_fold(snapshot: Snapshot, series: list[Series]) -> None:
    other = with_another_future(snapshot, series, TRAIN[1])
    first = fit_yardsticks(snapshot, series, first=TRAIN[0], last=TRAIN[1])
    second = fit_yardsticks(*other, first=TRAIN[0], last=TRAIN[1])
    assert coefficients(first) == coefficients(second), "a yardstick was fitted on the fold"


def test_nothing_after_the_training_window_moves_a_coefficient(
    market: Snapshot, series: list[Series]
) -> None:
    assert_blind_to_the_fold(market, series)


def test_a_fit_that_reaches_into_the_fold_is_caught(
    market: Snapshot, series: list[Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reaching(
        series: Sequence[Series], *, first: np.datetime64, last: np.datetime64, covers: np.datetime64
    ) -> Mapping[int, yardsticks.Bars]:
        return target_bars(series, first=first, last=last + np.timedelta64(20, "D"), covers=covers)

    monkeypatch.setattr(yardsticks, "target_bars", reaching)
    with pytest.raises(AssertionError, match="fitted on the fold"):
        assert_blind_to_the_fold(market, series)


def test_no_forecast_changes_when_later_bars_do(
    market: Snapshot, series: list[Series], scores: pd.DataFrame
) -> None:
    """Scores up to a day in the middle of the fold are the same bits whatever comes after it."""
    middle = np.datetime64("2022-07-29")
    snapshot, changed = with_another_future(market, series, middle)
    again = fit_yardsticks(snapshot, changed, first=TRAIN[0], last=TRAIN[1])
    other = score_yardsticks(again, changed, first=FOLD[0], last=FOLD[1])
    early = scores["date"] <= middle
    pd.testing.assert_frame_equal(scores[early], other[early], check_exact=True)
    assert not scores[~early]["range_crps"].equals(other[~early]["range_crps"])


def test_the_random_walk_by_hand(scores: pd.DataFrame, series: list[Series]) -> None:
    row = scores[scores["model"] == "random_walk"].iloc[5]
    one = next(one for one in series if one.symbol == row["symbol"])
    bar = int(np.searchsorted(one.dates, np.datetime64(row["date"], "D")))
    log_return, log_range = outcomes(one)
    deviation = log_return[bar - 20 : bar].std(ddof=1)
    z = log_return[bar] / deviation
    assert row["return_log_score"] == pytest.approx(-z * z / 2 - log(2 * pi) / 2 - log(deviation))
    u = (log_range[bar] - log(deviation) - 0.43) / 0.29
    assert row["range_log_score"] == pytest.approx(-u * u / 2 - log(2 * pi) / 2 - log(0.29))


def test_a_calendar_that_ends_leaves_targets_out(fitted: Yardsticks, series: list[Series]) -> None:
    short = replace(fitted, covers=np.datetime64("2022-08-31"))
    found = score_yardsticks(short, series, first=FOLD[0], last=FOLD[1])
    assert found["date"].max() == pd.Timestamp("2022-08-31")


def simulated(bars: int) -> tuple[Floats, Floats]:
    """Log returns and log ranges of a GARCH whose parameters are known, in percent: 0.05, 0.1, 0.85, t(6)."""
    rng = np.random.default_rng(4)
    draws = rng.standard_t(6, bars) * np.sqrt(4 / 6)
    returns, variance = np.zeros(bars), 1.0
    ranges = np.zeros(bars)
    for bar in range(bars):
        returns[bar] = np.sqrt(variance) * draws[bar] / 100
        ranges[bar] = log(np.sqrt(variance) / 100) + 0.4 + 0.3 * rng.normal()
        variance = 0.05 + 0.1 * (100 * returns[bar]) ** 2 + 0.85 * variance
    return returns, ranges


def test_garch_finds_its_parameters_and_foresees_from_earlier_bars() -> None:
    returns, ranges = simulated(13_000)
    fit = fit_garch(returns, ranges, np.arange(12_000))
    assert fit is not None
    assert fit.parameters.alpha == pytest.approx(0.1, abs=0.03)
    assert fit.parameters.beta == pytest.approx(0.85, abs=0.05)
    assert (fit.range_center, fit.range_scale) == pytest.approx((0.4, 0.3), abs=0.05)
    whole = fit.parameters.deviations(returns)
    other = returns.copy()
    other[12_500:] *= 3
    np.testing.assert_array_equal(fit.parameters.deviations(other)[:12_501], whole[:12_501])
    assert fit.parameters.deviations(other)[12_501] != whole[12_501]


def test_the_recursion_by_hand() -> None:
    parameters = Parameters(mean=0.1, omega=0.2, alpha=0.3, beta=0.4, start=2.0)
    found = 100 * parameters.deviations(np.array([0.011, -0.02, 0.0]))
    second = 0.2 + 0.3 * 1.0**2 + 0.4 * 2.0
    third = 0.2 + 0.3 * 2.1**2 + 0.4 * second
    assert found.tolist() == pytest.approx(np.sqrt([2.0, second, third]).tolist())


def test_too_few_bars_and_a_missing_library_are_said(
    market: Snapshot, series: list[Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = fit_yardsticks(market, series, first=np.datetime64("2022-01-03"), last=TRAIN[1])
    assert short.garch == {}
    assert "fewer than 250 training bars" in short.not_measured["garch"]
    monkeypatch.setattr(garch, "find_spec", lambda name: None)
    without = fit_yardsticks(market, series, first=TRAIN[0], last=TRAIN[1])
    assert without.not_measured == {"garch": "arch is not installed: pip install 'kronos-events[yardsticks]'"}
    found = score_yardsticks(without, series, first=FOLD[0], last=FOLD[1])
    assert set(found["model"]) == set(YARDSTICKS) - {"garch"}

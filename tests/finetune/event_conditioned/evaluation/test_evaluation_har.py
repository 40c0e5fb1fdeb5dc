"""The regression of the next bar's range: its terms by hand, what it may know, and what it finds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.sessions import locate, session_dates, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation import har
from kronos_service.finetune.event_conditioned.evaluation.har import (
    EVENT,
    PanelRows,
    fit_panel,
    log_true_range,
    read_market,
    regressors,
)
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series

VIX, VIX_CHANGE, SPY_RETURN, SPY_RANGE = range(4, 8)


@pytest.fixture(scope="module")
def all_classes(market: Snapshot) -> Snapshot:
    """Two equities and every leader, all tradable."""
    chosen = market.symbols["symbol"].isin(["SYN01", "SPY", "BTCUSDT", "DXY", "VIX"])
    symbols = market.symbols[chosen].assign(tradable=True).reset_index(drop=True)
    bars = market.bars[market.bars["symbol"].isin(symbols["symbol"])].reset_index(drop=True)
    return replace(market, symbols=symbols, bars=bars)


@pytest.fixture(scope="module")
def series(all_classes: Snapshot) -> list[Series]:
    return build_series(all_classes)


def test_the_true_range_reaches_back_to_the_close_before() -> None:
    features = np.ones((3, 6))
    features[:, 1], features[:, 2], features[:, 3] = [110, 130, 100], [100, 120, 90], [105, 125, 95]
    np.testing.assert_allclose(np.exp(log_true_range(features)), np.log([1.1, 130 / 105, 125 / 90]))
    assert log_true_range(np.ones((2, 6))).tolist() == [np.log(1e-4)] * 2


def test_the_terms_by_hand(all_classes: Snapshot, series: list[Series]) -> None:
    """An equity's row at bar 300: at 17:00 New York, VIX and SPY of the day have closed."""
    one = next(one for one in series if one.symbol == "SYN01")
    row = regressors(one, read_market(all_classes))[300]
    own = log_true_range(one.features)
    assert row[:4].tolist() == pytest.approx([own[301 - k : 301].mean() for k in (1, 5, 22, 66)])
    day = pd.Timestamp(one.dates[300], tz="UTC")
    vix, spy = (
        all_classes.bars[(all_classes.bars["symbol"] == name) & (all_classes.bars["ts"] <= day)].tail(2)
        for name in ("VIX", "SPY")
    )
    before, last = np.log(vix["close"].to_numpy())
    assert row[[VIX, VIX_CHANGE]].tolist() == pytest.approx([last, last - before])
    previous, close = spy["close"].to_numpy()
    high, low = spy["high"].iloc[1], spy["low"].iloc[1]
    assert row[SPY_RETURN] == pytest.approx(np.log(close / previous))
    assert row[SPY_RANGE] == pytest.approx(np.log(np.log(max(high, previous) / min(low, previous))))
    assert row[8:15].tolist() == np.eye(7)[pd.Timestamp(one.dates[301]).day_of_week].tolist()


def test_the_dummy_marks_the_bar_before_a_tier_1_event(all_classes: Snapshot, series: list[Series]) -> None:
    one = next(one for one in series if one.symbol == "SYN01")
    dummy = regressors(one, read_market(all_classes))[:-1, EVENT]
    marks = one.families[:, [DEFAULT_TAXONOMY.families.index(name) for name in ("fomc_rate", "cpi", "nfp")]]
    np.testing.assert_array_equal(dummy[70:], marks[71:].max(axis=1))
    assert 0 < dummy.sum() < one.is_event.sum()


def scramble_leaders(snapshot: Snapshot, as_of: np.datetime64, rng: np.random.Generator) -> Snapshot:
    """The VIX and SPY bars that close after `as_of` are others."""
    bars = snapshot.bars.copy()
    for name, asset_class in (("VIX", "index"), ("SPY", "us_equity")):
        rows = bars.index[bars["symbol"] == name]
        days = session_dates(bars.loc[rows, "ts"])
        table = sessions(asset_class, days[0].item(), days[-1].item())
        future = rows[table.closes[locate(table, days)] > as_of]
        factor = np.exp(rng.normal(0, 0.3, (len(future), 4)))
        bars.loc[future, ["open", "high", "low", "close"]] *= factor
    return replace(snapshot, bars=bars)


def assert_no_leak(snapshot: Snapshot, series: list[Series], number: int, bar: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = series[number % len(series)]
    bar %= len(one.dates)
    table = sessions(one.asset_class, one.dates[0].item(), one.dates[-1].item())
    as_of = table.as_of[np.searchsorted(table.dates, one.dates[bar])]
    features = one.features.copy()
    features[bar + 1 :] *= np.exp(rng.normal(0, 0.3, features[bar + 1 :].shape))
    other = replace(one, features=features, is_event=~one.is_event, families=~one.families)
    before = regressors(one, read_market(snapshot))[: bar + 1]
    after = regressors(other, read_market(scramble_leaders(snapshot, as_of, rng)))[: bar + 1]
    assert before.tobytes() == after.tobytes(), "a regressor knows what came after as_of"


@given(number=st.integers(0, 9), bar=st.integers(0, 9999), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_regressor_changes_when_its_future_does(
    all_classes: Snapshot, series: list[Series], number: int, bar: int, seed: int
) -> None:
    """Of every asset class: own bars, labels, and VIX and SPY bars that close after as_of are others."""
    assert_no_leak(all_classes, series, number, bar, seed)


def one_bar_ahead(leader: Any, as_of: Any) -> Any:
    return np.minimum(np.searchsorted(leader.closed_at, as_of, side="right") + 1, len(leader.closed_at))


def centred_mean(values: Any, length: int) -> Any:
    return pd.Series(values).rolling(length, min_periods=1, center=True).mean().to_numpy()


def assert_no_leak_in_draws(snapshot: Snapshot, series: list[Series]) -> None:
    for seed in range(30):
        assert_no_leak(snapshot, series, seed, 37 * seed + 100, seed)


@pytest.mark.parametrize(("seam", "leak"), [("usable_bars", one_bar_ahead), ("_trailing_mean", centred_mean)])
def test_a_planted_leak_is_caught(
    all_classes: Snapshot,
    series: list[Series],
    monkeypatch: pytest.MonkeyPatch,
    seam: str,
    leak: Callable[..., Any],
) -> None:
    monkeypatch.setattr(har, seam, leak)
    with pytest.raises(AssertionError, match="knows what came after as_of"):
        assert_no_leak_in_draws(all_classes, series)


def panel_rows(effect: float) -> PanelRows:
    """Three symbols with levels of their own, 200 targets each; the third has none."""
    rng = np.random.default_rng(0)
    symbol = np.repeat([0, 1], 200)
    rows = rng.normal(size=(400, 3))
    rows[:, EVENT] = rng.random(400) < 0.2
    noise = 0.1 * rng.normal(size=400)
    log_range = np.array([-4.0, -3.0])[symbol] + rows @ np.array([0.4, -0.2, effect]) + noise
    return PanelRows(
        symbols=["A", "B", "C"],
        symbol=symbol,
        rows=rows,
        log_range=log_range,
        log_return=np.exp(log_range) * rng.normal(size=400),
    )


def test_the_fit_finds_coefficients_levels_and_the_event() -> None:
    rows = panel_rows(effect=0.5)
    fit = fit_panel(rows, events=True)
    assert fit.coefficients.tolist() == pytest.approx([0.4, -0.2, 0.5], abs=0.03)
    assert fit.level == pytest.approx({"A": -4.0, "B": -3.0}, abs=0.03)
    assert fit.other_level == pytest.approx(-3.5, abs=0.03)
    assert fit.deviation == pytest.approx(0.1, abs=0.01)
    assert fit.return_moment == pytest.approx(1.0, abs=0.15)
    blind = fit_panel(rows, events=False)
    assert blind.coefficients[EVENT] == 0
    assert blind.deviation > fit.deviation


def test_a_forecast_takes_its_scale_from_the_regression() -> None:
    fit = fit_panel(panel_rows(effect=0.5), events=True)
    said = fit.forecast("A", np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert said.range_center.tolist() == pytest.approx([-4.0, -3.5], abs=0.05)
    np.testing.assert_allclose(said.return_scale, np.exp(said.range_center))
    assert fit.forecast("Z", np.zeros((1, 3))).range_center[0] == pytest.approx(fit.other_level)

"""Histories for a forecast: the same inputs as in training, nothing from after as_of, and prices back."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.data.snapshot.read import Snapshot, leader_data, series
from kronos_service.events import leaders, surprises
from kronos_service.events.encoder import EventEncoder, prepare
from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.audit.rows import read_rows
from kronos_service.finetune.event_conditioned.audit.scramble import only, scramble
from kronos_service.finetune.event_conditioned.samples.series import build_series
from kronos_service.finetune.event_conditioned.samples.tokens import normalized_window
from kronos_service.finetune.event_conditioned.samples.windows import Window
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.generate import generate
from kronos_service.model.generation.inputs import (
    LOWEST_PRICE,
    HistoryError,
    Prepared,
    forecast_prices,
    prepare_history,
    to_prices,
)
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.normalization import Floats

HORIZON = 5


def prepared(
    snapshot: Snapshot, symbol: str, bar: int, *, asset_class: str = "us_equity", **changes: Any
) -> Prepared:
    """The history of a symbol up to one bar, both numbered from 0."""
    settings: dict[str, Any] = {"horizon": HORIZON, "longest": 64, "seed": 7} | changes
    context = settings.pop("longest") + settings["horizon"]
    return prepare_history(
        series(snapshot, symbol).iloc[: bar + 1],
        asset_class,
        prepare(snapshot.calendar, leader_data(snapshot)),
        symbol=symbol,
        encoder=EventEncoder(),
        context=context,
        **settings,
    )


def test_the_inputs_are_those_of_a_training_window_that_ends_at_the_origin(market: Snapshot) -> None:
    one = next(s for s in build_series(market) if s.symbol == "SYN02")
    got = prepared(market, "SYN02", 199).history
    window = Window(series=0, start=136, first_target=200, stop=201)
    assert got.x.numpy().tobytes() == normalized_window([one], window)[:-1].tobytes()
    assert got.stamps.numpy().tobytes() == one.stamps[136:200].tobytes()
    assert got.future_stamps.numpy().tobytes() == one.stamps[200:205].tobytes()
    assert got.events is not None
    assert got.events.shape == (64 + HORIZON - 1, 20)
    assert got.events[:64].numpy().tobytes() == one.events[136:200].tobytes()
    assert got.seed == 7


def test_rows_past_the_origin_know_the_schedule_but_no_surprise_and_no_leader(market: Snapshot) -> None:
    """The schedule of the sample was always known, so later rows agree with those of later origins."""
    one = next(s for s in build_series(market) if s.symbol == "SYN02")
    events = prepared(market, "SYN02", 199).history.events
    assert events is not None
    np.testing.assert_array_equal(
        events[64:, : DEFAULT_TAXONOMY.surprise], one.events[200:204, : DEFAULT_TAXONOMY.surprise]
    )
    np.testing.assert_array_equal(
        events[64:, DEFAULT_TAXONOMY.surprise + 1], one.events[200:204, DEFAULT_TAXONOMY.surprise + 1]
    )
    assert not events[64:, DEFAULT_TAXONOMY.surprise].any()
    assert not events[64:, DEFAULT_TAXONOMY.surprise + 2 :].any()


def test_a_scenario_moves_the_rows_after_its_date_only(market: Snapshot) -> None:
    plain = prepared(market, "SYN02", 199)
    day: date = plain.future_dates[1].item()
    supposed = prepared(market, "SYN02", 199, scenario=Scenario(surprises={day: 2.0}))
    assert plain.history.events is not None
    assert supposed.history.events is not None
    changed = (plain.history.events != supposed.history.events).nonzero().tolist()
    assert changed == [[64 + 1, DEFAULT_TAXONOMY.surprise]]
    with pytest.raises(ScenarioError, match="lengthen the horizon"):
        prepared(market, "SYN02", 199, scenario=Scenario(surprises={plain.future_dates[-1].item(): 2.0}))


def test_future_sessions_and_as_of_come_from_the_exchange_calendar(market: Snapshot) -> None:
    """The bar of 23 November 2022 is followed by Thanksgiving, a half day and a weekend."""
    bars = series(market, "SYN01")
    bar = int((bars["ts"] == "2022-11-23").to_numpy().argmax())
    got = prepared(market, "SYN01", bar, horizon=3)
    assert [str(day) for day in got.future_dates] == ["2022-11-25", "2022-11-28", "2022-11-29"]
    assert got.history.future_stamps.tolist() == [[0, 0, 4, 25, 11], [0, 0, 0, 28, 11], [0, 0, 1, 29, 11]]
    assert got.as_of == np.datetime64("2022-11-23T22:00")
    assert got.last_close == bars["close"].iloc[bar]


def test_the_plain_base_needs_no_calendar(market: Snapshot) -> None:
    bars = series(market, "SYN01").iloc[:80]
    got = prepare_history(
        bars,
        "us_equity",
        None,
        symbol=None,
        encoder=EventEncoder(),
        context=72,
        horizon=2,
        min_history=64,
        seed=0,
    )
    assert got.history.events is None
    assert got.missing_leaders == ()
    assert len(got.history.x) == 70


def test_too_short_a_history_is_refused_with_what_to_do(market: Snapshot) -> None:
    with pytest.raises(HistoryError, match="at least 64 bars of history, got 63: send earlier bars"):
        prepared(market, "SYN01", 62)


@pytest.mark.parametrize("lacking", [(), ("VIX",), ("SPY", "VIX")])
def test_leaders_whose_last_closed_bar_is_not_there_are_named(
    market: Snapshot, lacking: tuple[str, ...]
) -> None:
    day = series(market, "SYN01")["ts"].iloc[150]
    late = market.bars["symbol"].isin(lacking) & (market.bars["ts"] >= day)
    known = replace(market, bars=market.bars[~late])
    assert prepared(known, "SYN01", 150).missing_leaders == lacking


def test_bitcoin_is_not_missing_while_its_day_goes_on(market: Snapshot) -> None:
    """At 17:00 New York the crypto day that ends at midnight UTC is still open."""
    day = series(market, "SYN01")["ts"].iloc[150]
    today = (market.bars["symbol"] == "BTCUSDT") & (market.bars["ts"] >= day)
    assert prepared(replace(market, bars=market.bars[~today]), "SYN01", 150).missing_leaders == ()
    before = (market.bars["symbol"] == "BTCUSDT") & (market.bars["ts"] >= day - pd.Timedelta("1D"))
    assert prepared(replace(market, bars=market.bars[~before]), "SYN01", 150).missing_leaders == ("BTCUSDT",)


def assert_no_leak(snapshot: Snapshot, bar: int, seed: int) -> None:
    """Everything after the origin's as_of is another future; not a bit of what is prepared may differ."""
    known = only(snapshot, ["SYN01"])
    first = prepared(known, "SYN01", bar)
    moment = pd.Timestamp(first.as_of, tz="UTC").to_pydatetime()
    other = prepared(scramble(known, read_rows(known, ["SYN01"]), moment, seed), "SYN01", bar)
    for name, one, two in _bytes(first, other):
        assert one == two, f"{name} knows what came after as_of"


def _bytes(first: Prepared, second: Prepared) -> list[tuple[str, bytes, bytes]]:
    def parts(one: Prepared) -> dict[str, npt.NDArray[Any]]:
        assert one.history.events is not None
        tensors = {"x": one.history.x, "stamps": one.history.stamps, "future": one.history.future_stamps}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        arrays |= {"events": one.history.events.numpy(), "mean": one.mean, "std": one.std}
        return arrays | {"dates": one.future_dates, "as_of": np.array([one.as_of])}

    second_parts = parts(second)
    return [(name, one.tobytes(), second_parts[name].tobytes()) for name, one in parts(first).items()]


@given(bar=st.integers(70, 480), seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_from_after_as_of_is_in_a_forecasts_inputs(market: Snapshot, bar: int, seed: int) -> None:
    assert_no_leak(market, bar, seed)


def assert_no_leak_at(snapshot: Snapshot, bars: Iterable[int]) -> None:
    for bar in bars:
        assert_no_leak(snapshot, bar, seed=bar)


def next_leader_bar(leader: Any, as_of: Any) -> Any:
    return np.minimum(np.searchsorted(leader.closed_at, as_of, side="right") + 1, len(leader.closed_at))


def surprise_before_its_release(release_at: Any, first_seen_at: Any) -> Any:
    return np.maximum(release_at, first_seen_at) - np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("module", "seam", "leak"),
    [(leaders, "usable_bars", next_leader_bar), (surprises, "usable_from", surprise_before_its_release)],
)
def test_a_planted_leak_is_caught(
    market: Snapshot, monkeypatch: pytest.MonkeyPatch, module: Any, seam: str, leak: Any
) -> None:
    monkeypatch.setattr(module, seam, leak)
    with pytest.raises(AssertionError, match="events knows what came after as_of"):
        assert_no_leak_at(market, range(100, 480, 10))


UNITS = [(1e-9, 1e9), (1e-5, 1.0), (1e9, 1e-9)]


def in_units(bars: Floats, price: float, volume: float) -> Floats:
    """Bars (..., 6) with price and volume quoted in other units."""
    scale: Floats = np.array([price] * 4 + [volume, price * volume])
    return np.multiply(bars, scale)


@pytest.mark.parametrize(("price", "volume"), UNITS)
def test_training_reads_the_same_tokens_in_any_unit(
    market: Snapshot, bundle: Bundle, price: float, volume: float
) -> None:
    windows = [Window(series=0, start=at, first_target=at + 64, stop=at + 72) for at in range(0, 400, 40)]
    one = next(s for s in build_series(market) if s.symbol == "SYN02")
    other = replace(one, features=in_units(one.features, price, volume))
    for window in windows:
        usual, scaled = (
            bundle.tokenizer.encode(torch.from_numpy(normalized_window([s], window))[None])
            for s in (one, other)
        )
        assert torch.equal(torch.stack(usual), torch.stack(scaled))


@pytest.mark.parametrize(("price", "volume"), UNITS)
def test_a_forecast_in_another_unit_is_the_same_forecast(
    market: Snapshot, bundle: Bundle, price: float, volume: float
) -> None:
    bars = series(market, "SYN02").iloc[:200]
    scaled = bars.assign(
        volume=bars["volume"] * volume,
        amount=bars["amount"] * price * volume,
        **{name: bars[name] * price for name in ("open", "high", "low", "close")},
    )
    usual, other = (
        forecast_prices(
            bundle.tokenizer,
            bundle.model,
            [history_of(frame, "us_equity", bundle.context)],
            horizon=HORIZON,
            paths=8,
            sampling=Sampling(),
            context=bundle.context,
        )[0]
        for frame in (bars, scaled)
    )
    np.testing.assert_allclose(other, in_units(usual, price, volume), rtol=1e-6)


@pytest.mark.parametrize("price", [1e-9, 1.0, 1e9])
def test_a_flat_price_without_volume_is_forecast_flat(market: Snapshot, bundle: Bundle, price: float) -> None:
    columns = dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": 0.0, "amount": 0.0}
    bars = series(market, "SYN02").iloc[:100].assign(**columns)
    (paths,) = forecast_prices(
        bundle.tokenizer,
        bundle.model,
        [history_of(bars, "us_equity", bundle.context)],
        horizon=HORIZON,
        paths=8,
        sampling=Sampling(),
        context=bundle.context,
    )
    np.testing.assert_allclose(paths[..., :4], price, rtol=1e-5)
    assert (paths[..., 4:] == 0).all()


def history_of(bars: pd.DataFrame, asset_class: str, context: int) -> Prepared:
    """The history as the plain base is shown it."""
    return prepare_history(
        bars, asset_class, None, symbol=None, encoder=EventEncoder(), context=context, horizon=HORIZON, seed=1
    )


def test_prices_undo_the_normalisation_and_are_valid_candles(market: Snapshot) -> None:
    """One path copies the last bars of the history; in the other everything is far below."""
    one = prepared(market, "SYN01", 150)
    copy = one.history.x[-HORIZON:]
    bars = series(market, "SYN01").iloc[151 - HORIZON : 151]
    prices = to_prices(torch.stack([copy, torch.full_like(copy, -1e6)]), one)
    np.testing.assert_allclose(prices[0, :, 3], bars["close"], rtol=1e-5)
    np.testing.assert_allclose(prices[0, :, 4], bars["volume"], rtol=1e-5)
    np.testing.assert_array_equal(prices[1, :, :4], LOWEST_PRICE * one.last_close)
    np.testing.assert_array_equal(prices[1, :, 4:], 0.0)


def test_a_high_below_the_close_is_raised_to_it(market: Snapshot) -> None:
    one = prepared(market, "SYN01", 150)
    bars = torch.zeros(1, HORIZON, 6)
    bars[..., 1], bars[..., 2] = -3.0, 3.0
    (path,) = to_prices(bars, one)
    assert (path[:, 1] == path[:, :4].max(axis=1)).all()
    assert (path[:, 2] == path[:, :4].min(axis=1)).all()
    np.testing.assert_allclose(path[:, 3], one.mean[3])


def test_generate_reads_it_whole_and_its_bars_become_prices(market: Snapshot, bundle: Bundle) -> None:
    one = prepared(market, "SYN01", 150, longest=bundle.context - HORIZON)
    forecast = generate(
        bundle.tokenizer,
        bundle.model,
        [replace(one.history, events=None)],
        horizon=HORIZON,
        paths=3,
        sampling=Sampling(),
        context=bundle.context,
    )
    assert forecast.bars_used == (bundle.context - HORIZON,)
    assert to_prices(forecast.bars[0], one).shape == (3, HORIZON, 6)

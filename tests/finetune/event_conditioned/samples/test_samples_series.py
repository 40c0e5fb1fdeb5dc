"""Control and placebo: what is taken from the model, and what stays real."""

from collections.abc import Sequence
from cProfile import Profile
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import own_events
from kronos_service.data.snapshot.read import Snapshot, leader_data, load_snapshot
from kronos_service.events.calendar import read_calendar
from kronos_service.events.encoder import encode_rows, prepare
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.finetune.event_conditioned.samples.series import (
    Conditioning,
    Series,
    build_series,
    condition,
)

EDGES = [np.datetime64("2021-06-01"), np.datetime64("2022-06-01")]


def test_the_calendar_is_read_once_for_all_symbols(market: Snapshot) -> None:
    profile = Profile()
    series = profile.runcall(build_series, market)
    calls = {entry.code: entry.callcount for entry in profile.getstats()}
    assert len(series) > 1
    assert calls[read_calendar.__code__] == 1


def test_hourly_bars_see_the_events_of_their_own_hour(hourly_path: Path) -> None:
    snapshot = load_snapshot(hourly_path)
    (one, *_) = build_series(snapshot)
    tables = prepare(snapshot.calendar, leader_data(snapshot), snapshot.taxonomy)
    assert one.interval == snapshot.interval == "1h"
    covered = slice(None, 500)
    expected = encode_rows(tables, one.dates[covered], one.asset_class, interval="1h", symbol=one.symbol)
    np.testing.assert_array_equal(one.events[covered], expected)
    by_hour = one.events[covered, : len(snapshot.taxonomy.families)].any(axis=1)
    assert 0 < by_hour.sum() < 24 * len(set(one.dates[covered][by_hour].astype("datetime64[D]")))


def test_the_control_sees_no_events_and_keeps_the_labels(market: Snapshot) -> None:
    series = build_series(market)
    control = condition(series, "zeroed", EDGES, seed=0)
    assert any(one.events.any() for one in series)
    assert not any(one.events.any() for one in control)
    for real, zeroed in zip(series, control, strict=True):
        np.testing.assert_array_equal(real.is_event, zeroed.is_event)


@pytest.fixture(scope="module")
def own_series(tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    """Two companies with earnings of their own, over the edges of both stretches."""
    directory = tmp_path_factory.mktemp("own")
    write_sample(directory, symbols=2, start=date(2021, 1, 4), end=date(2022, 12, 30), world=own_events())
    return build_series(load_snapshot(directory))


def test_the_placebo_moves_whole_rows_to_other_dates_of_the_same_stretch(market: Snapshot) -> None:
    assert_placebo(build_series(market))


def test_with_symbol_events_the_placebo_moves_each_symbols_own_rows(own_series: list[Series]) -> None:
    assert_placebo(own_series)


def assert_placebo(series: Sequence[Series]) -> None:
    placebo = condition(series, "permuted", EDGES, seed=0)
    for real, false in zip(series, placebo, strict=True):
        np.testing.assert_array_equal(real.is_event, false.is_event)
        np.testing.assert_array_equal(real.features, false.features)
        assert (real.events != false.events).any(axis=1).mean() > 0.8
        stretch = np.searchsorted(EDGES, real.dates, side="right")
        for number in range(3):
            rows, other = real.events[stretch == number], false.events[stretch == number]
            assert sorted(map(tuple, rows)) == sorted(map(tuple, other))


def test_with_symbol_events_the_false_calendar_is_the_same_for_every_symbol(own_series: list[Series]) -> None:
    first, second = condition(own_series, "permuted", EDGES, seed=0)
    of_both, of_one = channels_of(first.taxonomy)
    np.testing.assert_array_equal(first.events[:, of_both], second.events[:, of_both])
    assert (first.events[:, of_one] != second.events[:, of_one]).any()
    other_seed = condition(own_series, "permuted", EDGES, seed=1)[0]
    assert (first.events[:, of_both] != other_seed.events[:, of_both]).any()


def channels_of(taxonomy: Taxonomy) -> tuple[list[int], list[int]]:
    """Families that fall on every symbol, and those that fall on their own."""
    families = list(taxonomy.families)
    own = {taxonomy.event_types[name] for name in taxonomy.symbol_types}
    return [families.index(name) for name in families if name not in own], [
        families.index(name) for name in families if name in own
    ]


def test_every_symbol_sees_the_same_false_calendar(market: Snapshot) -> None:
    first, second, *_ = condition(build_series(market), "permuted", EDGES, seed=0)
    np.testing.assert_array_equal(first.events, second.events)


def test_another_seed_gives_another_placebo(market: Snapshot) -> None:
    series = build_series(market)
    one, other = (condition(series, "permuted", EDGES, seed=seed)[0].events for seed in (0, 1))
    assert (one != other).any()


@pytest.mark.parametrize(("side", "shown"), [("calendar", range(16)), ("leaders", range(16, 20))])
def test_one_side_keeps_its_channels_bit_for_bit_and_zeroes_the_others(
    market: Snapshot, side: Conditioning, shown: range
) -> None:
    series = build_series(market)
    for real, given in zip(series, condition(series, side, EDGES, seed=0), strict=True):
        hidden = [channel for channel in range(len(DEFAULT_TAXONOMY.channels)) if channel not in shown]
        assert real.events[:, hidden].any()
        assert given.events.dtype == np.float32
        assert given.events[:, shown].tobytes() == real.events[:, shown].tobytes()
        assert given.events[:, hidden].tobytes() == np.zeros_like(real.events[:, hidden]).tobytes()
        np.testing.assert_array_equal(real.is_event, given.is_event)
        np.testing.assert_array_equal(real.families, given.families)


def test_a_bar_follows_only_the_bar_of_the_session_right_before_it(market: Snapshot) -> None:
    symbol = market.symbols.loc[market.symbols["tradable"], "symbol"].iloc[0]
    rows = market.bars.index[market.bars["symbol"] == symbol]
    one = build_series(replace(market, bars=market.bars.drop(index=rows[100]).reset_index(drop=True)))[0]
    assert one.symbol == symbol
    assert np.flatnonzero(~one.follows).tolist() == [0, 100]

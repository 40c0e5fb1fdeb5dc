"""Leader channels against sums done by hand."""

import numpy as np
import pandas as pd
import pytest
from event_samples import bars_of, calendar_of, empty_leaders, session_days, walking_leaders

from kronos_service.events.encoder import encode_rows, prepare
from kronos_service.events.leaders import LeaderError, missing_leaders, read_leader, usable_bars
from kronos_service.events.sessions import session_dates
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY


def channel(leader: str, bars: pd.DataFrame, asset_class: str, *days: str) -> list[float]:
    tables = prepare(calendar_of([]), {**empty_leaders(), leader: bars})
    encoded = encode_rows(tables, list(days), asset_class, symbol=None)
    return [float(value) for value in encoded[:, DEFAULT_TAXONOMY.channels.index(f"leader_{leader.lower()}")]]


def expected(bars: pd.DataFrame, last: str, before: str) -> float:
    """The move from the close of one leader bar to another, in the 60 returns up to the first."""
    close = pd.Series(bars["close"].to_numpy(), index=session_dates(bars["ts"]).astype(str))
    sigma = np.diff(np.log(close[:before].to_numpy()))[-60:].std(ddof=1)
    return float(np.clip(np.log(close[last] / close[before]) / sigma, -5, 5))


@pytest.mark.parametrize(
    ("leader", "asset_class", "day", "last", "before"),
    [
        # At 17:00 New York: SPY (16:00), VIX (16:15) and DXY (17:00, just) of the day have closed,
        # while crypto's day ends three or four hours later.
        ("SPY", "us_equity", "2024-03-06", "2024-03-06", "2024-03-05"),
        ("VIX", "us_equity", "2024-03-06", "2024-03-06", "2024-03-05"),
        ("DXY", "us_equity", "2024-03-06", "2024-03-06", "2024-03-05"),
        ("BTCUSDT", "us_equity", "2024-03-06", "2024-03-05", "2024-03-04"),
        # On the half day of 3 July as_of is 14:00; the dollar index closes later, so it counts on the 5th.
        ("DXY", "us_equity", "2024-07-05", "2024-07-05", "2024-07-02"),
        ("VIX", "us_equity", "2024-07-03", "2024-07-03", "2024-07-02"),
        # After a weekend three crypto days have passed; Monday's is not over.
        ("BTCUSDT", "us_equity", "2024-03-11", "2024-03-10", "2024-03-07"),
        # A crypto bar ends at midnight UTC, after New York; a Sunday brings no new SPY bar.
        ("SPY", "crypto", "2024-03-06", "2024-03-06", "2024-03-05"),
        ("BTCUSDT", "crypto", "2024-03-10", "2024-03-10", "2024-03-09"),
        ("SPY", "fx", "2024-03-06", "2024-03-06", "2024-03-05"),
        ("BTCUSDT", "index", "2024-03-06", "2024-03-05", "2024-03-04"),
    ],
)
def test_worked_examples(leader: str, asset_class: str, day: str, last: str, before: str) -> None:
    bars = walking_leaders()[leader]
    assert channel(leader, bars, asset_class, day) == [pytest.approx(expected(bars, last, before), abs=1e-6)]


@pytest.mark.parametrize(
    ("asset_class", "day", "before"),
    [("us_equity", "2001-09-17", "2001-09-10"), ("index", "2012-10-31", "2012-10-26")],
)
def test_after_a_closure_the_first_bar_counts_from_the_session_before_it(
    asset_class: str, day: str, before: str
) -> None:
    """Row 0 of bars that begin after a closure is that of bars that begin before it."""
    days = session_days("crypto", "2001-05-01", "2012-11-30")
    close = np.exp(np.random.default_rng(0).normal(0, 0.02, len(days)).cumsum())
    bars = pd.DataFrame({"ts": pd.DatetimeIndex(days, tz="UTC"), "close": close})
    (first,) = channel("BTCUSDT", bars, asset_class, day)
    _, same = channel("BTCUSDT", bars, asset_class, before, day)
    assert first == same != 0


def test_without_a_new_bar_the_channel_is_zero() -> None:
    values = channel("SPY", walking_leaders()["SPY"], "crypto", "2024-03-08", "2024-03-09", "2024-03-10")
    assert values[0] != 0
    assert values[1:] == [0.0, 0.0]


def test_on_a_half_day_the_dollar_index_has_not_closed_yet() -> None:
    assert channel("DXY", walking_leaders()["DXY"], "us_equity", "2024-07-03") == [0.0]


def test_over_a_gap_in_the_bars_the_whole_move_counts() -> None:
    bars = walking_leaders()["SPY"]
    values = channel("SPY", bars, "us_equity", "2024-03-04", "2024-03-07")
    assert values[1] == pytest.approx(expected(bars, "2024-03-07", "2024-03-04"), abs=1e-6)


def test_a_bar_that_closes_exactly_at_as_of_counts_and_is_not_missing() -> None:
    """The dollar index closes at 17:00 New York, when an equity's as_of is."""
    bars = walking_leaders()["DXY"]
    leader = read_leader("DXY", bars)
    as_of = np.datetime64("2024-03-06T22:00", "ns")
    assert usable_bars(leader, np.array([as_of]))[0] == usable_bars(leader, np.array([as_of + 1]))[0]
    assert usable_bars(leader, np.array([as_of - 1]))[0] == usable_bars(leader, np.array([as_of]))[0] - 1
    until = read_leader("DXY", bars[session_dates(bars["ts"]) < np.datetime64("2024-03-06")])
    others = {name: read_leader(name, walking_leaders()[name]) for name in DEFAULT_TAXONOMY.leaders}
    for moment, missing in ((as_of - 1, False), (as_of, True)):
        found = missing_leaders([{**others, "DXY": until}[name] for name in DEFAULT_TAXONOMY.leaders], moment)
        assert ("DXY" in found) == missing


@pytest.mark.parametrize(("earlier", "is_scaled"), [(60, False), (61, True)])
def test_sixty_returns_are_needed(earlier: int, is_scaled: bool) -> None:
    days = session_days("us_equity", "2023-10-02", "2024-03-06")[-earlier - 1 :]
    bars = walking_leaders()["SPY"]
    bars = bars[bars["ts"].isin(pd.DatetimeIndex(days, tz="UTC"))]
    assert (channel("SPY", bars, "us_equity", "2024-03-06")[0] != 0) == is_scaled


def test_a_jump_is_clipped_and_a_constant_leader_is_zero() -> None:
    bars = walking_leaders()["VIX"].copy()
    bars.loc[bars["ts"] == pd.Timestamp("2024-03-06", tz="UTC"), "close"] *= 9
    assert channel("VIX", bars, "us_equity", "2024-03-06", "2024-03-07") == [5.0, -5.0]
    assert channel("VIX", bars.assign(close=20.0), "us_equity", "2024-03-06") == [0.0]


@pytest.mark.parametrize("leader", DEFAULT_TAXONOMY.leaders)
def test_a_leader_without_bars_is_unknown(leader: str) -> None:
    assert channel(leader, empty_leaders()[leader], "us_equity", "2024-03-06") == [0.0]


@pytest.mark.parametrize(
    ("days", "close", "message"),
    [
        (["2024-03-06", "2024-03-06"], [1.0, 2.0], "one bar per date of leader SPY"),
        (["2024-03-06"], [0.0], "positive closes of leader SPY"),
        (["2024-03-06"], [np.nan], "positive closes of leader SPY"),
        (["2024-03-09"], [1.0], "leader SPY: expected session dates.*2024-03-09"),
    ],
)
def test_bars_that_cannot_be_used_are_named(days: list[str], close: list[float], message: str) -> None:
    with pytest.raises(LeaderError, match=message):
        read_leader("SPY", bars_of(days).assign(close=close))

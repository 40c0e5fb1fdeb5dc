"""Rows that cannot be true are found, each with its key and its reason, and nothing else is."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import NOW, Tables, small_bars, small_tables

from kronos_service.data.tables import ReleaseTimeError, TableError, bar_table, calendar_table, symbol_table
from kronos_service.data.validation import (
    BadBarsError,
    check_tables,
    find_bad_bars,
    find_jumps,
)
from kronos_service.events.taxonomy import UnknownEventType

GOOD = {
    "symbols": symbol_table(small_tables()["symbols"]),
    "bars": bar_table(small_tables()["bars"]),
    "calendar": calendar_table(small_tables()["calendar"]),
}
FAULTS: dict[str, dict[str, float]] = {
    "not finite": {"close": np.nan},
    "price not above 0": {"low": 0.0},
    "negative volume or amount": {"volume": -1.0},
    "low above open or close": {"low": 1e9, "high": 2e9},
    "high below open or close": {"high": 1e-9, "low": 1e-10},
}


def check(tables: Tables) -> None:
    check_tables(tables["symbols"], tables["bars"], tables["calendar"], now=NOW)


def with_cells(table: str, row: int, **cells: Any) -> Tables:
    """The good tables, with some cells of one row replaced."""
    changed = GOOD[table].copy()
    for column, value in cells.items():
        changed[column] = changed[column].where(changed.index != row, value)
    return GOOD | {table: changed}


def test_tables_in_good_order_pass() -> None:
    check(GOOD)
    assert find_bad_bars(GOOD["bars"], GOOD["symbols"], now=NOW).empty
    with_amounts = GOOD["bars"].assign(amount=1.0)
    assert find_bad_bars(with_amounts, GOOD["symbols"], now=NOW).empty


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, len(GOOD["bars"]) - 1), st.sampled_from(sorted(FAULTS)), max_size=8))
def test_exactly_the_planted_faults_are_listed(planted: dict[int, str]) -> None:
    bars = GOOD["bars"].copy()
    for row, reason in planted.items():
        for column, value in FAULTS[reason].items():
            bars.loc[row, column] = value
    bad = find_bad_bars(bars, GOOD["symbols"], now=NOW)
    keys = [(bars["symbol"][row], bars["ts"][row], planted[row]) for row in sorted(planted)]
    assert list(bad.itertuples(index=False, name=None)) == keys


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("open", np.inf, "not finite"),
        ("volume", np.nan, "not finite"),
        ("amount", np.inf, "not finite"),
        ("amount", -1.0, "negative volume or amount"),
        ("ts", pd.Timestamp("2024-01-03T05:00Z"), "ts not at 00:00 UTC"),
        ("ts", pd.Timestamp("2024-01-06T00:00Z"), "no session on this date"),  # a Saturday
        ("ts", pd.Timestamp("2024-01-15T00:00Z"), "duplicate key"),
        ("ts", pd.Timestamp("2034-01-03T00:00Z"), "its session has not closed"),
        ("ts", pd.Timestamp("1980-01-03T00:00Z"), "older than the session calendars"),
    ],
)
def test_every_kind_of_bad_bar_has_its_reason(column: str, value: Any, reason: str) -> None:
    row = int(GOOD["bars"].index[GOOD["bars"]["symbol"] == "DXY"][3])
    bad = find_bad_bars(with_cells("bars", row, **{column: value})["bars"], GOOD["symbols"], now=NOW)
    assert [text.startswith(reason) for text in bad["reason"]] == [True]


def test_bad_bars_are_refused_in_one_line_that_gives_keys_and_the_total() -> None:
    bars = GOOD["bars"].assign(high=GOOD["bars"]["high"].where(GOOD["bars"]["symbol"] != "SPY", 1e-9))
    spy = int((bars["symbol"] == "SPY").sum())
    with pytest.raises(BadBarsError) as refused:
        check(GOOD | {"bars": bars})
    message = str(refused.value)
    assert f"{spy} bad bars: SPY 2024-01-02 (high below open or close)" in message
    assert f"and {spy - 5} more" in message
    assert "\n" not in message
    assert len(refused.value.bad) == spy


@pytest.mark.parametrize(
    ("asset_class", "day", "close"),
    [
        ("crypto", "2024-01-31", "2024-02-01T00:00Z"),
        ("us_equity", "2024-01-31", "2024-01-31T21:00Z"),
        ("us_equity", "2024-07-03", "2024-07-03T17:00Z"),  # a half day, in summer time
        ("us_equity", "2024-11-29", "2024-11-29T18:00Z"),  # a half day, in winter time
        ("index", "2024-01-31", "2024-01-31T21:15Z"),
        ("fx", "2024-01-31", "2024-01-31T22:00Z"),
        ("fx", "2024-07-31", "2024-07-31T21:00Z"),
    ],
)
def test_a_bar_exists_from_its_close_on_and_not_a_moment_before(
    asset_class: str, day: str, close: str
) -> None:
    symbols = pd.DataFrame({"symbol": ["X"], "asset_class": [asset_class], "tradable": [True]})
    bars = small_bars("X", "crypto").iloc[:1].assign(ts=pd.Timestamp(day, tz="UTC"))
    closed_at = datetime.fromisoformat(close)
    before = find_bad_bars(bars, symbols, now=closed_at - timedelta(microseconds=1))
    assert before["reason"].tolist() == ["its session has not closed"]
    assert find_bad_bars(bars, symbols, now=closed_at).empty
    assert find_bad_bars(bars, symbols, now=closed_at + timedelta(days=3650)).empty


Refusal = tuple[str, int, dict[str, Any], type[TableError] | type[UnknownEventType], str]
REFUSALS: list[Refusal] = [
    ("symbols", 0, {"asset_class": "bond"}, TableError, "unknown asset class .BTCUSDT: bond.; one of crypto"),
    ("symbols", 0, {"symbol": "SPY"}, TableError, "SPY listed more than once"),
    ("symbols", 0, {"symbol": "ETHUSDT"}, TableError, "bars of BTCUSDT, which table symbols lacks"),
    ("calendar", 0, {"impact": "huge"}, TableError, "unknown impact huge; one of high"),
    ("calendar", 0, {"event_type": "moon_phase"}, UnknownEventType, "moon_phase"),
    (
        "calendar",
        0,
        {"release_at": pd.Timestamp("2024-01-05T00:00Z")},
        ReleaseTimeError,
        "look like bare dates",
    ),
    ("calendar", 0, {"actual": np.inf}, TableError, "infinite values in nfp:1"),
    ("calendar", 0, {"event_id": "cpi:1"}, TableError, "repeats: cpi:1.* keep one of each, or give"),
]


@pytest.mark.parametrize(("table", "row", "cells", "error", "message"), REFUSALS)
def test_a_table_out_of_order_is_refused_in_one_line(
    table: str, row: int, cells: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        check(with_cells(table, row, **cells))
    assert "\n" not in str(refused.value)


def test_other_currencies_may_have_other_types_and_midnight_releases() -> None:
    cells = {"currency": "JPY", "event_type": "boj_rate", "release_at": pd.Timestamp("2024-01-05T00:00Z")}
    check(with_cells("calendar", 0, **cells))


@pytest.mark.parametrize(
    ("asset_class", "factor", "ratio"),
    [
        ("us_equity", 1 / 2, "2:1"),
        ("us_equity", 1 / 10, "10:1"),
        ("us_equity", 1 / 3.05, "3:1"),
        ("us_equity", 8.0, "1:8"),
        ("us_equity", 1 / 6, "6:1"),
        ("us_equity", 1 / 7.02, "7:1"),
        ("us_equity", 30.0, "1:30"),
        ("us_equity", 40.0, "1:40"),
        ("us_equity", 100.0, "1:100"),
        ("us_equity", 1 / 6.5, None),
        ("us_equity", 1 / 1.5, None),
        ("us_equity", 1 / 1.8, None),
        ("us_equity", 1.0, None),
        ("us_equity", 12.0, "1:12"),
        ("us_equity", 1 / 200, "200:1"),
        ("us_equity", 34.6, "1:35"),
        ("us_equity", 1 / 5.4, None),
        ("crypto", 1 / 2, None),
        ("crypto", 190_000.0, "1:190,000"),
        ("crypto", 1 / 3.5, "3.5:1"),
        ("index", 1 / 2, None),
        ("index", 12.0, "1:12"),
        ("fx", 1 / 100, "100:1"),
        ("fx", 1.1, None),
    ],
)
def test_an_overnight_move_such_as_a_split_makes_is_pointed_out(
    asset_class: str, factor: float, ratio: str | None
) -> None:
    symbols = pd.DataFrame({"symbol": ["X"], "asset_class": [asset_class], "tradable": [True]})
    bars = small_bars("X", asset_class)
    prices = ["open", "high", "low", "close"]
    bars.loc[10:, prices] *= factor
    found = find_jumps(bar_table(bars), symbols)
    expected = [] if ratio is None else [("X", bars["ts"][10], ratio)]
    assert list(found.itertuples(index=False, name=None)) == expected


def test_copies_of_a_bar_are_listed_with_the_values_that_differ() -> None:
    bars = GOOD["bars"]
    live = bars[bars["symbol"] == "SPY"].iloc[[3]].assign(close=471.5, volume=7.0)
    bad = find_bad_bars(bar_table(pd.concat([bars, live])), GOOD["symbols"], now=NOW)
    settled = bars[bars["symbol"] == "SPY"]["close"].iloc[3]
    assert bad["reason"].tolist() == [f"duplicate key: close {settled} and 471.5, volume 1000.0 and 7.0"]

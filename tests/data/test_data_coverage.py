"""Figures of a snapshot worked out by hand: gaps, staleness, surprises, rows loaded long after."""

import io
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from small_tables import Tables, small_tables, write_small

from kronos_service.data.coverage import (
    Coverage,
    coverage,
    find_backfilled,
    findings,
    print_coverage,
    read_coverage,
)
from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import read_tables
from kronos_service.data.tables import bar_table, calendar_table, symbol_table
from kronos_service.events.encoder import EventEncoder
from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY


def covered(tables: Tables) -> Coverage:
    bars = bar_table(tables["bars"])[["symbol", "ts"]]
    return coverage(symbol_table(tables["symbols"]), bars, calendar_table(tables["calendar"]))


def without(tables: Tables, symbol: str, *days: str) -> Tables:
    bars = tables["bars"]
    gone = (bars["symbol"] == symbol) & bars["ts"].dt.strftime("%Y-%m-%d").isin(days)
    return tables | {"bars": bars[~gone]}


def releases(*rows: tuple[str, str, str, float | None, float | None, str | None]) -> pd.DataFrame:
    names = ["event_id", "event_type", "release_at", "actual", "forecast", "first_seen_at"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(event_name="A release", currency="USD", impact="high", previous=None)


def row_of(frame: pd.DataFrame, column: str, value: str) -> pd.Series:
    (position,) = np.flatnonzero(frame[column] == value)
    return frame.iloc[position]


def printed(given: Coverage) -> str:
    screen = io.StringIO()
    print_coverage(given, Console(file=screen, width=80))
    return screen.getvalue()


def test_a_whole_market_has_no_gaps_and_its_counts_are_those_of_the_calendars() -> None:
    found = covered(small_tables())
    sizes = dict(zip(found.symbols["symbol"], found.symbols["bars"], strict=True))
    assert sizes == {"BTCUSDT": 31, "DXY": 23, "SPY": 21, "VIX": 21}  # January 2024: two NYSE holidays
    assert found.bars == 96
    assert (found.first, found.last) == (date(2024, 1, 1), date(2024, 1, 31))
    assert found.symbols["missing"].sum() == found.symbols["behind"].sum() == 0
    assert (found.missing_leaders, len(found.stale_leaders)) == ((), 0)


def test_a_gap_is_a_session_without_a_bar_and_no_weekend_or_holiday() -> None:
    """12 January 2024 was a Friday, 15 January Martin Luther King's day: the run is Friday and Tuesday."""
    found = covered(without(small_tables(), "SPY", "2024-01-12", "2024-01-16", "2024-01-24"))
    spy = row_of(found.symbols, "symbol", "SPY")
    assert (spy["bars"], spy["missing"], spy["longest"], spy["behind"]) == (18, 3, 2, 0)
    assert (spy["first"], spy["last"]) == (pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-31"))
    crypto = covered(without(small_tables(), "BTCUSDT", "2024-01-13", "2024-01-14"))
    assert row_of(crypto.symbols, "symbol", "BTCUSDT")["longest"] == 2


@given(gone=st.sets(st.integers(0, 20), max_size=18))
@settings(max_examples=10, deadline=None)
def test_bars_missing_and_behind_add_up_to_the_sessions_whatever_is_left_out(gone: set[int]) -> None:
    """SPY's 21 sessions: those before its first bar are not counted as gaps."""
    days = sessions("us_equity", date(2024, 1, 1), date(2024, 1, 31)).dates.astype(str)
    found = covered(without(small_tables(), "SPY", *days[sorted(gone)]))
    spy = row_of(found.symbols, "symbol", "SPY")
    first, last = min(set(range(21)) - gone), max(set(range(21)) - gone)
    assert spy["bars"] + spy["missing"] + spy["behind"] == 21 - first
    assert spy["behind"] == 20 - last
    assert (spy["longest"] == 0) == (spy["missing"] == 0)


def test_a_leader_that_ends_early_is_stale_and_one_whose_session_is_still_open_is_not() -> None:
    late = without(small_tables(), "SPY", "2024-01-30", "2024-01-31")
    found = covered(late)
    assert found.stale_leaders[["symbol", "behind"]].to_numpy().tolist() == [["SPY", 2]]
    assert "leader SPY is stale: its last bar is 2024-01-29, sessions behind: 2" in findings(found)
    # On Saturday the 27th only crypto trades: nobody else is behind a bar that closes then.
    bars = small_tables()["bars"]
    friday = bars[(bars["ts"] <= "2024-01-27T00:00:00Z")]
    assert covered(small_tables() | {"bars": friday}).stale_leaders.empty
    # SPY's bar of the 31st closes at 21:00 UTC, before VIX's at 21:15 and bitcoin's at midnight.
    spy_first = bars[(bars["symbol"] == "SPY") | (bars["ts"] < "2024-01-31T00:00:00Z")]
    stale = covered(small_tables() | {"bars": spy_first}).stale_leaders
    assert stale.empty


def test_a_missing_leader_and_a_symbol_without_bars_are_said() -> None:
    tables = small_tables()
    lines = findings(covered(tables | {"bars": tables["bars"][tables["bars"]["symbol"] != "VIX"]}))
    assert "leader VIX has no bars; event-lora needs all of BTCUSDT, SPY, DXY, VIX" in lines
    assert "1 symbol without bars: VIX" in lines


def test_surprises_are_those_the_encoder_would_place() -> None:
    """Ten releases of one type with both values: two have the eight earlier ones that give a scale."""
    months = [(f"cpi:{m}", "cpi", f"2024-{m:02d}-10T13:30:00Z", 3.0 + m % 3, 3.0, None) for m in range(1, 11)]
    calendar = releases(
        *months,
        ("cpi:11", "cpi", "2024-11-10T13:30:00Z", 3.0, None, None),
        ("cpi:12", "cpi", "2024-12-10T13:30:00Z", None, 3.0, None),
        ("cpi:3", "cpi", "2024-03-10T13:30:00Z", 3.5, 3.0, "2024-04-10T12:00:00Z"),
    )
    found = covered(small_tables() | {"calendar": calendar})
    cpi = row_of(found.event_types, "event_type", "cpi")
    assert (cpi["events"], cpi["surprises"], cpi["scored"], cpi["backfilled"]) == (12, 10, 2, 0)
    assert (cpi["first"].month, cpi["last"].month) == (1, 12)
    assert found.event_types["event_type"].tolist() == list(DEFAULT_TAXONOMY.event_types)
    assert found.event_types["events"].sum() == 12


def test_on_the_sample_the_scored_surprises_are_those_in_the_channel() -> None:
    """Every scored surprise sits at a bar of a symbol that trades all the time, unless several share one."""
    sample = read_tables(sample_snapshot_path())
    types = read_coverage(sample_snapshot_path()).event_types
    bars = sample.bars[sample.bars["symbol"] == "BTCUSDT"]
    scored = 0
    for event_type, count in zip(types["event_type"], types["scored"], strict=True):
        # The other types keep their schedule, without an actual.
        calendar = sample.calendar.assign(
            actual=sample.calendar["actual"].where(sample.calendar["event_type"] == event_type)
        )
        if event_type in ("cpi", "jolts"):
            leaders = dict.fromkeys(DEFAULT_TAXONOMY.leaders, bars.iloc[:0])
            channel = EventEncoder().encode(bars, "crypto", calendar, leaders)[:, DEFAULT_TAXONOMY.surprise]
            last = bars["ts"].max() + pd.Timedelta(days=1)
            late = calendar[calendar["actual"].notna() & (calendar["release_at"] >= last)]
            assert np.count_nonzero(channel) == count - len(late)
            scored += count
    assert scored > 0


def test_backfilled_rows_are_first_words_long_after_the_release_and_no_revisions() -> None:
    calendar = calendar_table(
        releases(
            ("always", "cpi", "2024-01-11T13:30:00Z", 3.4, 3.2, None),
            ("revised", "cpi", "2024-02-11T13:30:00Z", 3.4, 3.2, None),
            ("revised", "cpi", "2024-02-11T13:30:00Z", 3.5, 3.2, "2024-04-11T13:30:00Z"),
            ("soon", "nfp", "2024-03-01T13:30:00Z", 1.0, 1.0, "2024-03-08T13:30:00Z"),
            ("loaded", "nfp", "2024-03-01T13:30:00Z", 1.0, 1.0, "2024-03-08T13:30:01Z"),
            ("loaded", "nfp", "2024-03-01T13:30:00Z", 2.0, 1.0, "2024-09-01T00:00:01Z"),
            ("late actual", "ppi", "2024-03-01T13:30:00Z", None, 1.0, "2024-02-01T13:30:00Z"),
            ("late actual", "ppi", "2024-03-01T13:30:00Z", 1.0, 1.0, "2024-06-01T13:30:00Z"),
            ("late actual", "ppi", "2024-03-01T13:30:00Z", 1.1, 1.0, "2024-07-01T13:30:00Z"),
        )
    )
    found = find_backfilled(calendar)
    assert found["event_id"].tolist() == ["late actual", "loaded"]
    assert found["actual"].tolist() == [1.0, 1.0]
    shuffled = find_backfilled(calendar.sample(frac=1, random_state=0))
    assert set(shuffled.index) == set(found.index)
    types = covered(small_tables() | {"calendar": calendar})
    assert "2 calendar rows were first seen more than 7 days" in " ".join(findings(types))


@pytest.mark.parametrize(
    ("last_release", "said"),
    [("2024-02-10T13:30:00Z", False), ("2024-02-09T13:30:00Z", True)],
)
def test_a_calendar_that_reaches_less_than_ten_days_past_the_bars_is_said(
    last_release: str, said: bool
) -> None:
    calendar = releases(("a", "cpi", last_release, None, None, None))
    lines = findings(covered(small_tables() | {"calendar": calendar}))
    assert any("cannot be trained on" in line for line in lines) == said


def test_other_currencies_are_rows_but_no_events() -> None:
    calendar = releases(("a", "moon_phase", "2024-03-09T13:30:00Z", 1.0, 1.0, None)).assign(currency="EUR")
    found = covered(small_tables() | {"calendar": calendar})
    assert (found.calendar_rows, found.reach, found.event_types["events"].sum()) == (1, None, 0)
    assert "the calendar has no USD releases" in findings(found)


def test_what_is_printed_fits_eighty_columns_and_lists_the_worst_gaps_first() -> None:
    tables = without(small_tables(), "SPY", "2024-01-12", "2024-01-16")
    tables = without(tables, "VIX", "2024-01-10")
    shown = printed(covered(tables))
    tables_only = [line for line in shown.splitlines() if not line.startswith("warning")]
    assert max(map(len, tables_only)) <= 80
    gaps = shown[shown.index("Gaps") :]
    assert gaps.index("SPY") < gaps.index("VIX")
    assert "no gaps" not in shown
    assert "never seen: fomc_rate_decision" in " ".join(shown.split())
    assert "no gaps" in printed(covered(small_tables()))


def test_with_many_symbols_the_rest_of_the_gaps_are_summed_up() -> None:
    tables = small_tables()
    spy = tables["bars"][tables["bars"]["symbol"] == "SPY"]
    names = [f"S{i:02d}" for i in range(20)]
    more = pd.concat([spy.assign(symbol=name) for name in names])
    symbols = pd.DataFrame({"symbol": names, "asset_class": "us_equity", "tradable": True})
    tables |= {"bars": pd.concat([tables["bars"], more]), "symbols": pd.concat([tables["symbols"], symbols])}
    for name in names:
        tables = without(tables, name, "2024-01-10")
    assert "8 more" in printed(covered(tables))


def test_a_snapshot_on_disk_is_read_by_its_keys_to_the_same_figures(tmp_path: Path) -> None:
    tables = without(small_tables(), "SPY", "2024-01-12")
    write_small(tmp_path / "s", tables, source="a test")
    found, expected = read_coverage(tmp_path / "s"), covered(tables)
    assert (found.bars, found.calendar_rows, found.reach) == (95, 4, date(2024, 2, 13))
    pd.testing.assert_frame_equal(found.symbols, expected.symbols)
    pd.testing.assert_frame_equal(found.event_types, expected.event_types)

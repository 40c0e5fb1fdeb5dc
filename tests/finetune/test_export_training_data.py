"""An export checks rows before it writes, drops nothing silently, keeps the old snapshot until the end."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from kronos_service.data.bar_filter import OnBadRow
from kronos_service.data.snapshot.read import load_snapshot, read_tables
from kronos_service.data.tables import ReleaseTimeError, TableError
from kronos_service.data.validation import BadBarsError
from kronos_service.events.sessions import DAILY, Interval, sessions
from kronos_service.events.taxonomy import UnknownEventType
from kronos_service.finetune.export_training_data import ExportSummary, export

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
"""A Friday: yesterday's crypto bar has closed, today's has not, and New York has not opened."""
SYMBOLS = {"AAA": "us_equity", "BTCUSDT": "crypto", "SPY": "us_equity"}


@dataclass(frozen=True, kw_only=True)
class FrameSource:
    """A source that is three frames; its bars come in pages of 7, across symbols."""

    symbol_rows: pd.DataFrame
    bar_rows: pd.DataFrame
    event_rows: pd.DataFrame
    name: str = "frames"

    def symbols(self) -> pd.DataFrame:
        return self.symbol_rows

    def bars(
        self, since: date | None = None, after: str | None = None, interval: Interval = DAILY
    ) -> Iterator[pd.DataFrame]:
        rows = self.bar_rows
        rows = rows if since is None else rows[rows["ts"] >= since.isoformat()]
        rows = rows if after is None else rows[rows["symbol"] > after]
        return (rows.iloc[start : start + 7] for start in range(0, len(rows), 7))

    def count_bars(self, first: date | None, before: date) -> int:
        ts = self.bar_rows["ts"]
        return int(((ts >= str(first or "")) & (ts < before.isoformat())).sum())

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        assert since is None, "the calendar is read whole"
        return self.event_rows


def market(**cells: Any) -> FrameSource:
    """Two weeks of flat bars up to 14 March and one release; `cells` change the first bar, or the event."""
    first, last = date(2024, 3, 1), date(2024, 3, 14)
    days = [
        (name, day) for name, kind in SYMBOLS.items() for day in sessions(kind, first, last).dates.astype(str)
    ]
    bars = pd.DataFrame(days, columns=["symbol", "ts"])
    bars = bars.assign(open=10.0, high=11.0, low=9.0, close=10.0, volume=5.0, amount=None)
    event = {"event_id": "cpi:1", "event_type": "cpi", "release_at": "2024-03-12T12:30:00Z"} | {
        name: value for name, value in cells.items() if name in ("event_type", "release_at")
    }
    for name, value in cells.items():
        if name in bars.columns:
            bars.loc[0, name] = value
    names = {"event_name": "CPI", "currency": "USD", "impact": "high", "actual": 3.2, "forecast": 3.1}
    symbols = {"symbol": list(SYMBOLS), "asset_class": list(SYMBOLS.values()), "tradable": [True] * 3}
    return FrameSource(
        symbol_rows=pd.DataFrame(symbols), bar_rows=bars, event_rows=pd.DataFrame([event | names])
    )


def with_bars(source: FrameSource, rows: list[tuple[str, str]]) -> FrameSource:
    """More flat bars, given as (symbol, date), in the order of the table's key."""
    more = pd.DataFrame(rows, columns=["symbol", "ts"])
    more = more.assign(open=10.0, high=11.0, low=9.0, close=10.0, volume=5.0, amount=None)
    bars = pd.concat([source.bar_rows, more]).sort_values(["symbol", "ts"])
    return FrameSource(symbol_rows=source.symbol_rows, bar_rows=bars, event_rows=source.event_rows)


def run(
    source: FrameSource, directory: Path, since: date | None = None, on_bad_row: OnBadRow = "fail"
) -> ExportSummary:
    console = Console(file=io.StringIO())
    return export(source, directory, since=since, on_bad_row=on_bad_row, now=NOON, console=console)


def test_a_clean_source_becomes_a_snapshot_that_loads(tmp_path: Path) -> None:
    source, directory = market(), tmp_path / "s"
    screen = io.StringIO()
    summary = export(
        source, directory, now=NOON, console=Console(file=screen, force_terminal=True, width=100)
    )
    snapshot = load_snapshot(directory, now=NOON)
    assert summary.sha256 == snapshot.sha256
    assert (summary.symbols, summary.bars, summary.events) == (3, len(source.bar_rows), 1)
    assert (summary.unfinished, len(summary.dropped), len(summary.splits)) == (0, 0, 0)
    assert not snapshot.flagged
    assert len(snapshot.bars) == len(source.bar_rows)
    assert f"{len(source.bar_rows)} bars" in screen.getvalue()
    assert len(summary.lines()) == 1


def test_the_window_is_what_was_asked_for(tmp_path: Path) -> None:
    assert run(market(), tmp_path / "all").window == (date(2024, 3, 1), date(2024, 3, 15))
    late = run(market(), tmp_path / "late", since=date(2024, 3, 9))
    assert late.window == (date(2024, 3, 9), date(2024, 3, 15))
    assert read_tables(tmp_path / "late").bars["ts"].min() == pd.Timestamp("2024-03-09T00Z")
    with pytest.raises(TableError, match="has no 1d bars since 2030-01-01"):
        run(market(), tmp_path / "none", since=date(2030, 1, 1))


def test_the_bar_of_a_session_still_open_is_left_out_and_counted(tmp_path: Path) -> None:
    today = [("BTCUSDT", "2024-03-15"), ("SPY", "2024-03-15")]
    summary = run(with_bars(market(), today), tmp_path / "s")
    assert summary.unfinished == 2
    assert any("2 unfinished bars" in line for line in summary.lines())
    assert load_snapshot(tmp_path / "s", now=NOON).bars["ts"].max() == pd.Timestamp("2024-03-14T00Z")


def test_a_bar_from_further_ahead_is_a_bad_row_and_not_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(BadBarsError, match=r"SPY 2042-03-14 \(its session has not closed\)"):
        run(with_bars(market(), [("SPY", "2042-03-14")]), tmp_path / "s")


def test_a_bad_row_stops_the_export_and_names_its_key(tmp_path: Path) -> None:
    before = run(market(), tmp_path / "s").sha256
    with pytest.raises(BadBarsError, match=r"1 bad bar: AAA 2024-03-01 \(low above open or close\)"):
        run(market(low=10.5), tmp_path / "s")
    assert load_snapshot(tmp_path / "s", now=NOON).sha256 == before


def test_a_bad_row_may_be_dropped_and_is_listed_then(tmp_path: Path) -> None:
    source = market(low=10.5)
    twice = with_bars(source, [("SPY", "2024-03-05")])
    twice.bar_rows["volume"] = [5.0 + number for number in range(len(twice.bar_rows))]  # copies that differ
    summary = run(twice, tmp_path / "s", on_bad_row="drop")
    assert summary.dropped["reason"].tolist() == [
        "low above open or close",
        "duplicate key: volume 31.0 and 32.0",
    ]
    assert [line for line in summary.lines() if "AAA 2024-03-01" in line and "dropped" in line]
    left = set(read_tables(tmp_path / "s").bars[["symbol", "ts"]].itertuples(index=False, name=None))
    expected = set(
        zip(source.bar_rows["symbol"], pd.to_datetime(source.bar_rows["ts"], utc=True), strict=True)
    )
    assert expected - left == {
        ("AAA", pd.Timestamp("2024-03-01T00Z")),
        ("SPY", pd.Timestamp("2024-03-05T00Z")),
    }


def test_identical_copies_are_kept_once_and_counted(tmp_path: Path) -> None:
    source = market()
    twice = with_bars(source, [("SPY", "2024-03-05"), ("SPY", "2024-03-05"), ("AAA", "2024-03-06")])
    twice = replace(twice, event_rows=pd.concat([twice.event_rows] * 2))
    summary = run(twice, tmp_path / "s")
    assert summary.sha256 == run(source, tmp_path / "once").sha256
    assert summary.notes == (
        "1 identical copies of calendar rows are left out",
        "3 identical copies of bars are left out",
    )


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        ({"release_at": "2024-03-12"}, ReleaseTimeError, "no time of day"),
        ({"release_at": "2024-03-12T00:00:00Z"}, ReleaseTimeError, "look like bare dates"),
        ({"event_type": "moon_phase"}, UnknownEventType, "moon_phase"),
        ({"symbol": "ZZZ"}, TableError, "bars of ZZZ, which table symbols lacks"),
    ],
)
@pytest.mark.parametrize("on_bad_row", ["fail", "drop"])
def test_a_table_out_of_order_is_refused_and_nothing_is_written(
    tmp_path: Path, cells: dict[str, Any], error: type[Exception], message: str, on_bad_row: OnBadRow
) -> None:
    with pytest.raises(error, match=message):
        run(market(**cells), tmp_path / "s", on_bad_row=on_bad_row)
    assert not (tmp_path / "s").exists()


def test_a_move_near_a_split_ratio_is_a_warning_with_symbol_and_date(tmp_path: Path) -> None:
    source = market()
    after = (source.bar_rows["symbol"] == "SPY") & (source.bar_rows["ts"] >= "2024-03-11")
    prices = ["open", "high", "low", "close"]
    source.bar_rows.loc[after, prices] /= 3
    summary = run(source, tmp_path / "s")
    assert summary.lines()[1:] == ["warning: SPY 2024-03-11 opens 3:1 to the last close: a split?"]

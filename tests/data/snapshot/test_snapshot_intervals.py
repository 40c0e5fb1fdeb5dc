"""Snapshots of bars shorter than a day: their tables, their manifest, and what is refused with its reason."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.coverage import read_coverage
from kronos_service.data.snapshot.by_symbol import open_by_symbol
from kronos_service.data.snapshot.manifest import MANIFEST, SnapshotError
from kronos_service.data.snapshot.read import Snapshot, leader_data, load_snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.data.sources.snapshot import TableSource, snapshot_source
from kronos_service.data.tables import TableError
from kronos_service.data.validation import BadBarsError
from kronos_service.events.sessions import SessionError, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.config import ExportConfig
from kronos_service.finetune.export_training_data import export
from kronos_shared.cli import ConfigError

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def source(hourly_path: Path, **changes: Any) -> TableSource:
    """The tables of the fixture, some changed, said to be drawn: nothing is public of them."""
    read = snapshot_source(hourly_path)
    fields = {name: getattr(read, name) for name in TableSource.__dataclass_fields__}
    return TableSource(**{**fields, "name": "sample market, seed 3", **changes})


def test_its_bars_are_of_the_interval_and_its_leaders_are_daily(hourly: Snapshot, hourly_path: Path) -> None:
    manifest = json.loads((hourly_path / MANIFEST).read_text())
    assert manifest["interval"] == hourly.interval == "1h"
    assert set(manifest["tables"]) == {"ohlcv_1d", "symbols", "economic_calendar", "ohlcv"}
    assert set(hourly.bars["symbol"]) == {"BTCUSDT", "ETHUSDT"}
    assert set(hourly.bars["ts"].dt.hour) == set(range(24))
    assert set(leader_data(hourly)) == set(DEFAULT_TAXONOMY.leaders)
    assert all((frame["ts"] == frame["ts"].dt.normalize()).all() for frame in leader_data(hourly).values())


def test_an_export_makes_the_same_snapshot_and_its_summary_counts_hours(
    hourly_path: Path, hourly: Snapshot, tmp_path: Path
) -> None:
    summary = export(source(hourly_path), tmp_path / "s", interval="1h", now=NOW)
    assert summary.sha256 == hourly.sha256
    assert load_snapshot(tmp_path / "s").bars.equals(hourly.bars)
    found = read_coverage(tmp_path / "s").symbols.set_index("symbol")
    assert list(found.loc["ETHUSDT", ["bars", "missing"]]) == [122 * 24, 0]
    assert (found.loc[list(DEFAULT_TAXONOMY.leaders), "bars"] > 400).all()


def test_the_unfinished_hour_is_left_out(hourly_path: Path, tmp_path: Path) -> None:
    cut = datetime(2022, 6, 30, 12, 30, tzinfo=UTC)
    calendar = snapshot_source(hourly_path).calendar()
    known = calendar.assign(actual=calendar["actual"].where(calendar["release_at"] <= cut, np.nan))
    daily = snapshot_source(hourly_path).bar_rows
    daily = daily[daily["ts"] < "2022-06-30"]
    read = source(hourly_path, event_rows=known, bar_rows=daily)
    summary = export(read, tmp_path / "s", interval="1h", now=cut)
    assert summary.unfinished == 2 * 12
    assert load_snapshot(tmp_path / "s").bars["ts"].max() == pd.Timestamp("2022-06-30 11:00", tz="UTC")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bars: bars.assign(ts=bars["ts"] + pd.Timedelta("30min")), "ts not the opening of a 1h bar"),
        (
            lambda bars: bars.assign(symbol=bars["symbol"].replace("ETHUSDT", "SPY")),
            "SPY: us_equity.*only crypto",
        ),
        (lambda bars: bars.assign(low=bars["high"] * 2), "table ohlcv: 100 bad bars"),
    ],
)
def test_what_cannot_be_is_refused_with_the_table(
    hourly_path: Path, tmp_path: Path, change: Any, message: str
) -> None:
    read = snapshot_source(hourly_path)
    assert read.short_rows is not None
    symbols = read.symbols()
    with pytest.raises((BadBarsError, TableError), match=message):
        write_snapshot(
            tmp_path / "s",
            symbols=symbols,
            bars=change(read.short_rows.tail(100)),
            calendar=read.calendar(),
            window=(NOW.date(), NOW.date()),
            source="tests",
            interval="1h",
            leaders=read.bar_rows,
        )
    with pytest.raises((BadBarsError, TableError), match=message):
        export(
            source(hourly_path, short_rows=change(read.short_rows.tail(100))),
            tmp_path / "e",
            interval="1h",
            now=NOW,
        )


def test_a_source_without_the_bars_or_the_leaders_says_what_is_missing(
    market_path: Path, hourly_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(SnapshotError, match="no bars shorter than a day: expected a table ohlcv of 4h bars"):
        export(snapshot_source(market_path), tmp_path / "a", interval="4h")
    with pytest.raises(SnapshotError, match="has 1h bars: expected a table ohlcv of 4h bars"):
        export(snapshot_source(hourly_path), tmp_path / "b", interval="4h")
    nobody = source(hourly_path, bar_rows=snapshot_source(hourly_path).bar_rows.iloc[:0])
    with pytest.raises(TableError, match="no bars of the leaders BTCUSDT, SPY, DXY, VIX"):
        export(nobody, tmp_path / "c", interval="1h")


def test_a_plain_directory_of_tables_says_its_interval_in_a_column(hourly: Snapshot, tmp_path: Path) -> None:
    assert hourly.leaders is not None
    tables = {"symbols": hourly.symbols, "economic_calendar": hourly.calendar, "ohlcv_1d": hourly.leaders}
    for name, table in {**tables, "ohlcv": hourly.bars.assign(interval="1h")}.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    read = load_snapshot(tmp_path)
    assert read.interval == "1h"
    assert read.bars.equals(hourly.bars)
    for wrong, message in (
        ("15m", "got 15m"),
        (np.array(["1h", "4h"] * (len(hourly.bars) // 2)), "got 1h, 4h"),
    ):
        hourly.bars.assign(interval=wrong).to_parquet(tmp_path / "ohlcv.parquet")
        with pytest.raises(TableError, match=f"expected one interval among 4h, 1h, {message}"):
            load_snapshot(tmp_path)


def test_what_takes_daily_bars_alone_names_both_lengths(hourly_path: Path, hourly: Snapshot) -> None:
    with pytest.raises(SnapshotError, match="holds 1h bars, and this takes 1d ones"):
        open_by_symbol(hourly_path)
    with pytest.raises(SnapshotError, match="holds 1h bars, and the thing takes 1d ones"):
        hourly.require_daily("the thing")
    with pytest.raises(ConfigError, match="--incremental adds daily bars"):
        ExportConfig(out=Path("x"), interval="1h", incremental=True)


@pytest.mark.parametrize("asset_class", ["us_equity", "index", "fx"])
def test_markets_with_a_close_have_no_such_sessions(asset_class: str) -> None:
    day = NOW.date()
    with pytest.raises(SessionError, match=f"1h bars of asset class {asset_class}: only crypto"):
        sessions(asset_class, day, day, "1h")


@pytest.mark.parametrize(("interval", "hours"), [("1h", 1), ("4h", 4)])
def test_a_short_bar_is_known_at_its_end(interval: Any, hours: int) -> None:
    table = sessions("crypto", NOW.date(), NOW.date(), interval)
    assert len(table.dates) == table.per_day == 24 // hours
    assert (table.as_of == table.closes).all()
    assert (table.closes - table.opens == np.timedelta64(hours, "h")).all()
    assert (table.opens[1:] == table.closes[:-1]).all()
    assert table.dates[0] == np.datetime64(NOW.date())

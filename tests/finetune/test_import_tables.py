"""The command import: through the same checks into the same snapshot, in one step or not at all."""

import re
from pathlib import Path

import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.__main__ import main

MAP = """
[ohlcv]
symbol_from_file_name = true
time_zone = { us_equity = "America/New_York", index = "America/Chicago" }
columns = { ts = "Date", open = "Open", high = "High", low = "Low", close = "Close", volume = "Volume" }

[symbols]
constants = { asset_class = "us_equity", tradable = true }
rows.BTCUSDT = { asset_class = "crypto" }
rows.DXY = { asset_class = "fx", tradable = false }
rows.VIX = { asset_class = "index", tradable = false }

[calendar]
time_zone = "America/New_York"
columns = { release_at = "Time", event_name = "event_type" }
constants = { currency = "USD" }
"""
ZONES = {"us_equity": "America/New_York", "index": "America/Chicago"}


@pytest.fixture
def mine(market: Snapshot, tmp_path: Path) -> Path:
    """The small market as a person might have it: a file per symbol, all times local."""
    classes = market.symbols.set_index("symbol")["asset_class"]
    names = {name: name.capitalize() for name in ("open", "high", "low", "close", "volume")}
    for number, (symbol, rows) in enumerate(market.bars.groupby("symbol")):
        zone = ZONES.get(classes[symbol], "UTC")
        stamps = rows["ts"].dt.tz_localize(None).dt.tz_localize(zone)
        table = rows.rename(columns=names).drop(columns=["symbol", "ts"]).assign(Date=stamps)
        if number % 2:
            table.to_parquet(tmp_path / f"{symbol}.parquet")
        else:
            table.to_csv(tmp_path / f"{symbol}.csv", index=False)
    local = market.calendar["release_at"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    calendar = market.calendar.drop(columns=["release_at", "currency", "event_name", "first_seen_at"])
    calendar.assign(Time=local).to_csv(tmp_path / "releases.csv", index=False)
    (tmp_path / "map.toml").write_text(MAP)
    return tmp_path


def flags(directory: Path, *more: str) -> list[str]:
    bars = sorted(str(file) for kind in ("csv", "parquet") for file in directory.glob(f"[A-Z]*.{kind}"))
    files = ["--ohlcv", *bars, "--calendar", str(directory / "releases.csv")]
    return [
        "import",
        *files,
        "--map",
        str(directory / "map.toml"),
        "--out",
        str(directory / "s"),
        *more,
    ]


def edit(file: Path, column: str, row: int, value: str | float) -> None:
    table = pd.read_csv(file)
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    table.to_csv(file, index=False)


def test_a_market_that_went_through_local_files_comes_back_as_it_was(
    mine: Path, market: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two years with four clock changes: each bar keeps its date, each release its moment."""
    assert main(flags(mine)) == 0
    found = load_snapshot(mine / "s")
    assert not found.flagged
    pd.testing.assert_frame_equal(found.bars, market.bars, check_exact=True)
    pd.testing.assert_frame_equal(
        found.symbols[["symbol", "asset_class"]], market.symbols[["symbol", "asset_class"]]
    )
    columns = ["event_id", "event_type", "impact", "release_at", "actual", "forecast", "first_seen_at"]
    pd.testing.assert_frame_equal(found.calendar[columns], market.calendar[columns], check_exact=True)
    shown = capsys.readouterr().out
    assert f"{len(market.bars):,} bars of {len(market.symbols)} symbols" in shown
    assert "no gaps" in shown


def test_a_bad_bar_stops_the_import_or_is_dropped_and_listed_and_the_old_snapshot_stays(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(mine)) == 0
    before = load_snapshot(mine / "s")
    damaged = next(mine.glob("[A-Z]*.csv"))
    edit(damaged, "High", 3, 0.001)
    capsys.readouterr()
    assert main(flags(mine)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: table ohlcv_1d: 1 bad bar: ")
    assert error.endswith("import with --on-bad-row drop")
    assert load_snapshot(mine / "s").sha256 == before.sha256
    assert main(flags(mine, "--on-bad-row", "drop")) == 0
    assert f"dropped {damaged.stem} 2021-01" in capsys.readouterr().out
    assert len(load_snapshot(mine / "s").bars) == len(before.bars) - 1


def test_bars_whose_symbol_the_file_of_symbols_lacks_are_refused(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symbols = mine / "symbols.csv"
    symbols.write_text("symbol,asset_class,tradable\nSPY,us_equity,true\n")
    (mine / "map.toml").write_text(MAP[: MAP.index("[symbols]")] + MAP[MAP.index("[calendar]") :])
    assert main(flags(mine, "--symbols", str(symbols))) == 2
    assert "which table symbols lacks" in capsys.readouterr().err
    assert not (mine / "s" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Time", "2021-02-10", "releases.csv, release_at: 1 values have no time of day .row 5: 2021-02-10"),
        ("Time", "2021-11-07 01:30", "releases.csv, release_at: .* a clock change of America/New_York"),
        ("Time", "noon", "releases.csv, release_at: expected ISO 8601 times"),
        ("event_type", "moon_phase", "expected event types of event_types.toml, got moon_phase"),
        ("impact", "huge", "unknown impact huge"),
        ("actual", "1,5", "releases.csv, row 5: actual is '1,5'"),
    ],
)
def test_a_mistake_in_the_calendar_is_one_line_and_writes_nothing(
    mine: Path, capsys: pytest.CaptureFixture[str], column: str, value: str, message: str
) -> None:
    edit(mine / "releases.csv", column, 4, value)
    assert main(flags(mine)) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    assert re.search(message, lines[0]), lines[0]
    assert not (mine / "s" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["import"], "required: --ohlcv, --calendar, --out"),
        (["import", "--ohlcv", "a.csv", "--calendar", "b.csv", "--out", "s"], "cannot read a.csv"),
        (
            ["import", "--ohlcv", "a.csv", "--calendar", "b.csv", "--out", "s", "--map", "m.toml"],
            "cannot read the map m.toml",
        ),
        (["import", "--ohlcv", "--out", "s"], "argument --ohlcv: expected at least one argument"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_preset_reads_the_files_of_its_vendor(tmp_path: Path) -> None:
    header = "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
    (tmp_path / "SPY.csv").write_text(f"{header}2024-07-10 00:00:00-04:00,550,561,549,560,38701200,0,0\n")
    header = "release_at,currency,impact,event_type,actual,forecast\n"
    (tmp_path / "releases.csv").write_text(f"{header}2024-07-11T12:30:00Z,USD,high,cpi,-0.1,0.1\n")
    files = ["--ohlcv", str(tmp_path / "SPY.csv"), "--calendar", str(tmp_path / "releases.csv")]
    assert main(["import", *files, "--preset", "yfinance", "--out", str(tmp_path / "s")]) == 0
    assert load_snapshot(tmp_path / "s").bars["close"].tolist() == [560.0]


def test_the_command_teaches_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["import", "--help"])
    assert exit_.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--ohlcv PATH [PATH ...] files of daily bars, .csv or .parquet (required)" in shown
    assert main(["--help"]) == 0
    assert "import" in capsys.readouterr().out

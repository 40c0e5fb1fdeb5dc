"""Files under their own names become the same tables; what does not fit is named by file and row."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from small_tables import NOW, WINDOW, small_tables

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.data.sources.column_map import ColumnMapError, ColumnMaps
from kronos_service.data.sources.files import FileError, read_files
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.data.tables import ReleaseTimeError, TableError

BARS = "symbol,ts,open,high,low,close,volume\nSPY,2024-06-11,10,11,9,10,5\n"
EVENTS = (
    "event_type,event_name,currency,impact,release_at,actual,forecast\n"
    "cpi,CPI,USD,high,2024-06-12T12:30:00Z,3.3,3.4\n"
)
SPY = {"constants": {"asset_class": "us_equity", "tradable": True}}


def maps(**tables: object) -> ColumnMaps:
    return ColumnMaps.model_validate({"symbols": SPY} | tables)


def read(
    directory: Path,
    given: ColumnMaps | None = None,
    *,
    bars: str | Sequence[str] = BARS,
    events: str = EVENTS,
    symbols: str | None = None,
) -> TableSource:
    ohlcv = []
    for number, text in enumerate([bars] if isinstance(bars, str) else bars):
        ohlcv.append(directory / f"bars{number}.csv")
        ohlcv[-1].write_text(text, encoding="utf-8")
    calendar = directory / "events.csv"
    calendar.write_text(events, encoding="utf-8")
    file = directory / "symbols.csv" if symbols else None
    if file is not None:
        file.write_text(symbols or "", encoding="utf-8")
    return read_files(ohlcv, [calendar], file, given or maps())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_in_our_own_words_need_no_map(tmp_path: Path, kind: str) -> None:
    tables = small_tables()
    names = {"symbols": "symbols", "bars": "ohlcv_1d", "calendar": "economic_calendar"}
    files = {name: tmp_path / f"{names[name]}.{kind}" for name in tables}
    for name, table in tables.items():
        table.to_csv(files[name], index=False) if kind == "csv" else table.to_parquet(files[name])
    source = read_files([files["bars"]], [files["calendar"]], files["symbols"], ColumnMaps())
    for out, (symbols, bars, calendar) in {
        "direct": tuple(tables.values()),
        "files": (source.symbols(), pd.concat(source.bars()), source.calendar()),
    }.items():
        write_snapshot(
            tmp_path / out, symbols=symbols, bars=bars, calendar=calendar, window=WINDOW, source="a", now=NOW
        )
    direct, read_back = (load_snapshot(tmp_path / out, now=NOW) for out in ("direct", "files"))
    assert direct.sha256 == read_back.sha256
    assert source.notes == ()
    assert source.name == f"files:ohlcv_1d.{kind}"


def test_a_parquet_file_may_keep_its_dates_in_the_index(tmp_path: Path) -> None:
    index = pd.DatetimeIndex(["2024-06-10", "2024-06-11"], name="Date").tz_localize("America/New_York")
    bars = pd.DataFrame({"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "volume": 5}, index=index)
    bars.to_parquet(tmp_path / "SPY.parquet")
    (tmp_path / "events.csv").write_text(EVENTS)
    given = maps(
        ohlcv={"columns": {"ts": "Date"}, "symbol_from_file_name": True, "time_zone": "America/New_York"}
    )
    source = read_files([tmp_path / "SPY.parquet"], [tmp_path / "events.csv"], None, given)
    assert source.bar_rows["ts"].tolist() == [pd.Timestamp("2024-06-10T00Z"), pd.Timestamp("2024-06-11T00Z")]
    assert source.bar_rows["symbol"].unique().tolist() == ["SPY"]


def test_columns_constants_and_values_are_put_into_our_words(tmp_path: Path) -> None:
    given = maps(
        ohlcv={"columns": {"ts": "Day"}, "values": {"symbol": {"^GSPC": "SPY"}}},
        calendar={
            "time_zone": "America/New_York",
            "columns": {"release_at": ["Date", "Time"], "event_type": "Event", "event_name": "Event"},
            "constants": {"currency": "USD"},
            "values": {"event_type": {"CPI m/m": "cpi"}, "impact": {"Red": "high"}},
        },
    )
    source = read(
        tmp_path,
        given,
        bars=BARS.replace("ts", "Day").replace("SPY", "^GSPC"),
        events="Date,Time,Event,impact,actual,forecast\n2024-06-12,08:30,CPI m/m,Red,0.0%,0.1%\n",
    )
    event = source.event_rows.iloc[0]
    assert event["release_at"] == pd.Timestamp("2024-06-12T12:30Z")
    assert (event["event_type"], event["event_name"]) == ("cpi", "CPI m/m")
    assert (event["currency"], event["impact"], event["actual"], event["forecast"]) == (
        "USD",
        "high",
        0.0,
        0.1,
    )
    assert source.bar_rows["symbol"].tolist() == ["SPY"]


def test_symbols_come_from_the_map_or_from_a_file(tmp_path: Path) -> None:
    two = BARS + "VIX,2024-06-11,10,11,9,10,0\n"
    by_map = read(tmp_path, maps(symbols=SPY | {"rows": {"VIX": {"asset_class": "index"}}}), bars=two)
    assert by_map.symbol_rows.to_numpy().tolist() == [["SPY", "us_equity", True], ["VIX", "index", True]]
    listed = "symbol,kind,tradable\nSPY,Equity,true\nVIX,Index,false\n"
    values = {"Equity": "us_equity", "Index": "index"}
    by_file = read(
        tmp_path,
        ColumnMaps.model_validate(
            {"symbols": {"columns": {"asset_class": "kind"}, "values": {"asset_class": values}}}
        ),
        bars=two,
        symbols=listed,
    )
    assert by_file.symbol_rows["asset_class"].tolist() == ["us_equity", "index"]


def test_each_asset_class_may_have_its_own_zone(tmp_path: Path) -> None:
    """Bitcoin's 11th begins at 00:00 UTC, New York's date at 04:00."""
    bars = BARS.replace("2024-06-11", "2024-06-11T04:00:00Z") + "BTCUSDT,2024-06-11T00:00:00Z,10,11,9,10,5\n"
    rows = {"rows": {"BTCUSDT": {"asset_class": "crypto"}}}
    given = maps(symbols=SPY | rows, ohlcv={"time_zone": {"us_equity": "America/New_York"}})
    assert read(tmp_path, given, bars=bars).bar_rows["ts"].unique().tolist() == [
        pd.Timestamp("2024-06-11T00Z")
    ]
    with pytest.raises(ValueError, match="neither midnight nor within the crypto session"):
        read(tmp_path, maps(symbols=SPY | rows, ohlcv={"time_zone": "America/New_York"}), bars=bars)


def test_several_files_are_one_table_and_bars_come_symbol_by_symbol(tmp_path: Path) -> None:
    later, other = BARS.replace("06-11", "06-10"), BARS.replace("SPY", "AAA")
    source = read(tmp_path, bars=[BARS, later, other])
    assert source.name == "files:bars0.csv and 2 more"
    chunks = [(rows["symbol"].iloc[0], rows["ts"].dt.day.tolist()) for rows in source.bars()]
    assert chunks == [("AAA", [11]), ("SPY", [10, 11])]
    assert [len(rows) for rows in source.bars(since=date(2024, 6, 11))] == [1, 1]
    assert [rows["symbol"].iloc[0] for rows in source.bars(after="AAA")] == ["SPY"]
    assert source.count_bars(None, date(2024, 6, 11)) == 1
    assert source.count_bars(date(2024, 6, 11), date(2024, 6, 12)) == 2
    assert len(source.calendar()) == 1


def test_a_ticker_that_looks_like_a_missing_value_stays_a_ticker(tmp_path: Path) -> None:
    bars = BARS + "".join(f"{name},2024-06-11,10,11,9,10,5\n" for name in ("NA", "NULL", "TRUE", "1E5"))
    assert read(tmp_path, bars=bars).bar_rows["symbol"].tolist() == ["1E5", "NA", "NULL", "SPY", "TRUE"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("35.7M", 35.7e6), ("216K", 216e3), ("-0.4%", -0.4), ("1e3", 1e3), (".5", 0.5), ("2 B", 2e9), ("0", 0)],
)
def test_figures_with_units_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    source = read(tmp_path, events=EVENTS.replace("3.3,", f"{text},"))
    assert source.event_rows["actual"].tolist() == [value]


@pytest.mark.parametrize("text", ["<0.1%", '"1,500"', "3.2.1", "--4", "5Q"])
def test_what_is_no_clear_number_is_refused_with_file_and_row(tmp_path: Path, text: str) -> None:
    events = EVENTS + EVENTS.splitlines()[1].replace("3.3,", f"{text},") + "\n"
    with pytest.raises(FileError, match=r"events.csv, row 2: actual is .*; expected a number"):
        read(tmp_path, events=events)


def test_event_types_that_are_not_ours_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    events = (
        EVENTS
        + "Crude Oil,Oil,USD,low,2024-06-13T14:30:00Z,1,2\n" * 2
        + "BoE,Rate,GBP,high,2024-06-13T11:00:00Z,1,2\n"
    )
    with pytest.raises(TableError, match=r"events.csv: expected event types .* got Crude Oil \(2\): map"):
        read(tmp_path, events=events)
    source = read(tmp_path, maps(calendar={"unknown_event_types": "drop"}), events=events)
    assert source.event_rows["event_type"].tolist() == ["cpi"]
    assert source.notes == (
        "left out 1 rows of other currencies than USD: GBP (1)",
        "left out 2 USD rows of other event types: Crude Oil (2)",
    )


def test_a_name_in_the_map_that_matches_nothing_is_said(tmp_path: Path) -> None:
    given = maps(
        ohlcv={"values": {"symbol": {"^VXI": "VIX"}}}, calendar={"values": {"impact": {"Red": "high"}}}
    )
    assert read(tmp_path, given).notes == (
        "warning: ohlcv.values.symbol of the map matches nothing: ^VXI",
        "warning: calendar.values.impact of the map matches nothing: Red",
    )


def test_a_release_time_in_a_zone_still_needs_a_time_of_day(tmp_path: Path) -> None:
    """In New York a bare date would become 04:00 UTC, which no later check could tell from a release."""
    new_york = maps(calendar={"time_zone": "America/New_York"})
    for bare in ("2024-06-12", "2024-06-12 00:00"):
        with pytest.raises(ReleaseTimeError, match=r"events.csv, release_at: 1 values have no time of day"):
            read(tmp_path, new_york, events=EVENTS.replace("2024-06-12T12:30:00Z", bare))
    seen = EVENTS.replace("forecast", "forecast,first_seen_at").replace("3.4", "3.4,2024-06-20")
    with pytest.raises(ReleaseTimeError, match=r"events.csv, first_seen_at"):
        read(tmp_path, new_york, events=seen)
    for empty in ("", "2024-06-20T00:00:00Z"):
        assert len(read(tmp_path, new_york, events=seen.replace("2024-06-20", empty)).event_rows) == 1


@pytest.mark.parametrize(
    ("tables", "texts", "error", "message"),
    [
        (
            {"ohlcv": {"columns": {"ts": "Day"}}},
            {},
            FileError,
            r'bars0.csv has no column Day .for ts.; it has .* \(files = "bars0.csv"\), or name the --preset',
        ),
        ({}, {"bars": BARS.replace("close", "Close")}, FileError, r"no column close: .*\[ohlcv.columns\]"),
        (
            {},
            {"events": EVENTS.replace("impact", "i")},
            FileError,
            r"no column impact: .*\[calendar.columns\]",
        ),
        ({}, {"bars": BARS.replace("SPY", "")}, FileError, "bars0.csv, row 1 has no symbol"),
        ({}, {"bars": BARS.splitlines()[0]}, FileError, "bars0.csv has no rows"),
        ({}, {"bars": ""}, FileError, "bars0.csv does not parse as csv"),
        ({}, {"bars": BARS.replace(",5\n", ",5,6,7\n")}, FileError, "more cells than its header"),
        (
            {},
            {"bars": BARS.replace("2024-06-11", "11/06")},
            ValueError,
            "bars0.csv, ts: expected ISO 8601 .*set time_format",
        ),
        (
            {"ohlcv": {"constants": {"volume": 1}}},
            {},
            ColumnMapError,
            "has a column for volume, and the map a const",
        ),
        (
            {"ohlcv": {"symbol_from_file_name": True}},
            {},
            ColumnMapError,
            "column for symbol, and the map takes it",
        ),
        ({"symbols": {}}, {}, FileError, "the map gives no asset_class for SPY"),
        ({"symbols": {"constants": {"asset_class": "crypto"}}}, {}, FileError, "gives no tradable for SPY"),
        ({"symbols": SPY | {"rows": {"VXI": {}}}}, {}, ColumnMapError, "symbols.rows of the map lists VXI"),
        (
            {"symbols": SPY | {"rows": {"SPY": {}}}},
            {"symbols": "symbol,asset_class,tradable\nSPY,us_equity,true\n"},
            ColumnMapError,
            "both list symbols",
        ),
        ({}, {"symbols": "symbol,asset_class\nSPY,us_equity\n"}, ColumnMapError, "constants|keep one"),
    ],
)
def test_files_and_map_that_do_not_fit_are_refused(
    tmp_path: Path,
    tables: dict[str, object],
    texts: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, maps(**tables), **texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.csv", "cannot read .*nowhere.csv"), ("bars.xlsx", "expected a .csv or")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_files([tmp_path / name], [], None, ColumnMaps())


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bars.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(FileError, match=r"bars.parquet does not parse as parquet"):
        read_files([tmp_path / "bars.parquet"], [], None, ColumnMaps())

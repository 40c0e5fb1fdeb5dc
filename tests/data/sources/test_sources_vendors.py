"""Files as vendors write them: each preset reads one, and a map may have a section for each."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from kronos_service.data.sources.column_map import ColumnMapError, ColumnMaps, parse_column_maps, translate
from kronos_service.data.sources.files import FileError, read_files
from kronos_service.data.sources.presets import PRESETS, PresetName, read_preset, with_presets
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

RELEASES = (
    "release_at,currency,impact,event_type,actual,forecast\n2024-01-11T13:30:00Z,USD,high,cpi,0.3,0.2\n"
)
BARS = "symbol,ts,open,high,low,close,volume\nSPY,2024-01-11,10,11,9,10,5\n"
SPY = 'asset_class = "us_equity"\ntradable = true\n'

BAR_FILES: Mapping[PresetName, Mapping[str, str]] = {
    "yfinance": {
        "SPY.csv": "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
        "2024-07-10 00:00:00-04:00,550.1,561.7,549.9,560.9,38701200,0.0,0.0\n",
        "^VIX.csv": "Date,Open,High,Low,Close,Volume\n2024-07-10 00:00:00-05:00,12.6,13.0,12.5,12.9,0\n",
        "BTC-USD.csv": "Date,Open,High,Low,Close,Volume\n"
        "2024-07-10 00:00:00+00:00,58033.8,59359.4,57178.4,57742.5,2.6e10\n",
        "DX-Y.NYB.csv": "Date,Open,High,Low,Close,Volume\n2024-07-10,105.1,105.2,104.9,105.0,0\n",
    },
    "binance": {
        "BTCUSDT-1d-2024-07.csv": "1720569600000,58050.0,59470.0,57157.8,57725.9,24951.7,1720655999999,1.4e9,"
        "1199,12010.1,7.0e8,0\n1720656000000,57725.9,59650.0,57050.0,57339.9,29761.1,1720742399999,1.7e9,1,2,3,0\n",
        "BTCUSDT-1d-2025-01.csv": "open_time,open,high,low,close,volume,close_time,quote_volume,count\n"
        "1736467200000000,92552.5,95836.0,92206.0,94726.1,18755.1,1736553599999999,1.7e9,2900\n",
    },
    "stooq": {
        "spy.us.txt": "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "SPY.US,D,20240710,000000,550.1,561.7,549.9,560.9,38701200,0\n"
    },
    "mt5": {
        "EURUSD_Daily_202407.csv": "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.07.10\t1.0812\t1.0835\t1.0808\t1.0830\t51200\t0\t0\n"
    },
    "tradingview": {
        # 17:00 New York of the 9th, and of Sunday the 14th: the sessions of the 10th and of Monday
        "TVC_DXY, 1D.csv": "time,open,high,low,close\n1720558800,105.1,105.2,104.9,105.0\n"
        "1720990800,104,105,103,104\n",
        "BATS_SPY, 1D.csv": "time,open,high,low,close,Volume\n1720618200,550.1,561.7,549.9,560.9,38701200\n",
    },
    "cboe-vix": {"VIX_History.csv": "DATE,OPEN,HIGH,LOW,CLOSE\n07/10/2024,12.6,13.0,12.5,12.9\n"},
}
EXPECTED = {
    "yfinance": [
        ("BTCUSDT", "crypto", True, "2024-07-10"),
        ("DXY", "fx", False, "2024-07-10"),
        ("SPY", "us_equity", True, "2024-07-10"),
        ("VIX", "index", False, "2024-07-10"),
    ],
    "binance": [
        ("BTCUSDT", "crypto", True, "2024-07-10"),
        ("BTCUSDT", "crypto", True, "2024-07-11"),
        ("BTCUSDT", "crypto", True, "2025-01-10"),
    ],
    "stooq": [("SPY", "us_equity", True, "2024-07-10")],
    "mt5": [("EURUSD", "fx", True, "2024-07-10")],
    "tradingview": [
        ("DXY", "fx", False, "2024-07-10"),
        ("DXY", "fx", False, "2024-07-15"),
        ("SPY", "us_equity", True, "2024-07-10"),
    ],
    "cboe-vix": [("VIX", "index", False, "2024-07-10")],
}
CALENDAR_FILES: Mapping[PresetName, Mapping[str, str]] = {
    "forexfactory": {
        "week.csv": "Title,Country,Date,Time,Impact,Forecast,Previous,URL\n"
        "CPI m/m,USD,07-11-2024,12:30pm,High,0.1%,0.0%,https://x\n"
        "Bank Holiday,JPY,07-15-2024,All Day,Holiday,,,https://y\n"
        "Unemployment Claims,USD,07-11-2024,12:30pm,High,236K,238K,https://z\n",
        "history.csv": "DateTime,Currency,Impact,Event,Actual,Forecast,Previous,Detail\n"
        "2024-06-12T17:00:00+04:30,USD,High Impact Expected,CPI m/m,0.0%,0.1%,0.3%,d\n",
    },
    "investing": {
        "page.csv": "Day,Time,Currency,Impact,Event,Actual,Forecast,Previous\n"
        '"Thursday, July 11, 2024",08:30,USD,High Volatility Expected,CPI (MoM) (Jun),-0.1%,0.1%,0.0%\n'
        '"Thursday, July 11, 2024",08:30,USD,High Volatility Expected,CPI (YoY) (Jun),3.0%,3.1%,3.3%\n',
        "investpy.csv": "id,date,time,zone,currency,importance,event,actual,forecast,previous\n"
        "1,11/07/2024,12:30,united states,USD,medium,Initial Jobless Claims,222K,236K,239K\n"
        "2,11/07/2024,All Day,japan,JPY,,Holiday,,,\n",
    },
    "fred-dates": {
        "dates.csv": "release_id,release_name,date\n10,Consumer Price Index,2024-07-11\n"
        "101,FOMC Press Release,2024-12-18\n21,H.6 Money Stock Measures,2024-07-23\n"
    },
}
RELEASED = {
    "forexfactory": [
        ("cpi", "2024-06-12 12:30", 0.0),
        ("cpi", "2024-07-11 12:30", None),
        ("jobless_claims", "2024-07-11 12:30", None),
    ],
    "investing": [("cpi", "2024-07-11 12:30", -0.1), ("jobless_claims", "2024-07-11 12:30", 222e3)],
    "fred-dates": [("cpi", "2024-07-11 12:30", None), ("fomc_rate_decision", "2024-12-18 19:00", None)],
}


def write(directory: Path, texts: Mapping[str, str]) -> list[Path]:
    for name, text in texts.items():
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in texts]


def read(
    directory: Path, bars: Mapping[str, str], text: str = "", presets: list[PresetName] | None = None
) -> TableSource:
    maps = with_presets(parse_column_maps(text, "map"), presets or [])
    return read_files(write(directory, bars), write(directory, {"releases.csv": RELEASES}), None, maps)


def bars_of(source: TableSource) -> list[tuple[str, str, bool, str]]:
    kinds = source.symbol_rows.set_index("symbol")
    days = source.bar_rows["ts"].dt.strftime("%Y-%m-%d")
    return [
        (name, str(kinds["asset_class"][name]), bool(kinds["tradable"][name]), day)
        for name, day in zip(source.bar_rows["symbol"].astype("str").tolist(), days.tolist(), strict=True)
    ]


def test_every_preset_is_tried_below() -> None:
    assert {*BAR_FILES, *CALENDAR_FILES} == set(PRESETS)


@pytest.mark.parametrize("name", list(BAR_FILES))
def test_a_preset_reads_its_vendors_bars(tmp_path: Path, name: PresetName) -> None:
    source = read(tmp_path, BAR_FILES[name], presets=[name])
    assert bars_of(source) == EXPECTED[name]
    assert sum(f"is read as the preset {name} says" in note for note in source.notes) == len(BAR_FILES[name])


@pytest.mark.parametrize("name", list(CALENDAR_FILES))
def test_a_preset_reads_its_vendors_releases(tmp_path: Path, name: PresetName) -> None:
    given = write(tmp_path, CALENDAR_FILES[name])
    maps = with_presets(parse_column_maps(f"[symbols.constants]\n{SPY}", "map"), [name])
    rows = read_files(write(tmp_path, {"bars.csv": BARS}), given, None, maps).event_rows
    rows = rows.sort_values(["event_type", "release_at"])
    moments = rows["release_at"].dt.strftime("%Y-%m-%d %H:%M")
    actuals = [None if np.isnan(value) else value for value in rows["actual"].tolist()]
    found = list(zip(rows["event_type"].tolist(), moments.tolist(), actuals, strict=True))
    assert found == RELEASED[name]


def test_presets_of_several_vendors_go_together_each_for_its_files(tmp_path: Path) -> None:
    files = {**BAR_FILES["yfinance"], **BAR_FILES["cboe-vix"], **BAR_FILES["binance"]}
    del files["^VIX.csv"], files["BTC-USD.csv"]
    source = read(tmp_path, files, presets=["yfinance", "binance", "cboe-vix"])
    assert {name for name, *_ in bars_of(source)} == {"SPY", "DXY", "VIX", "BTCUSDT"}
    with pytest.raises(ColumnMapError, match=r"no section of the map is for .*VIX_History.csv"):
        read(tmp_path, files, presets=["yfinance", "binance"])


def test_a_map_has_a_section_for_each_vendor(tmp_path: Path) -> None:
    """Columns, constants, zones and formats differ from file to file."""
    text = """
[[ohlcv]]
files = "binance/*.csv"
constants = { symbol = "BTCUSDT" }
columns = { ts = "open_time", amount = "quote_volume" }
asset_class = "crypto"

[[ohlcv]]
files = ["VIX.csv"]
constants = { symbol = "VIX", volume = 0 }
columns = { ts = "DATE", open = "OPEN", high = "HIGH", low = "LOW", close = "CLOSE" }
time_format = "%m/%d/%Y"
asset_class = "index"
tradable = false

[[ohlcv]]
columns = { ts = "Date", open = "Open", high = "High", low = "Low", close = "Close", volume = "Volume" }
symbol_from_file_name = true
time_zone = "America/New_York"

[symbols]
constants = { asset_class = "us_equity", tradable = true }
"""
    files = {
        "SPY.csv": BAR_FILES["yfinance"]["SPY.csv"],
        "VIX.csv": BAR_FILES["cboe-vix"]["VIX_History.csv"],
        "binance/a.csv": BAR_FILES["binance"]["BTCUSDT-1d-2025-01.csv"],
    }
    assert bars_of(read(tmp_path, files, text)) == [
        ("BTCUSDT", "crypto", True, "2025-01-10"),
        ("SPY", "us_equity", True, "2024-07-10"),
        ("VIX", "index", False, "2024-07-10"),
    ]
    del files["VIX.csv"]
    unused = "warning: files = VIX.csv of the map names none of the files given"
    assert unused in read(tmp_path, files, text).notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_encoding_and_delimiter_are_found_out(tmp_path: Path, encoding: str, delimiter: str) -> None:
    rows = "".join(
        delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in line) + "\n"
        for line in [
            ["symbol", "ts", "open", "high", "low", "close", "volume", "note"],
            ["SPY", "2024-07-10", "10", "11", "9", "10", "5", "a; b, c"],
            ["SPY", "2024-07-11", "10", "11", "9", "10", "5", "d, e; f"],
        ]
    )
    (tmp_path / "bars.txt").write_bytes(rows.encode(encoding))
    (tmp_path / "releases.csv").write_text(RELEASES)
    maps = parse_column_maps(f"[symbols.constants]\n{SPY}", "map")
    source = read_files([tmp_path / "bars.txt"], [tmp_path / "releases.csv"], None, maps)
    assert source.bar_rows["ts"].dt.day.tolist() == [10, 11]


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_bytes(BARS.replace("SPY", "SPÜ").encode("latin-1"))
    with pytest.raises(FileError, match=r"bars.csv is neither UTF-8 nor UTF-16; save it as UTF-8"):
        read_files([tmp_path / "bars.csv"], [tmp_path / "bars.csv"], None, ColumnMaps())


def test_decimal_commas_are_read_where_the_map_says_so_and_else_explained(tmp_path: Path) -> None:
    files = {
        "EURUSD.csv": "<DATE>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<TICKVOL>\n"
        "2024.07.10;1,0812;1,0835;1,0808;1,0830;51.200\n2024.07.11;1,0830;1,0900;1,0826;1,0867;1.051.200\n"
    }
    text = """[ohlcv]
symbol_from_file_name = true
time_format = "%Y.%m.%d"
columns.ts = "<DATE>"
columns.open = "<OPEN>"
columns.high = "<HIGH>"
columns.low = "<LOW>"
columns.close = "<CLOSE>"
columns.volume = "<TICKVOL>"
asset_class = "fx"
tradable = true
"""
    with pytest.raises(FileError, match=r"row 1: open is '1,0812', and so are 8 more .* decimal = \"\.\" or"):
        read(tmp_path, files, text)
    bars = read(tmp_path, files, text + 'decimal = ","\n').bar_rows
    assert bars[["open", "volume"]].to_numpy().tolist() == [[1.0812, 51200.0], [1.083, 1051200.0]]
    with pytest.raises(FileError, match=r"open is '1,0812'"):
        read(tmp_path, files, text + 'decimal = "."\n')


def test_a_file_without_a_line_of_names_is_recognised(tmp_path: Path) -> None:
    files = {"b.csv": BAR_FILES["binance"]["BTCUSDT-1d-2024-07.csv"]}
    text = '[ohlcv]\nconstants = { symbol = "BTCUSDT" }\ncolumns = { ts = "open_time" }\n'
    with pytest.raises(
        FileError, match=r"b.csv has no line of column names: .* 1720569600000, .* 12 columns"
    ):
        read(tmp_path, files, text)
    short = text + 'header = ["open_time"]'
    with pytest.raises(FileError, match=r"12 columns; header of the map names 1"):
        read(tmp_path, files, short)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "symbol,ts,open,high,low,close,volume,close",
            "bars.csv has several columns called close: rename all",
        ),
        ("symbol,ts,open,high,low", "more cells than its header"),
    ],
)
def test_a_line_of_names_that_does_not_fit_is_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read(tmp_path, {"bars.csv": f"{header}\nSPY,2024-07-10,10,11,9,10,5,6\n"})


def test_a_ragged_line_is_named_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"bars.csv does not parse as csv: line 3 has 9 cells, expected 7"):
        read(tmp_path, {"bars.csv": BARS + "SPY,2024-01-12,10,11,9,10,5,6,7\n"})


@pytest.mark.parametrize("word", ["", "null", "-", "N/A", "NaN", "—", "."])
def test_what_stands_for_nothing_is_empty_in_every_column_alike(tmp_path: Path, word: str) -> None:
    given = write(
        tmp_path,
        {
            "releases.csv": "release_at,currency,impact,event_type,event_name,actual,forecast,previous,"
            "first_seen_at\n"
            f"2024-01-11T13:30:00Z,USD,high,cpi,CPI,{word},0.2%,{word},{word}\n"
            f"2024-02-13T13:30:00Z,USD,high,cpi,CPI,0.3%,{word},0.1,2024-02-13T14:00:00Z\n"
        },
    )
    bars = write(tmp_path, {"bars.csv": BARS.replace("10,11,9,10,5", ",".join([word] * 5))})
    source = read_files(bars, given, None, parse_column_maps(f"[symbols.constants]\n{SPY}", "map"))
    assert source.event_rows[["actual", "forecast"]].isna().to_numpy().tolist() == [
        [True, False],
        [False, True],
    ]
    assert source.event_rows["first_seen_at"].isna().tolist() == [True, False]
    assert source.bar_rows[["open", "volume"]].isna().all(axis=None)


def test_a_pattern_takes_a_name_in_all_its_forms() -> None:
    words = {"CPI (MoM)*": "cpi", "*.US": "*", "SPY.US": "spy"}
    assert translate(words, "CPI (MoM) (Aug)") == translate(words, "CPI (MoM)") == "cpi"
    assert translate(words, "QQQ.US") == "QQQ"
    assert translate(words, "SPY.US") == "spy"  # its own entry goes first
    assert translate(words, "Core CPI (MoM)") is translate(words, "CPI (YoY)") is None


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_maps_to_types_and_classes_that_exist(name: PresetName) -> None:
    preset = read_preset(name)
    for section in preset.calendar:
        assert set(section.values.get("event_type", {}).values()) <= set(DEFAULT_TAXONOMY.event_types)
        assert set(section.times) <= set(DEFAULT_TAXONOMY.event_types)

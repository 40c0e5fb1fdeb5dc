"""A map file says what it means or is refused, with the key that is wrong."""

from pathlib import Path

import pytest

from kronos_service.data.sources.column_map import ColumnMapError, ColumnMaps, read_column_maps


def read(directory: Path, text: str) -> ColumnMaps:
    file = directory / "map.toml"
    file.write_text(text, encoding="utf-8")
    return read_column_maps(file)


def test_an_empty_map_means_our_names_and_utc(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ColumnMaps()
    assert ColumnMaps().ohlcv[0].zone_of("us_equity") == ColumnMaps().calendar[0].time_zone == "UTC"


def test_a_zone_for_all_or_for_some_asset_classes(tmp_path: Path) -> None:
    one = read(tmp_path, '[ohlcv]\ntime_zone = "America/New_York"').ohlcv[0]
    assert one.zone_of("crypto") == one.zone_of("index") == "America/New_York"
    some = read(tmp_path, '[ohlcv]\ntime_zone = { index = "America/Chicago" }').ohlcv[0]
    assert (some.zone_of("index"), some.zone_of("crypto")) == ("America/Chicago", "UTC")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[bars]", "map.toml: bars: unknown key"),
        ("[ohlcv]\nzone = 'UTC'", "ohlcv.zone: unknown key"),
        ("[ohlcv]\ntime_zone = 'New York'", "unknown time zone 'New York'; give one such as"),
        ("[ohlcv]\ntime_zone = { crypto = 'UCT2' }", "unknown time zone 'UCT2'"),
        ("[calendar]\ntime_zone = ''", "unknown time zone ''"),
        ("[ohlcv]\ncolumns = { price = 'Close' }", "no such column of ours: price; there are symbol, ts"),
        ("[calendar]\nconstants = { curency = 'USD' }", "no such column of ours: curency"),
        ("[symbols]\nrows.VIX = { class = 'index' }", "symbols.rows.VIX.class"),
        ("[calendar]\nunknown_event_types = 'skip'", "calendar.unknown_event_types: .*'fail' or 'drop'"),
        ("[ohlcv]\nepoch = 'days'", "ohlcv.epoch"),
        ("[ohlcv", "map.toml is not valid TOML"),
    ],
)
def test_a_wrong_map_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ColumnMapError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_every_mistake_of_a_map_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ColumnMapError, match=r"ohlcv.a: unknown key; calendar.b: unknown key"):
        read(tmp_path, "[ohlcv]\na = 1\n[calendar]\nb = 2")


def test_a_map_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ColumnMapError, match=r"cannot read the map .*nowhere.toml"):
        read_column_maps(tmp_path / "nowhere.toml")

"""The usual vendors' shapes of files: sections of a map that ship with the package, one small TOML each."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final, Literal, get_args

from kronos_service.data.sources.column_map import BarMap, CalendarMap, ColumnMaps, parse_column_maps

PresetName = Literal[
    "yfinance",
    "binance",
    "stooq",
    "mt5",
    "tradingview",
    "cboe-vix",
    "forexfactory",
    "investing",
    "fred-dates",
]
PRESETS: Final[tuple[PresetName, ...]] = get_args(PresetName)


def read_preset(name: PresetName) -> ColumnMaps:
    """The sections of one vendor."""
    text = (
        files("kronos_service.data.sources").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    )
    return parse_column_maps(text, f"preset {name}")


def with_presets(maps: ColumnMaps, names: Sequence[PresetName]) -> ColumnMaps:
    """The map's own sections, then those of the presets; a file takes the first that fits its columns."""
    bars = list[BarMap](maps.ohlcv if "ohlcv" in maps.model_fields_set else ())
    releases = list[CalendarMap](maps.calendar if "calendar" in maps.model_fields_set else ())
    for name in names:
        preset = read_preset(name)
        if "ohlcv" in preset.model_fields_set:
            bars += [one.of_preset(name) for one in preset.ohlcv]
        if "calendar" in preset.model_fields_set:
            releases += [one.of_preset(name) for one in preset.calendar]
    return ColumnMaps(
        ohlcv=tuple(bars) or maps.ohlcv, symbols=maps.symbols, calendar=tuple(releases) or maps.calendar
    )

"""What a person's files call our columns and values, read from a small TOML file.

    [ohlcv]
    time_zone = "America/New_York"
    columns = { symbol = "Ticker", ts = "Date" }
    values.symbol = { "^VIX" = "VIX" }

    [symbols]
    constants = { asset_class = "us_equity", tradable = true }
    rows.VIX = { asset_class = "index", tradable = false }

    [calendar]
    time_zone = "America/New_York"
    columns = { release_at = ["Date", "Time"], event_type = "Event", event_name = "Event" }
    constants = { currency = "USD" }
    values.event_type = { "CPI m/m" = "cpi" }

What is left out is as the tables have it: columns under our names, times in UTC.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError

Epoch = Literal["s", "ms", "us", "ns"]
Value = str | bool | int | float


class ColumnMapError(KronosError):
    """A map file cannot be read, or says something that the files contradict."""


class ColumnMap(BaseModel):
    """How the columns of one table come about; the keys of all three mappings are our columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ours: ClassVar[tuple[str, ...]] = ()

    columns: Mapping[str, str | list[str]] = Field(default_factory=dict)
    """Our column -> theirs, or several of theirs to join with a space; the rest go by our names."""
    constants: Mapping[str, Value] = Field(default_factory=dict)
    """Our column -> the one value of every row, for a column that the files lack."""
    values: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Our column -> their value -> ours; other values stay as they are."""

    @field_validator("columns", "constants", "values")
    @classmethod
    def _known(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        unknown = sorted(set(given) - set(cls.ours))
        if unknown:
            raise ValueError(f"no such column of ours: {', '.join(unknown)}; there are {', '.join(cls.ours)}")
        return given


class TimedColumnMap(ColumnMap):
    """A table with times."""

    time_format: str | None = None
    """strptime format of times as text, such as "%m/%d/%Y %I:%M%p" (default: ISO 8601)."""
    epoch: Epoch | None = None
    """Unit of times that are numbers since 1970-01-01 UTC."""


class BarMap(TimedColumnMap):
    """[ohlcv]"""

    ours = BAR_COLUMNS
    time_zone: str | Mapping[str, str] = "UTC"
    """Zone in which a stamp's date is the session date: one, or one per asset class."""
    symbol_from_file_name: bool = False
    """Each file is one symbol: AAPL.csv holds AAPL."""

    @field_validator("time_zone")
    @classmethod
    def _zones(cls, given: str | Mapping[str, str]) -> str | Mapping[str, str]:
        for name in [given] if isinstance(given, str) else given.values():
            _check_zone(name)
        return given

    def zone_of(self, asset_class: str) -> str:
        """The zone of one asset class's stamps; UTC where the map names other classes only."""
        return self.time_zone if isinstance(self.time_zone, str) else self.time_zone.get(asset_class, "UTC")


class SymbolMap(ColumnMap):
    """[symbols]"""

    ours = SYMBOL_COLUMNS
    rows: Mapping[str, Mapping[Literal["asset_class", "tradable"], str | bool]] = Field(default_factory=dict)
    """Without a file of symbols: where a symbol differs from the constants."""


class CalendarMap(TimedColumnMap):
    """[calendar]"""

    ours = CALENDAR_COLUMNS
    time_zone: str = "UTC"
    """Zone of times that do not name their own."""
    unknown_event_types: Literal["fail", "drop"] = "fail"
    """What happens to rows whose type, once mapped, is none of ours."""

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, given: str) -> str:
        _check_zone(given)
        return given


class ColumnMaps(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ohlcv: BarMap = Field(default_factory=BarMap)
    symbols: SymbolMap = Field(default_factory=SymbolMap)
    calendar: CalendarMap = Field(default_factory=CalendarMap)


def read_column_maps(path: Path) -> ColumnMaps:
    """Read a map file.

    Raises:
        ColumnMapError: it does not exist or parse, or names a key, a column or a time zone that there is not.
    """
    try:
        return ColumnMaps.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ColumnMapError(f"cannot read the map {path} ({error.strerror})") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {_words(one)}" for one in error.errors()]
        raise ColumnMapError(f"{path}: {'; '.join(wrong)}; docs/files.md shows a map") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ColumnMapError(f"{path} is not valid TOML: {error}") from None


def _words(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    return str(error["msg"]).removeprefix("Value error, ")


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"unknown time zone {name!r}; give one such as America/New_York") from None

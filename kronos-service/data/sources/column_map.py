"""The map from a user's columns and values to ours, read from a small TOML file.

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

Defaults: columns under our names, times in UTC.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError

Epoch = Literal["s", "ms", "us", "ns"]
Value = str | bool | int | float


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"unknown time zone {name!r}; give one such as America/New_York") from None
    return name


Zone = Annotated[str, AfterValidator(_check_zone)]


class ColumnMapError(KronosError):
    """A map file cannot be read, or contradicts the files."""


class ColumnMap(BaseModel):
    """Where the columns of one table come from; the keys of all three mappings are our columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ours: ClassVar[tuple[str, ...]] = ()

    columns: Mapping[str, str | list[str]] = Field(default_factory=dict)
    """Our column -> theirs, or several of theirs to join by a space; other columns have our names."""
    constants: Mapping[str, Value] = Field(default_factory=dict)
    """Our column -> its value in every row, for a column that the files lack."""
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
    time_zone: Zone | Mapping[str, Zone] = "UTC"
    """Zone in which a timestamp's date is the session date: one, or one per asset class."""
    symbol_from_file_name: bool = False
    """Each file is one symbol: AAPL.csv holds AAPL."""

    def zone_of(self, asset_class: str) -> str:
        """The zone of one asset class's timestamps; UTC if the map names other classes only."""
        return self.time_zone if isinstance(self.time_zone, str) else self.time_zone.get(asset_class, "UTC")


class SymbolMap(ColumnMap):
    """[symbols]"""

    ours = SYMBOL_COLUMNS
    rows: Mapping[str, Mapping[Literal["asset_class", "tradable"], str | bool]] = Field(default_factory=dict)
    """Without a file of symbols: the symbols that differ from the constants."""


class CalendarMap(TimedColumnMap):
    """[calendar]"""

    ours = CALENDAR_COLUMNS
    time_zone: Zone = "UTC"
    """Zone of times that do not name their own."""
    unknown_event_types: Literal["fail", "drop"] = "fail"
    """What happens to rows whose mapped type is not in the taxonomy."""


class ColumnMaps(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ohlcv: BarMap = Field(default_factory=BarMap)
    symbols: SymbolMap = Field(default_factory=SymbolMap)
    calendar: CalendarMap = Field(default_factory=CalendarMap)


def read_column_maps(path: Path) -> ColumnMaps:
    """Read a map file.

    Raises:
        ColumnMapError: it does not exist or parse, or names an unknown key, column or time zone.
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

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

Files that differ have a section each: [[ohlcv]] tables with `files = "binance/*.csv"`. In names of files,
symbols and values, `*` stands for any text. Defaults: columns under our names, times in UTC.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from kronos_shared.cli import did_you_mean
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError

Epoch = Literal["s", "ms", "us", "ns"]
Value = str | bool | int | float
AssetClass = Literal["crypto", "us_equity", "index", "fx"]
SYMBOL: Final = "{symbol}"
Given = TypeVar("Given")


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"unknown time zone {name!r}; give one such as America/New_York") from None
    return name


Zone = Annotated[str, AfterValidator(_check_zone)]
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""HH:MM"""
Several = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
"""One, or a list."""


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
    """Our column -> their value -> ours; other values stay as they are. `*` is any text, in ours the same."""

    @field_validator("columns", "constants", "values")
    @classmethod
    def _known(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        unknown = sorted(set(given) - set(cls.ours))
        if unknown:
            raise ValueError(f"no such column of ours: {', '.join(unknown)}; there are {', '.join(cls.ours)}")
        return given

    def theirs(self) -> set[str]:
        """Their columns that the map names."""
        return {
            name for given in self.columns.values() for name in ([given] if isinstance(given, str) else given)
        }


class FileMap(ColumnMap):
    """A table in files: which of them, and how their times and numbers are written."""

    files: Several = ()
    """The files of this section, such as "binance/*.csv"; without it, those that no other section names."""
    header: tuple[str, ...] = ()
    """The names of the columns, in order, where a file has no line of names."""
    decimal: Literal[".", ","] | None = None
    """The decimal mark; the other one then groups thousands. Without it, commas in numbers are rejected."""
    time_format: str | None = None
    """strptime format of times as text, such as "%m/%d/%Y %I:%M%p" (default: ISO 8601)."""
    epoch: Epoch | None = None
    """Unit of times that are numbers since 1970-01-01 UTC; without it their size tells."""
    _preset: str = PrivateAttr(default="")

    @property
    def preset(self) -> str:
        """The preset that the section comes from; empty for the user's own."""
        return self._preset

    def of_preset(self, name: str) -> Self:
        """The section as one of a preset."""
        copy = self.model_copy()
        copy._preset = name
        return copy

    def serves(self, file: Path) -> bool:
        """Whether `files` names the file."""
        return any(file.match(pattern) for pattern in self.files)


class BarMap(FileMap):
    """[ohlcv]"""

    ours = BAR_COLUMNS
    time_zone: Zone | Mapping[str, Zone] = "UTC"
    """Zone in which a timestamp's date is the session date: one, or one per asset class."""
    day_starts: ClockTime | Mapping[str, ClockTime] | None = None
    """When the day of a 24-hour bar begins, in its zone; a bar is dated by the day on which it ends."""
    symbol_from_file_name: bool | str = False
    """Each file is one symbol: AAPL.csv holds AAPL; or where in the name it is, as in "{symbol}-1d-*"."""
    asset_class: AssetClass | Mapping[str, AssetClass] | None = None
    """Of all symbols of these files, or by symbol; [symbols] may say otherwise."""
    tradable: bool | Mapping[str, bool] | None = None
    """As `asset_class`."""

    @field_validator("symbol_from_file_name")
    @classmethod
    def _has_symbol(cls, given: bool | str) -> bool | str:
        if isinstance(given, str) and given.count(SYMBOL) != 1:
            raise ValueError(f'expected true or a pattern with one {SYMBOL}, such as "{SYMBOL}-1d-*"')
        return given

    def zone_of(self, asset_class: str) -> str:
        """The zone of one asset class's timestamps; UTC if the map names other classes only."""
        return self.time_zone if isinstance(self.time_zone, str) else self.time_zone.get(asset_class, "UTC")

    def day_start_of(self, asset_class: str) -> str | None:
        """When the day of one asset class's bars begins, if the map says so."""
        given = self.day_starts
        return given if given is None or isinstance(given, str) else given.get(asset_class)

    def symbol_of(self, file: Path) -> str:
        """The symbol in a file's name; the whole name where the pattern does not fit."""
        if isinstance(self.symbol_from_file_name, str):
            before, after = self.symbol_from_file_name.split(SYMBOL)
            found = re.fullmatch(f"{_regex(before)}(?P<symbol>.+?){_regex(after)}", file.stem)
            return found["symbol"] if found else file.stem
        return file.stem


class SymbolMap(ColumnMap):
    """[symbols]"""

    ours = SYMBOL_COLUMNS
    rows: Mapping[str, Mapping[Literal["asset_class", "tradable"], str | bool]] = Field(default_factory=dict)
    """Without a file of symbols: the symbols that differ from the constants."""


class CalendarMap(FileMap):
    """[calendar]"""

    ours = CALENDAR_COLUMNS
    time_zone: Zone = "UTC"
    """Zone of times that do not name their own."""
    times: Mapping[str, ClockTime] = Field(default_factory=dict)
    """Our event type -> its time of day, where the file has dates only."""
    unknown_event_types: Literal["fail", "drop"] = "fail"
    """What happens to rows whose mapped type is not in the taxonomy."""


Section = TypeVar("Section", BarMap, CalendarMap)
Sections = BeforeValidator(lambda given: [given] if isinstance(given, Mapping | FileMap) else given)


class ColumnMaps(BaseModel):
    """The whole file; a table [ohlcv] or [calendar] is the same as a list of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ohlcv: Annotated[tuple[BarMap, ...], Sections] = (BarMap(),)
    symbols: SymbolMap = Field(default_factory=SymbolMap)
    calendar: Annotated[tuple[CalendarMap, ...], Sections] = (CalendarMap(),)

    @model_validator(mode="after")
    def _has_sections(self) -> "ColumnMaps":
        if not self.ohlcv or not self.calendar:
            raise ValueError("expected at least one section ohlcv and one calendar, got an empty list")
        return self


def choose_section(sections: Sequence[Section], file: Path, columns: Iterable[str]) -> Section:
    """The section of a file: the first that names it, or else the first that fits its columns.

    Args:
        columns: those of the file; empty where it has no line of names.

    Raises:
        ColumnMapError: none is for this file.
    """
    named = [one for one in sections if one.serves(file)]
    others = [one for one in sections if not one.files]
    if named or len(others) == 1:
        return (named or others)[0]
    present = set(columns)
    fitting = [one for one in others if (one.theirs() <= present if present else one.header)]
    if not fitting:
        shown = f"it has {', '.join(list(columns)[:12])}" if present else "it has no line of column names"
        raise ColumnMapError(
            f"no section of the map is for {file} ({shown}): give a section of the map "
            f'files = "{file.name}", or name the --preset of its vendor'
        )
    return fitting[0]


def translate(words: Mapping[str, Given], text: str) -> Given | None:
    """What a mapping with patterns says of a text: its own entry, or the first pattern that fits.

    Where ours has a `*`, too, it is what their `*` stood for.
    """
    if text in words:
        return words[text]
    for pattern, ours in words.items():
        if "*" in pattern and (found := re.fullmatch(_regex(pattern), text)):
            return ours.replace("*", found[1]) if isinstance(ours, str) and "*" in ours else ours  # type: ignore[return-value]
    return None


def _regex(pattern: str) -> str:
    return "(.*)".join(map(re.escape, pattern.split("*")))


def read_column_maps(path: Path) -> ColumnMaps:
    """Read a map file.

    Raises:
        ColumnMapError: it does not exist or parse, or names an unknown key, column or time zone.
    """
    try:
        return parse_column_maps(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ColumnMapError(f"cannot read the map {path} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ColumnMapError(f"{path} is not valid TOML: {error}") from None


def parse_column_maps(text: str, where: str) -> ColumnMaps:
    """The map of a text, which `where` names in messages; raises as `read_column_maps` does."""
    try:
        return ColumnMaps.model_validate(tomllib.loads(text))
    except ValidationError as error:
        wrong = dict.fromkeys(f"{_place(one['loc'])}: {_words(one)}" for one in error.errors())
        raise ColumnMapError(f"{where}: {'; '.join(wrong)}; docs/files.md shows a map") from None
    except tomllib.TOMLDecodeError as error:
        raise ColumnMapError(f"{where} is not valid TOML: {error}") from None


def _place(parts: tuple[int | str, ...]) -> str:
    """The key as it is written: sections are counted from 1, and the first goes without a number."""
    words = [str(part + 1) if isinstance(part, int) else part for part in parts if part != 0]
    return ".".join(words)


def _words(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        known = {*BarMap.model_fields, *SymbolMap.model_fields, *CalendarMap.model_fields}
        return f"unknown key{did_you_mean(str(error['loc'][-1]), known)}"
    return str(error["msg"]).removeprefix("Value error, ")

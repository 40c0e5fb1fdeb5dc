"""Tables from a user's own csv or parquet files, under any column names and in any time zone.

They become a source like any other: the same validation leads into the same snapshot. What is filtered out is
never parsed, and the faults of all files are reported together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple

import pandas as pd

from kronos_service.data.sources.calendar_rows import read_events
from kronos_service.data.sources.column_map import (
    BarMap,
    ColumnMap,
    ColumnMapError,
    ColumnMaps,
    FileMap,
    Section,
    choose_section,
    translate,
)
from kronos_service.data.sources.faults import Faults
from kronos_service.data.sources.figures import read_figures
from kronos_service.data.sources.session_dates import session_days
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.data.sources.text_files import SUFFIXES, read_text_table
from kronos_service.data.sources.text_files import FileError as FileError
from kronos_service.data.sources.timestamps import UNITS, epoch_units, read_timestamps, without_zone
from kronos_service.data.tables import OPTIONAL, TableError, some
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, FEATURES, SYMBOL_COLUMNS
from kronos_shared.errors import first_line

SCHEDULE: Final = ("event_name", "actual", "forecast")
"""Columns that a file of releases may lack: it is then a schedule without figures."""


class _File(NamedTuple, Generic[Section]):
    """A file, its section of the map, and its rows under our names."""

    path: Path
    section: Section
    rows: pd.DataFrame


def read_files(
    ohlcv: Sequence[Path],
    calendar: Sequence[Path],
    symbols: Path | None,
    maps: ColumnMaps,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> TableSource:
    """Read the files as the map says.

    Args:
        ohlcv: files of daily bars.
        calendar: files of releases.
        symbols: a file of symbols; without one the map gives each symbol of the bars its asset class.
        maps: names, constants, zones.
        taxonomy: which releases count.

    Raises:
        FileError: a file cannot be read, or lacks a column that the map names, or a number does not parse.
        ColumnMapError: the map contradicts the files, or leaves a symbol without an asset class.
        TableError: timestamps are not what the map says (`TimestampError`), or release times are bare dates.
    """
    faults, notes = Faults(), list[str]()
    bars = _read_all(ohlcv, maps.ohlcv, BAR_COLUMNS, faults, notes)
    events = _read_all(calendar, maps.calendar, CALENDAR_COLUMNS, faults, notes)
    faults.refuse()  # without its columns there is nothing to go on with
    notes += _unmatched("ohlcv", bars) + _unmatched("calendar", events)
    bars = [one._replace(rows=mapped(one.rows, one.section)) for one in bars]
    symbol_rows = _symbol_rows(symbols, maps, bars)
    asset_class = symbol_rows.drop_duplicates("symbol").set_index("symbol")["asset_class"]
    bar_rows = pd.concat([_bars(one, asset_class, faults, notes) for one in bars], ignore_index=True)
    event_rows = read_events(
        [(one.path, mapped(one.rows, one.section), one.rows, one.section) for one in events],
        faults,
        notes,
        taxonomy,
    )
    faults.refuse()
    more = f" and {len(ohlcv) - 1} more" if len(ohlcv) > 1 else ""
    return TableSource(
        name=f"files:{ohlcv[0].name}{more}",
        symbol_rows=symbol_rows,
        bar_rows=bar_rows.sort_values(["symbol", "ts"], kind="stable", ignore_index=True),
        event_rows=event_rows,
        notes=tuple(notes),
        taxonomy=taxonomy,
    )


def mapped(rows: pd.DataFrame, column_map: ColumnMap) -> pd.DataFrame:
    """Replace their values by ours, as the map says."""
    changed = {}
    for ours, words in column_map.values.items():
        if ours in rows.columns:
            distinct = {value: translate(words, str(value)) for value in rows[ours].dropna().unique()}
            known = {value: word for value, word in distinct.items() if word is not None}
            changed[ours] = rows[ours].map(lambda value, known=known: known.get(value, value))
    return rows.assign(**changed)


def _read_all(
    paths: Sequence[Path],
    sections: Sequence[Section],
    ours: Sequence[str],
    faults: Faults,
    notes: list[str],
) -> list[_File[Section]]:
    """The files under our names; one that cannot be read is a fault, and so are missing columns."""
    files = []
    for path in paths:
        try:
            frame, has_header = _read(path)
            columns = [str(name) for name in frame.columns]
            section = choose_section(sections, path, columns if has_header else ())
            frame = _headed(path, frame, section, notes) if not has_header else frame
            files.append(_File(path, section, _complete(path, _named(path, frame, section), ours)))
        except (TableError, ColumnMapError) as error:
            faults.add(error)
            continue
        if section.preset:
            notes.append(f"{path.name} is read as the preset {section.preset} says")
    used = {id(one.section) for one in files}
    notes += [
        f"warning: files = {some(list(one.files))} of the map names none of the files given"
        for one in sections
        if one.files and id(one) not in used and not faults.found
    ]
    return files


def _read(file: Path) -> tuple[pd.DataFrame, bool]:
    kind = file.suffix.lower()
    if kind in SUFFIXES:
        return read_text_table(file)
    if kind != ".parquet":
        raise FileError(
            f"{file}: expected a .csv or a .parquet file (text may also be called {', '.join(SUFFIXES[1:])})"
        )
    try:
        frame = pd.read_parquet(file)
    except OSError as error:
        raise FileError(f"cannot read {file} ({error.strerror or error})") from None
    except ValueError as error:
        raise FileError(f"{file} does not parse as parquet: {first_line(error)}") from None
    if frame.empty:
        raise FileError(f"{file} has no rows")
    # A parquet file may keep its dates in a named index.
    return frame.reset_index(drop=frame.index.names == [None]), True


def _headed(file: Path, frame: pd.DataFrame, section: FileMap, notes: list[str]) -> pd.DataFrame:
    """The frame of a file without a line of names, under those of the map."""
    count = len(frame.columns)
    if not section.header:
        raise FileError(
            f"{file} has no line of column names: its first line holds values, such as "
            f"{some([str(value) for value in frame.iloc[0]], most=3)}; name its {count} columns in order "
            f"with header = [...] in the map, or use the --preset of its vendor"
        )
    if len(section.header) != count:
        raise FileError(
            f"{file} has no line of column names and {count} columns; header of the map names "
            f"{len(section.header)}"
        )
    notes.append(f"{file.name} has no line of column names: they are taken from header of the map")
    return frame.set_axis(list(section.header), axis=1)


def _named(file: Path, frame: pd.DataFrame, column_map: ColumnMap) -> pd.DataFrame:
    """Our columns, under our names, as far as the file has them or the map makes them."""
    chosen = {}
    for ours in column_map.ours:
        theirs = column_map.columns.get(ours, ours)
        parts = [theirs] if isinstance(theirs, str) else theirs
        if ours in column_map.constants:
            if ours in column_map.columns or ours in frame.columns:
                raise ColumnMapError(f"{file} has a column for {ours}, and the map a constant: keep one")
            chosen[ours] = pd.Series([column_map.constants[ours]] * len(frame))
        elif ours in column_map.columns or ours in frame.columns:
            missing = [part for part in parts if part not in frame.columns]
            if missing:
                present = some([str(name) for name in frame.columns], most=12)
                raise FileError(
                    f"{file} has no column {some(missing)} (for {ours}); it has {present}: give a "
                    f'file of another shape its own section of the map (files = "{file.name}"), or name the '
                    "--preset of its vendor"
                )
            chosen[ours] = _joined(frame, parts)
    rows = pd.DataFrame(chosen)
    if isinstance(column_map, BarMap) and column_map.symbol_from_file_name:
        if "symbol" in rows.columns:
            raise ColumnMapError(
                f"{file} has a column for symbol, and the map takes it from the name: keep one"
            )
        rows = rows.assign(symbol=column_map.symbol_of(file))
    return rows


def _joined(frame: pd.DataFrame, parts: Sequence[str]) -> pd.Series:
    if len(parts) == 1:
        return frame[parts[0]]
    whole: pd.Series = frame[list(parts)].astype("str").agg(" ".join, axis=1)
    return whole.where(frame[list(parts)].notna().all(axis=1))


def _complete(file: Path, rows: pd.DataFrame, needed: Sequence[str]) -> pd.DataFrame:
    section = "ohlcv" if needed is BAR_COLUMNS else "calendar"
    may_lack = OPTIONAL if section == "ohlcv" else (*OPTIONAL, "symbol", *SCHEDULE)
    missing = [name for name in needed if name not in rows.columns and name not in may_lack]
    if missing:
        raise FileError(
            f"{file} has no column {some(missing)}: say which of its columns it is under [{section}.columns] "
            f"of the map, or give its one value under [{section}.constants]"
        )
    if section == "ohlcv" and rows["symbol"].isna().any():
        raise FileError(f"{file}, row {int(rows['symbol'].isna().to_numpy().argmax()) + 1} has no symbol")
    return rows


def _unmatched(table: str, files: Sequence[_File[Section]]) -> list[str]:
    """A note per mapped value that no row has: a misspelt one would silently map nothing.

    Presets list what a vendor may have, so theirs are left out.
    """
    notes = []
    for section in {id(one.section): one.section for one in files}.values():
        for ours, words in {} if section.preset else section.values.items():
            frames = [one.rows for one in files if one.section is section and ours in one.rows.columns]
            seen = {str(value) for rows in frames for value in rows[ours].unique()}
            unseen = [
                theirs
                for theirs in words
                if not any(translate({theirs: ""}, one) is not None for one in seen)
            ]
            if unseen:
                notes.append(
                    f"warning: {table}.values.{ours} of the map matches nothing: {some(sorted(unseen))}"
                )
    return notes


def _symbol_rows(file: Path | None, maps: ColumnMaps, bars: Sequence[_File[BarMap]]) -> pd.DataFrame:
    if file is not None:
        if maps.symbols.rows:
            raise ColumnMapError(f"{file} and symbols.rows of the map both list symbols: keep one")
        rows, where = mapped(_named(file, _read(file)[0], maps.symbols), maps.symbols), file.name
    else:
        section_of = {str(name): one.section for one in bars for name in one.rows["symbol"].unique()}
        unknown = sorted(set(maps.symbols.rows) - set(section_of))
        if unknown:
            raise ColumnMapError(f"symbols.rows of the map lists {some(unknown)}, of which no file has bars")
        settings = [
            {"symbol": name}
            | dict(maps.symbols.constants)
            | _of_section(section, name)
            | {str(column): value for column, value in maps.symbols.rows.get(name, {}).items()}
            for name, section in sorted(section_of.items())
        ]
        rows, where = pd.DataFrame(settings), "the map"
    for column in SYMBOL_COLUMNS:
        lacking = rows if column not in rows.columns else rows[rows[column].isna()]
        if not lacking.empty:
            names = some([str(name) for name in lacking.get("symbol", pd.Series(lacking.index))])
            raise FileError(
                f"{where} gives no {column} for {names}: set it under [symbols.constants] or [symbols.rows] "
                "of the map, or in the file of symbols"
            )
    return rows


def _of_section(section: BarMap, symbol: str) -> dict[str, str | bool]:
    """What a section says of a symbol of its files."""
    found: dict[str, str | bool] = {}
    for column, given in (("asset_class", section.asset_class), ("tradable", section.tradable)):
        value = translate(given, symbol) if isinstance(given, dict) else given
        if isinstance(value, str | bool):
            found[column] = value
    return found


def _bars(file: _File[BarMap], asset_class: pd.Series, faults: Faults, notes: list[str]) -> pd.DataFrame:
    """Bars with session dates and numbers; the asset class decides the zone of a symbol's timestamps."""
    path, section, rows = file
    where = f"{path.name}, ts"
    rows, wrong = read_figures(rows, FEATURES, path.name, section.decimal)
    faults.add(*wrong)
    dated = []
    for name, stamps in rows["ts"].groupby(rows["symbol"].map(asset_class).fillna("")):
        moments = read_timestamps(stamps, where, section.zone_of(str(name)), section, faults)
        naive = without_zone(stamps, section)
        dated.append(
            session_days(
                moments,
                str(name),
                where,
                day_starts=section.day_start_of(str(name)),
                is_moment=~naive & (stamps.astype("str").str.len() > len("2024-06-12")),
                faults=faults,
            )
        )
    notes += epoch_notes(path, rows["ts"], section)
    return rows.assign(ts=pd.concat(dated))


def epoch_notes(file: Path, raw: pd.Series, section: FileMap) -> list[str]:
    """A note where numbers were read as times in a unit that the map does not name."""
    units = epoch_units(raw, section)
    return [
        f"{file.name}: {int((units == unit).sum())} times are {name} since 1970, by their size"
        for unit, name in UNITS.items()
        if (units == unit).any() and unit != section.epoch
    ]

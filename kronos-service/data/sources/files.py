"""Tables from a user's own csv or parquet files, under any column names and in any time zone.

They become a source like any other: the same validation leads into the same snapshot.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from kronos_service.data.sources.column_map import ColumnMap, ColumnMapError, ColumnMaps
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.data.sources.timestamps import read_timestamps, refuse_bare_dates, session_days
from kronos_service.data.tables import OPTIONAL, TableError, read_csv, some
from kronos_service.events.taxonomy import CURRENCY, EVENT_TYPES
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, FEATURES, SYMBOL_COLUMNS
from kronos_shared.errors import first_line

_FIGURE: Final = re.compile(r"([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*([%KMBT]?)")
_UNITS: Final = {"": 1.0, "%": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


class FileError(TableError):
    """A file cannot be read, or a column is not what the map says."""


def read_files(
    ohlcv: Sequence[Path], calendar: Sequence[Path], symbols: Path | None, maps: ColumnMaps
) -> TableSource:
    """Read the files as the map says.

    Args:
        ohlcv: files of daily bars.
        calendar: files of releases.
        symbols: a file of symbols; without one the map gives each symbol of the bars its asset class.
        maps: names, constants, zones.

    Raises:
        FileError: a file cannot be read, or lacks a column that the map names, or a number does not parse.
        ColumnMapError: the map contradicts the files, or leaves a symbol without an asset class.
        TableError: timestamps are not what the map says (`TimestampError`), or release times are bare dates.
    """
    bars = [(file, _named_bars(file, maps)) for file in ohlcv]
    events = [(file, _complete(file, _named(file, maps.calendar), "calendar")) for file in calendar]
    notes = _unmatched("ohlcv", maps.ohlcv, [rows for _, rows in bars])
    notes += _unmatched("calendar", maps.calendar, [rows for _, rows in events])
    bars = [(file, _mapped(rows, maps.ohlcv)) for file, rows in bars]
    symbol_rows = _symbol_rows(symbols, maps, bars)
    asset_class = symbol_rows.drop_duplicates("symbol").set_index("symbol")["asset_class"]
    event_rows = pd.concat([_events(file, rows, maps) for file, rows in events], ignore_index=True)
    if maps.calendar.unknown_event_types == "drop":
        event_rows, dropped = _without_unknown_types(event_rows)
        notes += dropped
    bar_rows = pd.concat([_bars(file, rows, asset_class, maps) for file, rows in bars], ignore_index=True)
    more = f" and {len(ohlcv) - 1} more" if len(ohlcv) > 1 else ""
    return TableSource(
        name=f"files:{ohlcv[0].name}{more}",
        symbol_rows=symbol_rows,
        bar_rows=bar_rows.sort_values(["symbol", "ts"], kind="stable", ignore_index=True),
        event_rows=event_rows,
        notes=tuple(notes),
    )


def _read(file: Path) -> pd.DataFrame:
    kind = file.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise FileError(f"{file}: expected a .csv or a .parquet file")
    try:
        frame = read_csv(file) if kind == ".csv" else pd.read_parquet(file)
    except OSError as error:
        raise FileError(f"cannot read {file} ({error.strerror or error})") from None
    except ValueError as error:
        raise FileError(f"{file} does not parse as {kind[1:]}: {first_line(error)}") from None
    if frame.empty:
        raise FileError(f"{file} has no rows")
    if kind == ".csv" and not isinstance(frame.index, pd.RangeIndex):
        raise FileError(f"{file}: its rows have more cells than its header; fix the header")
    # A parquet file may keep its dates in a named index.
    return frame.reset_index(drop=frame.index.names == [None])


def _named(file: Path, column_map: ColumnMap) -> pd.DataFrame:
    """Our columns, under our names, as far as the file has them or the map makes them."""
    frame, chosen = _read(file), {}
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
                raise FileError(f"{file} has no column {some(missing)} (for {ours}); it has {present}")
            chosen[ours] = _joined(frame, parts)
    return pd.DataFrame(chosen)


def _joined(frame: pd.DataFrame, parts: Sequence[str]) -> pd.Series:
    if len(parts) == 1:
        return frame[parts[0]]
    whole: pd.Series = frame[list(parts)].astype("str").agg(" ".join, axis=1)
    return whole.where(frame[list(parts)].notna().all(axis=1))


def _named_bars(file: Path, maps: ColumnMaps) -> pd.DataFrame:
    rows = _named(file, maps.ohlcv)
    if maps.ohlcv.symbol_from_file_name:
        if "symbol" in rows.columns:
            raise ColumnMapError(
                f"{file} has a column for symbol, and the map takes it from the name: keep one"
            )
        rows = rows.assign(symbol=file.stem)
    _complete(file, rows, "ohlcv")
    if rows["symbol"].isna().any():
        raise FileError(f"{file}, row {int(rows['symbol'].isna().to_numpy().argmax()) + 1} has no symbol")
    return rows


def _complete(file: Path, rows: pd.DataFrame, section: str) -> pd.DataFrame:
    needed = BAR_COLUMNS if section == "ohlcv" else CALENDAR_COLUMNS
    missing = [name for name in needed if name not in rows.columns and name not in OPTIONAL]
    if missing:
        raise FileError(
            f"{file} has no column {some(missing)}: say which of its columns it is under [{section}.columns] "
            f"of the map, or give its one value under [{section}.constants]"
        )
    return rows


def _mapped(rows: pd.DataFrame, column_map: ColumnMap) -> pd.DataFrame:
    """Replace their values by ours, as the map says."""
    changed = {
        ours: rows[ours].map(lambda value, words=words: words.get(str(value), value))
        for ours, words in column_map.values.items()
        if ours in rows.columns
    }
    return rows.assign(**changed)


def _unmatched(table: str, column_map: ColumnMap, frames: Sequence[pd.DataFrame]) -> list[str]:
    """A note per mapped value that no row has: a misspelt one would silently map nothing."""
    notes = []
    for ours, words in column_map.values.items():
        seen = {str(value) for rows in frames if ours in rows.columns for value in rows[ours].unique()}
        unseen = sorted(set(words) - seen)
        if unseen:
            notes.append(f"warning: {table}.values.{ours} of the map matches nothing: {some(unseen)}")
    return notes


def _symbol_rows(
    file: Path | None, maps: ColumnMaps, bars: Sequence[tuple[Path, pd.DataFrame]]
) -> pd.DataFrame:
    if file is not None:
        if maps.symbols.rows:
            raise ColumnMapError(f"{file} and symbols.rows of the map both list symbols: keep one")
        rows, where = _mapped(_named(file, maps.symbols), maps.symbols), file.name
    else:
        names = sorted({str(name) for _, table in bars for name in table["symbol"].unique()})
        unknown = sorted(set(maps.symbols.rows) - set(names))
        if unknown:
            raise ColumnMapError(f"symbols.rows of the map lists {some(unknown)}, of which no file has bars")
        settings = [{"symbol": n, **maps.symbols.constants, **maps.symbols.rows.get(n, {})} for n in names]
        rows, where = pd.DataFrame(settings), "the map"
    for column in SYMBOL_COLUMNS:
        lacking = rows if column not in rows.columns else rows[rows[column].isna()]
        if not lacking.empty:
            listed = some([str(name) for name in lacking.get("symbol", pd.Series(lacking.index))])
            raise FileError(
                f"{where} gives no {column} for {listed}: set it under [symbols.constants] or [symbols.rows] "
                "of the map, or in the file of symbols"
            )
    return rows


def _bars(file: Path, rows: pd.DataFrame, asset_class: pd.Series, maps: ColumnMaps) -> pd.DataFrame:
    """Bars with session dates and numbers; the asset class decides the zone of a symbol's timestamps."""
    rows = _with_numbers(file, rows, FEATURES)
    where = f"{file.name}, ts"
    dated = []
    for name, stamps in rows["ts"].groupby(rows["symbol"].map(asset_class).fillna("")):
        moments = read_timestamps(stamps, where, maps.ohlcv.zone_of(str(name)), maps.ohlcv)
        dated.append(session_days(moments, str(name), where))
    return rows.assign(ts=pd.concat(dated))


def _events(file: Path, rows: pd.DataFrame, maps: ColumnMaps) -> pd.DataFrame:
    """Calendar rows with our values, moments and numbers."""
    rows = _with_numbers(file, _mapped(rows, maps.calendar), ("actual", "forecast", "previous"))
    ours = rows["currency"] == CURRENCY
    for column, at_midnight in (("release_at", ours), ("first_seen_at", ours & False)):
        if column in rows.columns:
            raw, where = rows[column], f"{file.name}, {column}"
            moments = read_timestamps(raw, where, maps.calendar.time_zone, maps.calendar)
            refuse_bare_dates(raw, moments, at_midnight, where)
            rows = rows.assign(**{column: moments.dt.tz_convert("UTC")})
    return rows


def _with_numbers(file: Path, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return rows.assign(**{name: _numbers(file, rows[name], name) for name in columns if name in rows.columns})


def _numbers(file: Path, raw: pd.Series, column: str) -> pd.Series:
    """Numbers, also as 3.2%, 216K or 1.5M; commas are ambiguous (1,234 or 1,5) and refused."""
    try:
        return pd.to_numeric(raw).astype("float64")
    except (ValueError, TypeError):
        text = raw.astype("str").str.strip().where(raw.notna())
    found = text.str.extract(f"^{_FIGURE.pattern}$")
    wrong = text.notna() & found[0].isna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise FileError(
            f"{file.name}, row {row + 1}: {column} is {text.iloc[row]!r}; expected a number such as 1234.5, "
            "3.2% or 216K"
        )
    return pd.to_numeric(found[0]).astype("float64") * found[1].map(_UNITS)


def _without_unknown_types(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose type is known or whose currency no channel uses, and a note of what was left out."""
    unknown = (rows["currency"] == CURRENCY) & ~rows["event_type"].isin(list(EVENT_TYPES))
    if not unknown.any():
        return rows, []
    counts = rows.loc[unknown, "event_type"].astype("str").value_counts()
    listed = some([f"{name} ({count})" for name, count in counts.items()])
    return rows[~unknown], [f"left out {int(unknown.sum())} {CURRENCY} rows of other event types: {listed}"]

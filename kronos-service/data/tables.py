"""The three tables in memory: raw frames become typed frames here, with one set of columns and dtypes.

A source hands over whatever its reader gave it; later code can trust names, dtypes and order. Only the form
is checked here; `validation` checks the values. Times without a zone are UTC, unknown columns are dropped,
and missing optional columns are null.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

import pandas as pd

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, FEATURES, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError, first_line

TABLES: Final = ("ohlcv_1d", "symbols", "economic_calendar")
"""Table names, as in the database and as file names."""

OPTIONAL: Final = ("amount", "event_id", "previous", "first_seen_at")
"""Columns that a table may lack; a calendar may lack `symbol` too, a table of bars may not."""
TRUTH: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class TableError(KronosError):
    """A table does not have the promised form: a column, a type or a key is wrong."""


class ReleaseTimeError(TableError):
    """Release times without a time of day: an event could not be placed before or after a close."""


def read_csv(file: Path | BytesIO) -> pd.DataFrame:
    """The rows of a csv file as text, so that a ticker named NA or TRUE survives; an empty cell is null."""
    return pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")


def bar_table(raw: pd.DataFrame) -> pd.DataFrame:
    """Typed bars, sorted by (symbol, ts): prices in quote currency, `ts` the session date at 00:00 UTC.

    Raises:
        TableError: a column is missing, the table is empty, or a value does not parse.
    """
    table = _select(raw, "ohlcv_1d", BAR_COLUMNS)
    table["symbol"] = _keys(table, "ohlcv_1d", "symbol")
    table["ts"] = _times(table, "ohlcv_1d", "ts")
    for column in FEATURES:
        table[column] = _numbers(table, "ohlcv_1d", column)
    if table["ts"].isna().any():
        raise TableError(
            f"table ohlcv_1d: {int(table['ts'].isna().sum())} rows have no ts; give every bar its date"
        )
    return table.sort_values(["symbol", "ts"], kind="stable", ignore_index=True)


def symbol_table(raw: pd.DataFrame) -> pd.DataFrame:
    """Typed symbols (symbol, asset_class, tradable), sorted by symbol.

    Raises:
        TableError: a column is missing, the table is empty, or `tradable` is neither true nor false.
    """
    table = _select(raw, "symbols", SYMBOL_COLUMNS)
    for column in ("symbol", "asset_class"):
        table[column] = _keys(table, "symbols", column)
    tradable = table["tradable"].astype(str).str.lower().map(TRUTH)
    if tradable.isna().any():
        wrong = table.loc[tradable.isna(), "symbol"].tolist()
        raise TableError(f"table symbols: tradable must be true or false; it is neither for {some(wrong)}")
    table["tradable"] = tradable.astype(bool)
    return table.sort_values("symbol", kind="stable", ignore_index=True)


def calendar_table(raw: pd.DataFrame) -> pd.DataFrame:
    """Typed calendar rows, sorted by (release_at, event_id, first_seen_at); times in UTC.

    A missing event_id is made of the type and the UTC date of the release, of the currency if it is another
    than USD, and of the symbol if there is one. A column of symbols may be missing: null is everybody's.

    Raises:
        TableError: a column is missing, the table is empty, or a value does not parse.
        ReleaseTimeError: a release time is a bare date.
    """
    table = _select(raw, "economic_calendar", CALENDAR_COLUMNS)
    for column in ("event_type", "currency", "impact"):
        table[column] = _keys(table, "economic_calendar", column)
    _refuse_bare_dates(table)
    for column in ("release_at", "first_seen_at"):
        table[column] = _times(table, "economic_calendar", column)
    for column in ("actual", "forecast", "previous"):
        table[column] = _numbers(table, "economic_calendar", column)
    table["symbol"] = table["symbol"].astype("str").where(table["symbol"].notna() & (table["symbol"] != ""))
    foreign = (table["currency"] + ":").where(table["currency"] != DEFAULT_TAXONOMY.currency, "")
    own = (table["symbol"] + ":").where(table["symbol"].notna(), "")
    made = foreign + own + table["event_type"] + ":" + table["release_at"].dt.strftime("%Y-%m-%d")
    table["event_id"] = table["event_id"].where(table["event_id"].notna(), made).astype("str")
    table["event_name"] = table["event_name"].fillna("").astype("str")
    order = ["release_at", "event_id", "first_seen_at"]
    return table.sort_values(order, kind="stable", na_position="first", ignore_index=True)


def some(items: list[str], most: int = 5, total: int | None = None) -> str:
    """The first few items, for a one-line error; `total` counts them all if `items` is a selection."""
    more = (len(items) if total is None else total) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def batches(frames: Iterable[pd.DataFrame], rows: int) -> Iterator[list[pd.DataFrame]]:
    """Consecutive frames in lists of at least `rows` rows each, but for the last."""
    held: list[pd.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= rows:
            yield held
            held = []
    if held:
        yield held


def _select(raw: pd.DataFrame, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    if raw.empty:
        raise TableError(f"table {name} is empty: expected at least one row")
    optional = (*OPTIONAL, "symbol") if name == "economic_calendar" else OPTIONAL
    missing = [c for c in columns if c not in raw.columns and c not in optional]
    if missing:
        present = some([str(c) for c in raw.columns], most=12)
        raise TableError(f"table {name}: missing column {some(missing)}; it has {present}")
    return raw.reindex(columns=list(columns)).reset_index(drop=True)


def _keys(table: pd.DataFrame, name: str, column: str) -> pd.Series:
    if table[column].isna().any():
        raise TableError(f"table {name}: {int(table[column].isna().sum())} rows have no {column}; fill it in")
    return table[column].astype("str")


def _numbers(table: pd.DataFrame, name: str, column: str) -> pd.Series:
    try:
        return pd.to_numeric(table[column]).astype("float64")
    except (ValueError, TypeError) as error:
        raise TableError(f"table {name}: column {column} must hold numbers: {first_line(error)}") from None


def _times(table: pd.DataFrame, name: str, column: str) -> pd.Series:
    try:
        return pd.to_datetime(table[column], format="ISO8601", utc=True).dt.as_unit("ns")
    except (ValueError, TypeError) as error:
        raise TableError(
            f"table {name}: column {column} must hold ISO 8601 times: {first_line(error)}"
        ) from None


def _refuse_bare_dates(table: pd.DataFrame) -> None:
    """Refuse bare dates, as text or as date objects; `validation` refuses timestamps at midnight."""
    release = table["release_at"]
    if isinstance(release.dtype, pd.DatetimeTZDtype) or release.dtype.kind == "M":
        bare = release.isna()
    else:
        bare = ~release.astype("str").str.contains(r"\d[T ]\d", regex=True)
    if bare.any():
        rows = [f"{row.event_type} {row.release_at}" for row in table[bare].head(6).itertuples()]
        raise ReleaseTimeError(
            f"table economic_calendar: {int(bare.sum())} release_at values have no time of day "
            f"({some(rows)}); give the UTC time, such as 2024-06-12T12:30:00Z"
        )

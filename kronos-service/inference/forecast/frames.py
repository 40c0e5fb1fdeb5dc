"""DataFrames of bars, leaders and events, as a user of the Python front door hands them over.

Nothing is repaired: a frame that cannot be used as it is raises one line that says what to change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.data.tables import calendar_table, some
from kronos_service.data.validation import NO_SESSION, check_calendar, find_bad_bars
from kronos_service.events.encoder import EventTables, prepare
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.inference.forecast.series import Series
from kronos_service.model.generation.inputs import Prepared
from kronos_shared.cli import did_you_mean
from kronos_shared.columns import ASSET_CLASSES, CALENDAR_COLUMNS, FEATURES
from kronos_shared.errors import KronosError, first_line

NEEDED: Final = FEATURES[:5]
"""Of a bar; turnover follows from volume and prices where it is not given."""
NEEDED_OF_EVENTS: Final = ("event_type", "impact", "release_at", "currency")
DEFAULT_ASSET_CLASS: Final = "us_equity"

AssetClass = str | Mapping[str, str] | None


class FrameError(KronosError):
    """A frame of bars, leaders or events that cannot be used as it is."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a user's frames call the symbol and the session date."""

    symbol: str
    ts: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Market:
    """Frames that were read and checked."""

    series: Sequence[Series]
    """In the order in which the symbols first come."""
    tables: EventTables | None
    """None where no events were given."""
    is_naive: bool
    """Whether the session dates had no time zone."""

    def dates(self, prepared: Prepared) -> pd.DatetimeIndex:
        """The session dates (H,) of the forecast bars, with a time zone where the user's have one."""
        dates = pd.DatetimeIndex(prepared.future_dates).as_unit("ns")
        return dates if self.is_naive else dates.tz_localize("UTC")


def read_market(
    bars: pd.DataFrame,
    events: pd.DataFrame | None,
    leaders: pd.DataFrame | None,
    *,
    asset_class: AssetClass,
    names: Names,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Market:
    """Check the frames of a forecast.

    Args:
        bars: a row per symbol and session; `amount` and `asset_class` are optional.
        events: rows of `CALENDAR_COLUMNS`, of which `NEEDED_OF_EVENTS` must be there; others are null.
        leaders: rows of the leaders with their closes; None takes those among the bars.
        asset_class: of all symbols, or by symbol; None reads the bars' column of that name, and without it
            takes leaders for what they are and other symbols for US equities.
        taxonomy: what the model's event types and leaders are.

    Raises:
        FrameError, KronosError: columns, dates or values that cannot be used.
    """
    table = _bars(bars, names)
    classes = _asset_classes(table, asset_class, taxonomy)
    _refuse_bad_bars(table, classes)
    by_symbol = dict(iter(table.groupby("symbol", sort=False)))
    tables = None
    if events is not None:
        closes = table if leaders is None else _typed(leaders, "leaders", names, ("close",))
        found = dict(_leaders(closes, taxonomy, is_given=leaders is not None))
        tables = prepare(_events(events, taxonomy), found, taxonomy)
    columns = ["ts", *FEATURES]
    return Market(
        series=[
            Series(
                symbol=str(symbol),
                bars=rows[columns].reset_index(drop=True),
                asset_class=classes[str(symbol)],
            )
            for symbol, rows in by_symbol.items()
        ],
        tables=tables,
        is_naive=_is_naive(bars[names.ts]),
    )


def closes_on(
    dates: npt.NDArray[np.datetime64], frame: pd.DataFrame, symbol: str, names: Names
) -> npt.NDArray[np.float64]:
    """The closes of a symbol on the first of the session `dates` (H,), up to the first that is not there."""
    closes = _typed(frame, "actual", names, ("close",))
    of_symbol = closes[closes["symbol"] == symbol].drop_duplicates("ts").set_index("ts")["close"]
    found = of_symbol.reindex(pd.DatetimeIndex(dates).tz_localize("UTC")).to_numpy(dtype=np.float64)
    return found[: int(np.cumprod(np.isfinite(found)).sum())]


def _bars(frame: pd.DataFrame, names: Names) -> pd.DataFrame:
    table = _typed(frame, "bars", names, NEEDED, optional=("amount", "asset_class"))
    back = table.groupby("symbol", sort=False)["ts"].diff() < pd.Timedelta(0)
    if back.any():
        first = table[back].iloc[0]
        raise FrameError(
            f"bars: expected each symbol's rows in ascending order of {names.ts}, got {first['symbol']} "
            f"{first['ts']:%Y-%m-%d} after a later one: sort_values(['{names.symbol}', '{names.ts}'])"
        )
    return table


def _typed(
    frame: pd.DataFrame, name: str, names: Names, numbers: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """The columns symbol, ts and `numbers` (float64), with the optional ones that are there."""
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(f"{name}: expected a pandas DataFrame, got {type(frame).__name__}")
    _require_columns(frame, name, (names.symbol, names.ts, *numbers), names)
    if frame.empty:
        raise FrameError(f"{name}: expected a row per symbol and session, got none")
    table = frame.reset_index(drop=True)
    present = [column for column in optional if column in table.columns]
    symbol, ts = table[names.symbol], table[names.ts]
    if symbol.isna().any() or ts.isna().any():
        raise FrameError(
            f"{name}: expected a {names.symbol} and a {names.ts} in every row, got a null: drop those rows"
        )
    typed = pd.DataFrame({"symbol": symbol.astype("str"), "ts": _session_dates(ts, name, names)})
    for column in (*numbers, *present):
        typed[column] = table[column] if column == "asset_class" else _numbers(table[column], name)
    return typed if "amount" not in optional or "amount" in present else typed.assign(amount=float("nan"))


def _require_columns(frame: pd.DataFrame, name: str, wanted: Sequence[str], names: Names | None) -> None:
    there = [str(column) for column in frame.columns]
    missing = [column for column in wanted if column not in there]
    if missing:
        near = did_you_mean(missing[0], there)
        say = "" if names is None else ", or name yours with id_column and timestamp_column"
        raise FrameError(
            f"{name}: expected columns {', '.join(wanted)}, got {some(there, most=12)} without "
            f"{', '.join(missing)}{near}: rename or add them{say}"
        )
    twice = [column for column in wanted if there.count(column) > 1]
    if twice:
        raise FrameError(
            f"{name}: expected one column {twice[0]}, got {there.count(twice[0])}: drop the others"
        )


def _session_dates(ts: pd.Series, name: str, names: Names) -> pd.Series:
    try:
        times = pd.to_datetime(ts, utc=True).dt.as_unit("ns")
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"{name}: expected dates in {names.ts}: {first_line(error)}") from None
    if pd.api.types.is_numeric_dtype(ts.dtype):
        raise FrameError(f"{name}: expected dates in {names.ts}, got numbers: pass them through to_datetime")
    off = times != times.dt.normalize()
    if off.any():
        raise FrameError(
            f"{name}: expected session dates (00:00 UTC) in {names.ts}, got {ts[off].iloc[0]}: for an "
            f"exchange's own time, {names.ts}.dt.tz_localize(None).dt.normalize()"
        )
    return times


def _numbers(column: pd.Series, name: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("float64")
    except (ValueError, TypeError) as error:
        raise FrameError(f"{name}: expected numbers in {column.name}: {first_line(error)}") from None


def _is_naive(ts: pd.Series) -> bool:
    return not isinstance(ts.dtype, pd.DatetimeTZDtype)


def _asset_classes(table: pd.DataFrame, given: AssetClass, taxonomy: Taxonomy) -> dict[str, str]:
    """Symbol -> its asset class."""
    symbols = [str(symbol) for symbol in table["symbol"].unique()]
    if given is None and "asset_class" in table.columns:
        of_rows = table.groupby("symbol", sort=False)["asset_class"].unique()
        mixed = [f"{symbol}: {list(found)}" for symbol, found in of_rows.items() if len(found) > 1]
        if mixed:
            raise FrameError(f"bars: expected one asset_class a symbol, got {some(mixed)}")
        given = {str(symbol): str(found[0]) for symbol, found in of_rows.items()}
    if given is None:
        classes = {symbol: taxonomy.leader_asset_class.get(symbol, DEFAULT_ASSET_CLASS) for symbol in symbols}
    elif isinstance(given, str):
        classes = dict.fromkeys(symbols, given)
    else:
        missing = [symbol for symbol in symbols if symbol not in given]
        if missing:
            raise FrameError(f"asset_class: expected one for every symbol, got none for {some(missing)}")
        classes = {symbol: given[symbol] for symbol in symbols}
    wrong = sorted(set(classes.values()) - set(ASSET_CLASSES))
    if wrong:
        near = did_you_mean(wrong[0], ASSET_CLASSES)
        raise FrameError(f"asset_class: expected one of {', '.join(ASSET_CLASSES)}, got {wrong[0]!r}{near}")
    return classes


def _refuse_bad_bars(table: pd.DataFrame, classes: Mapping[str, str]) -> None:
    symbols = pd.DataFrame({"symbol": list(classes), "asset_class": list(classes.values())})
    bad = find_bad_bars(table, symbols, now=datetime.now(UTC))
    if bad.empty:
        return
    listed = [f"{row.symbol} {row.ts:%Y-%m-%d} ({row.reason})" for row in bad.head(6).itertuples()]
    advice = "fix or drop them"
    if (bad["reason"] == NO_SESSION).any():
        named = ", ".join(sorted({f"{one} is taken for {classes[one]}" for one in bad["symbol"].head(3)}))
        advice = f"{advice}, or give asset_class ({named})"
    raise FrameError(
        f"bars: expected finished sessions with possible values, got {some(listed, total=len(bad))}: {advice}"
    )


def _events(frame: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(f"events: expected a pandas DataFrame, got {type(frame).__name__}")
    _require_columns(frame, "events", NEEDED_OF_EVENTS, None)
    rows = frame.reindex(columns=list(CALENDAR_COLUMNS))
    calendar = calendar_table(rows)
    check_calendar(calendar, taxonomy)
    return calendar


def _leaders(
    closes: pd.DataFrame, taxonomy: Taxonomy, *, is_given: bool
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each leader with its (ts, close), without rows where it is not there: its channel is then 0."""
    if is_given and not closes["symbol"].isin(taxonomy.leaders).any():
        got = some([str(one) for one in closes["symbol"].unique()])
        raise FrameError(f"leaders: expected rows of {', '.join(taxonomy.leaders)}, got {got}: name them so")
    for leader in taxonomy.leaders:
        yield leader, closes.loc[closes["symbol"] == leader, ["ts", "close"]]

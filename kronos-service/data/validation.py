"""Checks of values at the boundary: functions that only raise or collect. Later code trusts the tables."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.data.public_facts import CLASSES
from kronos_service.data.tables import ReleaseTimeError, TableError, bars_of, some
from kronos_service.events.calendar import counted, symbol_faults, symbols_of
from kronos_service.events.sessions import DAILY, FIRST_DAY, ONLY_CRYPTO, Interval, days_of, is_grid, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.columns import ASSET_CLASSES, IMPACTS

UNFINISHED: Final = "its session has not closed"
NO_SESSION: Final = "no session on this date"
DUPLICATE: Final = "duplicate key"
TOO_EARLY: Final = "older than the session calendars"

KEY: Final = ["symbol", "ts"]
SPLIT_TOLERANCE: Final = 0.03
"""How near to a ratio, as a share of it, an overnight move must be to be reported."""


class BadBarsError(TableError):
    """Bars that cannot be true; `bad` lists them all as (symbol, ts, reason)."""

    def __init__(self, message: str, bad: pd.DataFrame) -> None:
        super().__init__(message)
        self.bad = bad


def check_tables(
    symbols: pd.DataFrame,
    bars: pd.DataFrame,
    calendar: pd.DataFrame,
    *,
    now: datetime,
    interval: Interval = DAILY,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> None:
    """Raise if typed tables (see `tables`) are invalid; `now` decides which sessions have closed.

    Raises:
        TableError: an unknown asset class or impact, a repeated key, an infinite value.
        ReleaseTimeError: release times that look like bare dates.
        UnknownEventType: a type outside the taxonomy.
        BadBarsError: at least one bar that `find_bad_bars` lists.
    """
    check_symbols(symbols, bars, interval)
    check_calendar(calendar, taxonomy)
    refuse_bad_bars(find_bad_bars(bars, symbols, now=now, interval=interval), interval)


def refuse_bad_bars(bad: pd.DataFrame, interval: Interval = DAILY) -> None:
    """Raise `BadBarsError` unless the list of `find_bad_bars` is empty."""
    if not bad.empty:
        ts = bad["ts"].head(6)
        # The time only where it is not midnight.
        when = ts.dt.strftime("%Y-%m-%d").where(ts == ts.dt.normalize(), ts.astype("str"))
        head = bad.head(6).assign(ts=when)
        listed = [f"{row.symbol} {row.ts} ({row.reason})" for row in head.itertuples()]
        count = f"{len(bad)} bad bar{'s' if len(bad) > 1 else ''}"
        raise BadBarsError(
            f"table {bars_of(interval)}: {count}: {some(listed, total=len(bad))}; fix them, or export or "
            "import with --on-bad-row drop",
            bad,
        )


def check_symbols(symbols: pd.DataFrame, bars: pd.DataFrame, interval: Interval = DAILY) -> None:
    """Raise unless each symbol is listed once, with a known asset class, and each bar's symbol is listed, of
    an asset class that has bars of this length.
    """
    unknown = symbols[~symbols["asset_class"].isin(ASSET_CLASSES)]
    if not unknown.empty:
        listed = [f"{row.symbol}: {row.asset_class}" for row in unknown.itertuples()]
        raise TableError(
            f"table symbols: unknown asset class ({some(listed)}); one of {', '.join(ASSET_CLASSES)}"
        )
    twice = symbols.loc[symbols["symbol"].duplicated(), "symbol"].tolist()
    if twice:
        raise TableError(f"table symbols: {some(twice)} listed more than once; keep one row each")
    present = set(bars["symbol"].unique())
    stray = sorted(present - set(symbols["symbol"]))
    if stray:
        raise TableError(
            f"table {bars_of(interval)} has bars of {some(stray)}, which table symbols lacks; add their "
            "asset class"
        )
    others = symbols[symbols["symbol"].isin(present) & (symbols["asset_class"] != "crypto")]
    if interval != DAILY and not others.empty:
        listed = [f"{row.symbol}: {row.asset_class}" for row in others.itertuples()]
        raise TableError(
            f"table {bars_of(interval)} has {interval} bars of {some(listed)}; {ONLY_CRYPTO}: remove them"
        )


def check_calendar(calendar: pd.DataFrame, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> None:
    """Raise unless types and impacts are known, values finite, releases timed, keys unique, and symbols there
    where the type has one, and only there.
    """
    ours = counted(calendar, taxonomy)
    taxonomy.check_types(ours["event_type"])
    if wrong_symbols := symbol_faults(ours["event_type"], symbols_of(ours), taxonomy):
        raise TableError(f"table economic_calendar: {wrong_symbols}")
    wrong = sorted(set(calendar["impact"]) - set(IMPACTS))
    if wrong:
        raise TableError(
            f"table economic_calendar: unknown impact {some(wrong)}; one of {', '.join(IMPACTS)}"
        )
    # A date cast to a timestamp becomes midnight, and no United States release is at midnight UTC.
    midnight = ours[ours["release_at"] == ours["release_at"].dt.normalize()]
    if not midnight.empty:
        raise ReleaseTimeError(
            f"table economic_calendar: {len(midnight)} {', '.join(taxonomy.all_currencies)} rows at "
            f"00:00 UTC look like bare dates ({some(midnight['event_id'].tolist())}); give the UTC time of "
            "the release"
        )
    infinite = calendar[np.isinf(calendar[["actual", "forecast", "previous"]]).any(axis=1)]
    if not infinite.empty:
        raise TableError(f"table economic_calendar: infinite values in {some(infinite['event_id'].tolist())}")
    keys = ["event_id", "first_seen_at"]
    twice = calendar[calendar.duplicated(keys, keep=False)]
    if not twice.empty:
        groups = twice.groupby(keys, dropna=False)
        copies = [differences(rows.drop(columns=keys), str(key[0])) for key, rows in groups]
        raise TableError(
            "table economic_calendar: key (event_id, first_seen_at) repeats: "
            f"{some(copies)}; keep one of each, or give a revision its own first_seen_at"
        )


def without_copies(calendar: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The calendar with each row once, and how many identical copies were left out."""
    kept = calendar.drop_duplicates(ignore_index=True)
    return kept, len(calendar) - len(kept)


def find_bad_bars(
    bars: pd.DataFrame, symbols: pd.DataFrame, *, now: datetime, interval: Interval = DAILY
) -> pd.DataFrame:
    """Every bar that cannot be true, as (symbol, ts, reason): each key once, with its first reason.

    A null amount is valid: it stands for volume x mean(OHLC). All copies of a key are one entry, whose reason
    gives the values that differ.
    """
    prices = bars[["open", "high", "low", "close"]]
    body = bars[["open", "close"]]
    faults = session_faults(bars, symbols, now=now, interval=interval)
    opens = "at 00:00 UTC" if interval == DAILY else f"the opening of a {interval} bar"
    reasons = {
        DUPLICATE: bars.duplicated(KEY, keep=False),
        f"ts not {opens}": ~is_grid(_naive(bars["ts"]), interval),
        "not finite": ~np.isfinite(prices).all(axis=1)
        | ~np.isfinite(bars["volume"])
        | np.isinf(bars["amount"]),
        "price not above 0": (prices <= 0).any(axis=1),
        "negative volume or amount": (bars["volume"] < 0) | (bars["amount"] < 0),
        "low above open or close": bars["low"] > body.min(axis=1),
        "high below open or close": bars["high"] < body.max(axis=1),
        TOO_EARLY: faults == TOO_EARLY,
        NO_SESSION: faults == NO_SESSION,
        UNFINISHED: faults == UNFINISHED,
    }
    bad = _labelled(bars, reasons, "reason").drop_duplicates(KEY).sort_values(KEY, ignore_index=True)
    twice = bad["reason"] == DUPLICATE
    if twice.any():
        copies = bars[reasons[DUPLICATE]].groupby(KEY)
        keys = bad.loc[twice, KEY].itertuples(index=False, name=None)
        bad.loc[twice, "reason"] = [differences(copies.get_group(key), DUPLICATE) for key in keys]
    return bad


def differences(copies: pd.DataFrame, reason: str) -> str:
    """The reason, and what differs between rows of one key: "duplicate key: close 467.28 and 467.3"."""
    columns = [name for name in copies.columns if name not in KEY and copies[name].nunique(dropna=False) > 1]
    shown = [f"{name} {' and '.join(map(str, copies[name].unique()[:3]))}" for name in columns]
    return f"{reason}: {some(shown, most=3)}" if shown else reason


def session_faults(
    bars: pd.DataFrame, symbols: pd.DataFrame, *, now: datetime, interval: Interval = DAILY
) -> pd.Series:
    """Per bar: empty, or why its date is no session of its asset class that had closed by `now`."""
    faults = pd.Series("", index=bars.index, dtype="str")
    asset_class = bars["symbol"].map(symbols.set_index("symbol")["asset_class"])
    for name, rows in bars["ts"].groupby(asset_class):
        dates = _naive(rows).astype("datetime64[D]" if interval == DAILY else "datetime64[m]")
        faults[rows.index] = _faults(str(name), dates, now, interval)
    return faults


def _naive(times: pd.Series) -> npt.NDArray[np.datetime64]:
    found: npt.NDArray[np.datetime64] = times.dt.tz_localize(None).to_numpy()
    return found


def find_jumps(bars: pd.DataFrame, symbols: pd.DataFrame) -> pd.DataFrame:
    """Moves from a close to the next open that no market makes, as (symbol, ts, ratio).

    Those are moves of an equity near a split ratio (2:1, 1:12 ...), because prices may be unadjusted, and
    moves of any symbol by the factor that `plausibility.toml` gives its class: a split, a relisting under the
    same name, or prices in another unit.
    """
    asset_class = bars["symbol"].map(symbols.set_index("symbol")["asset_class"])
    move = bars.groupby("symbol")["close"].shift() / bars["open"]
    factor = move.where(move >= 1, 1 / move)
    whole = factor.round().clip(lower=2)
    is_split = (asset_class == "us_equity") & (_distance(move, whole) <= SPLIT_TOLERANCE)
    jumps = {name: facts.jump for name, facts in CLASSES.items()}
    is_large = factor >= asset_class.map(jumps).astype("float64")  # also where all bars were bad
    found = bars.loc[is_split | is_large, KEY]
    ratios = [
        _ratio(float(move[row]), is_split=bool(is_split[row]), factor=float(factor[row]))
        for row in found.index
    ]
    return found.assign(ratio=ratios).sort_values(KEY, ignore_index=True)


def _ratio(move: float, factor: float, *, is_split: bool) -> str:
    shown = f"{factor:,.0f}" if is_split or factor >= 10 else f"{factor:.1f}"
    return f"{shown}:1" if move >= 1 else f"1:{shown}"


def _distance(move: pd.Series, whole: pd.Series) -> pd.Series:
    """How far a move is from the nearest split ratio, as a share of it."""
    return (move / whole.where(move >= 1, 1 / whole) - 1).abs()


def _labelled(rows: pd.DataFrame, masks: Mapping[str, pd.Series], column: str) -> pd.DataFrame:
    """The keys of the rows that a mask holds, with the name of the first such mask."""
    number = np.select(list(masks.values()), range(len(masks)), default=-1)
    names = np.array(list(masks), dtype=object)
    return rows.loc[number >= 0, KEY].assign(**{column: names[number[number >= 0]]})


def _faults(
    asset_class: str, days: npt.NDArray[np.datetime64], now: datetime, interval: Interval
) -> npt.NDArray[np.object_]:
    first: date = max(days_of(days.min(keepdims=True))[0].item(), FIRST_DAY)
    table = sessions(asset_class, first, now.date() + timedelta(days=2), interval)
    index = np.searchsorted(table.dates, days)
    inside = index < len(table.dates)
    faults = np.where(inside, "", UNFINISHED).astype(object)  # past the table means past tomorrow
    at = index[inside]
    is_session = table.dates[at] == days[inside]
    is_closed = table.closes[at] <= np.datetime64(pd.Timestamp(now).tz_convert("UTC").tz_localize(None), "ns")
    faults[inside] = np.where(is_session, np.where(is_closed, "", UNFINISHED), NO_SESSION)
    faults[days < np.datetime64(FIRST_DAY)] = TOO_EARLY
    return faults

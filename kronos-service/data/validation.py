"""Do the values make sense? Functions that only raise or collect, applied at the boundary and trusted after."""

from datetime import datetime

import numpy as np
import pandas as pd

from kronos_service.data.tables import ReleaseTimeError, TableError, some
from kronos_shared.candles import ASSET_CLASSES, IMPACTS


class BadBarsError(TableError):
    """Bars that cannot be true; `bad` lists them all as (symbol, ts, reason)."""

    def __init__(self, message: str, bad: pd.DataFrame) -> None:
        super().__init__(message)
        self.bad = bad


def check_tables(symbols: pd.DataFrame, bars: pd.DataFrame, calendar: pd.DataFrame, *, now: datetime) -> None:
    """Raise what is wrong with typed tables (see `tables`); `now` settles which bars exist yet."""
    check_symbols(symbols, bars)
    check_calendar(calendar)
    bad = find_bad_bars(bars)
    if not bad.empty:
        listed = [f"{row.symbol} {row.ts.date()} ({row.reason})" for row in bad.head(6).itertuples()]
        raise BadBarsError(f"table ohlcv_1d: {len(bad)} bad bars: {some(listed)}; mend or drop them", bad)


def check_symbols(symbols: pd.DataFrame, bars: pd.DataFrame) -> None:
    """Every symbol once, of a known asset class, and no bars of a symbol that the table does not know."""
    unknown = symbols[~symbols["asset_class"].isin(ASSET_CLASSES)]
    if not unknown.empty:
        listed = [f"{row.symbol}: {row.asset_class}" for row in unknown.itertuples()]
        raise TableError(
            f"table symbols: unknown asset class ({some(listed)}); one of {', '.join(ASSET_CLASSES)}"
        )
    twice = symbols.loc[symbols["symbol"].duplicated(), "symbol"].tolist()
    if twice:
        raise TableError(f"table symbols: {some(twice)} listed more than once; keep one row each")
    stray = sorted(set(bars["symbol"].unique()) - set(symbols["symbol"]))
    if stray:
        raise TableError(
            f"table ohlcv_1d has bars of {some(stray)}, which table symbols lacks; add their asset class"
        )


def check_calendar(calendar: pd.DataFrame) -> None:
    """Known types, impacts and finite values, real release times, one row per (event_id, first_seen_at)."""
    usd = calendar[calendar["currency"] == "USD"]
    wrong = sorted(set(calendar["impact"]) - set(IMPACTS))
    if wrong:
        raise TableError(
            f"table economic_calendar: unknown impact {some(wrong)}; one of {', '.join(IMPACTS)}"
        )
    # A date cast to a timestamp becomes midnight, and no United States release is at midnight UTC.
    midnight = usd[usd["release_at"] == usd["release_at"].dt.normalize()]
    if not midnight.empty:
        raise ReleaseTimeError(
            f"table economic_calendar: {len(midnight)} USD rows at 00:00 UTC look like bare dates "
            f"({some(midnight['event_id'].tolist())}); give the UTC time of the release"
        )
    infinite = calendar[np.isinf(calendar[["actual", "forecast", "previous"]]).any(axis=1)]
    if not infinite.empty:
        raise TableError(f"table economic_calendar: infinite values in {some(infinite['event_id'].tolist())}")
    twice = calendar[calendar.duplicated(["event_id", "first_seen_at"])]
    if not twice.empty:
        raise TableError(
            "table economic_calendar: key (event_id, first_seen_at) repeats: "
            f"{some(twice['event_id'].tolist())}; a revision needs its own first_seen_at"
        )


def find_bad_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """Every bar that cannot be true, as (symbol, ts, reason), one reason each; both copies of a duplicate."""
    prices = bars[["open", "high", "low", "close"]]
    body = bars[["open", "close"]]
    reasons = {
        "duplicate key": bars.duplicated(["symbol", "ts"], keep=False),
        "ts not at 00:00 UTC": bars["ts"] != bars["ts"].dt.normalize(),
        "not finite": ~np.isfinite(bars[["open", "high", "low", "close", "volume"]]).all(axis=1)
        | np.isinf(bars["amount"]),
        "price not above 0": (prices <= 0).any(axis=1),
        "negative volume or amount": (bars["volume"] < 0) | (bars["amount"] < 0),
        "low above open or close": bars["low"] > body.min(axis=1),
        "high below open or close": bars["high"] < body.max(axis=1),
    }
    bad = pd.concat([bars.loc[mask, ["symbol", "ts"]].assign(reason=why) for why, mask in reasons.items()])
    return bad.drop_duplicates(["symbol", "ts"]).sort_values(["symbol", "ts"], ignore_index=True)

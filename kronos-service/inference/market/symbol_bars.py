"""One symbol's bars up to a date, and why there are none to forecast from."""

import difflib
from datetime import date
from typing import Final

import pandas as pd

from kronos_service.inference.errors import FieldFault
from kronos_service.inference.market.market import Market
from kronos_shared.normalization import MIN_HISTORY

SUGGESTIONS: Final = 3


def bars_until(market: Market, symbol: str, as_of: date | None) -> pd.DataFrame:
    """The bars dated up to `as_of`, all of them where it is None; of a symbol without faults."""
    bars = market.bars[symbol]
    return bars if as_of is None else bars.iloc[: _count_until(bars, as_of)]


def symbol_faults(market: Market, symbol: str, as_of: date | None, at: str) -> list[FieldFault]:
    """Why nothing can be forecast from the bars up to `as_of`; `at` is where the fields stand."""
    if symbol not in market.asset_class:
        near = difflib.get_close_matches(symbol, market.asset_class, n=SUGGESTIONS)
        advice = f"did you mean {' or '.join(near)}?" if near else "send its candles inline"
        message = f"{market.name} has no symbol {symbol!r}: {advice}"
        return [FieldFault(field=f"{at}symbol", message=message)]
    bars = market.bars.get(symbol)
    count = 0 if bars is None else len(bars)
    if bars is None or count < MIN_HISTORY:
        message = f"expected at least {MIN_HISTORY} bars, but {market.name} has {count} of {symbol!r}"
        return [FieldFault(field=f"{at}symbol", message=message)]
    if as_of is not None and _count_until(bars, as_of) < MIN_HISTORY:
        first = bars["ts"].iloc[MIN_HISTORY - 1].date()
        message = f"expected {first} or later, got {as_of}: a forecast needs {MIN_HISTORY} bars of {symbol!r}"
        return [FieldFault(field=f"{at}as_of", message=message)]
    return []


def _count_until(bars: pd.DataFrame, as_of: date) -> int:
    return int((bars["ts"] <= pd.Timestamp(as_of, tz="UTC")).sum())

"""Checks bars as they stream past, some symbols at a time, for tables too large for memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import pandas as pd

from kronos_service.data.plausibility import Departure, bar_departures
from kronos_service.data.tables import batches
from kronos_service.data.validation import (
    KEY,
    UNFINISHED,
    check_symbols,
    find_bad_bars,
    find_jumps,
    refuse_bad_bars,
    session_faults,
)
from kronos_service.events.sessions import DAILY, Interval

OnBadRow = Literal["fail", "drop"]
AT_ONCE = 50_000
"""Bars checked together: pandas takes as long for one symbol as for thirty."""


@dataclass(kw_only=True)
class BarFilter:
    """Passes good bars on and records the others."""

    symbols: pd.DataFrame
    on_bad_row: OnBadRow
    """What happens to bars that cannot be true: an error after the last bar, or they are left out."""
    now: datetime
    """The time up to which sessions have closed."""
    interval: Interval = DAILY
    unfinished: int = 0
    """Bars left out because their session is still open."""
    copies: int = 0
    """Bars left out because one with the same key and the same values is there."""
    departures: list[Departure] = field(default_factory=list)
    """Bars that are valid and yet not what their market makes."""
    bad: pd.DataFrame = field(init=False)
    """After the last bar: those that cannot be true, as symbol, ts, reason."""
    splits: pd.DataFrame = field(init=False)
    """After the last bar: overnight jumps, such as a split makes, as symbol, ts, ratio."""

    def filter(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The good bars of typed frames, symbol by symbol.

        Raises:
            TableError: table symbols is invalid, or lacks a symbol.
            BadBarsError: there were bad bars, and `on_bad_row` is "fail".
        """
        seen, all_bad, splits = set[str](), list[pd.DataFrame](), list[pd.DataFrame]()
        check_symbols(self.symbols, pd.DataFrame({"symbol": []}))
        for held in batches(frames, AT_ONCE):
            given = pd.concat(held, ignore_index=True)
            if self.interval != DAILY:  # other asset classes have no such sessions to look up
                check_symbols(self.symbols, given, self.interval)
            frame = given.drop_duplicates(ignore_index=True)
            self.copies += len(given) - len(frame)
            seen.update(frame["symbol"].unique())
            bars = frame[~still_open(frame, self.symbols, self.now, self.interval)]
            self.unfinished += len(frame) - len(bars)
            bad = find_bad_bars(bars, self.symbols, now=self.now, interval=self.interval)
            if not bad.empty:
                all_bad.append(bad)
                is_bad = pd.MultiIndex.from_frame(bars[KEY]).isin(pd.MultiIndex.from_frame(bad[KEY]))
                bars = bars[~is_bad]
            splits.append(find_jumps(bars, self.symbols))
            self.departures += bar_departures(bars, self.symbols, self.interval)
            for _, kept in bars.groupby("symbol", sort=True):
                yield kept
        check_symbols(self.symbols, pd.DataFrame({"symbol": sorted(seen)}), self.interval)
        self.bad, self.splits = _table(all_bad, "reason"), _table(splits, "ratio")
        if self.on_bad_row == "fail":
            refuse_bad_bars(self.bad, self.interval)


def still_open(
    bars: pd.DataFrame, symbols: pd.DataFrame, now: datetime, interval: Interval = DAILY
) -> pd.Series:
    """Which bars are of a session still open; a bar dated more than a day ahead is a mistake instead."""
    faults = session_faults(bars, symbols, now=now, interval=interval)
    return (faults == UNFINISHED) & (bars["ts"] <= pd.Timestamp(now + timedelta(days=1)))


def _table(frames: list[pd.DataFrame], column: str) -> pd.DataFrame:
    empty = pd.DataFrame(columns=[*KEY, column])
    return pd.concat(frames or [empty]).sort_values(KEY, ignore_index=True)

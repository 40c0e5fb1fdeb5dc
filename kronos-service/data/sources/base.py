"""What the exporter asks of a place that holds candles and a calendar; a snapshot is itself such a place."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import pandas as pd

from kronos_service.data.snapshot.read import read_tables


class Source(Protocol):
    """Hands over the three tables of `tables` as its reader gave them; nothing is validated yet."""

    @property
    def name(self) -> str:
        """Where the rows come from, for manifests and messages; never a secret."""

    def symbols(self) -> pd.DataFrame:
        """The whole table symbols."""

    def bars(self, since: date | None = None, after: str | None = None) -> Iterator[pd.DataFrame]:
        """Chunks of ohlcv_1d in the order of (symbol, ts), from the session date `since` on.

        The order of symbols is the source's own; `after` leaves out the symbols up to that one, so that an
        export that was cut off can go on.
        """

    def count_bars(self, first: date | None, before: date) -> int:
        """How many bars there are from the session date `first` (default: any) to the one before `before`."""

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        """Every row of economic_calendar released on the UTC date `since` or later."""


@dataclass(frozen=True, kw_only=True)
class SnapshotSource:
    """A snapshot, or a plain directory of tables, as a source: exporting the latter gives it a manifest."""

    directory: Path

    @property
    def name(self) -> str:
        return f"snapshot:{self.directory.resolve().name}"

    def symbols(self) -> pd.DataFrame:
        return read_tables(self.directory).symbols

    def bars(self, since: date | None = None, after: str | None = None) -> Iterator[pd.DataFrame]:
        bars = read_tables(self.directory).bars
        if since is not None:
            bars = bars[bars["ts"] >= pd.Timestamp(since, tz="UTC")]
        if after is not None:
            bars = bars[bars["symbol"] > after]
        for _, chunk in bars.groupby("symbol", sort=True):
            yield chunk

    def count_bars(self, first: date | None, before: date) -> int:
        ts = read_tables(self.directory).bars["ts"]
        is_late = True if first is None else ts >= pd.Timestamp(first, tz="UTC")
        return int(((ts < pd.Timestamp(before, tz="UTC")) & is_late).sum())

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        calendar = read_tables(self.directory).calendar
        if since is not None:
            calendar = calendar[calendar["release_at"] >= pd.Timestamp(since, tz="UTC")]
        return calendar

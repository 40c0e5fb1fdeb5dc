"""Tables in memory as a source, and the snapshot whose tables they may be."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from kronos_service.data.snapshot.manifest import SnapshotError, is_sample
from kronos_service.data.snapshot.read import read_tables
from kronos_service.data.tables import SHORT_BARS
from kronos_service.events.sessions import DAILY, Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Tables as a source; bars are typed and sorted by (symbol, ts). See `Source`."""

    name: str
    symbol_rows: pd.DataFrame
    bar_rows: pd.DataFrame
    event_rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    """What the reader left out, one line each."""
    short_rows: pd.DataFrame | None = None
    """Bars shorter than a day, of `interval`; `bar_rows` are daily."""
    interval: Interval = DAILY
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    """What the event types are."""

    def symbols(self) -> pd.DataFrame:
        return self.symbol_rows

    def bars(
        self, since: date | None = None, after: str | None = None, interval: Interval = DAILY
    ) -> Iterator[pd.DataFrame]:
        rows = self._rows(interval)
        rows = rows[_from(rows, since)]
        if after is not None:
            rows = rows[rows["symbol"] > after]
        return (chunk for _, chunk in rows.groupby("symbol", sort=True))

    def count_bars(self, first: date | None, before: date) -> int:
        return int((_from(self.bar_rows, first) & ~_from(self.bar_rows, before)).sum())

    def calendar(self) -> pd.DataFrame:
        return self.event_rows

    def _rows(self, interval: Interval) -> pd.DataFrame:
        if interval == DAILY:
            return self.bar_rows
        if self.short_rows is None or interval != self.interval:
            held = "no bars shorter than a day" if self.short_rows is None else f"{self.interval} bars"
            raise SnapshotError(f"{self.name} has {held}: expected a table {SHORT_BARS} of {interval} bars")
        return self.short_rows


def _from(rows: pd.DataFrame, day: date | None) -> pd.Series:
    return rows["ts"] >= pd.Timestamp(day or date.min, tz="UTC")


def snapshot_source(directory: Path) -> TableSource:
    """A snapshot, or a plain directory of tables (exporting that one gives it a manifest).

    Raises:
        KronosError: it is not a snapshot, or is damaged.
    """
    snapshot = read_tables(directory)
    made_from = str((snapshot.manifest or {}).get("source", ""))
    return TableSource(
        name=f"snapshot:{snapshot.name}" + (f", a {made_from}" if is_sample(made_from) else ""),
        symbol_rows=snapshot.symbols,
        bar_rows=snapshot.bars if snapshot.leaders is None else snapshot.leaders,
        event_rows=snapshot.calendar,
        short_rows=None if snapshot.leaders is None else snapshot.bars,
        interval=snapshot.interval,
        taxonomy=snapshot.taxonomy,
    )

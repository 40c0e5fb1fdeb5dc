"""What an incremental export extends: an older snapshot of the same source whose past has not changed."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from kronos_service.data.bar_filter import still_open
from kronos_service.data.snapshot.manifest import MANIFEST, SnapshotError
from kronos_service.data.snapshot.read import Snapshot, read_tables
from kronos_service.data.sources import Source
from kronos_service.data.tables import bar_table

OVERLAP: Final = timedelta(days=14)
"""Bars this long before the last export are read again, to see whether they have changed."""


def earlier_snapshot(directory: Path, source: Source, since: date | None) -> Snapshot | None:
    """The snapshot to extend; None if there is none yet.

    Raises:
        SnapshotError: it is damaged, of another source or first date, or does not record when its calendar
            was read.
    """
    if not (directory / MANIFEST).exists():
        return None
    snapshot = read_tables(directory)
    manifest = snapshot.manifest or {}
    snapshot.require_daily("export --incremental")
    if manifest["source"] != source.name or not manifest.get("read_at"):
        raise SnapshotError(
            f"{directory} was read from {manifest['source']}, not from {source.name}: nothing can be "
            "added to it; export without --incremental, or choose another directory"
        )
    if not manifest.get("calendar_read_at"):
        raise SnapshotError(
            f"{directory} does not say when its calendar was read: if that export had no --resume, set "
            f"calendar_read_at in its {MANIFEST} to its read_at; else export without --incremental"
        )
    if since is not None and since.isoformat() != manifest["window"]["first"]:
        raise SnapshotError(
            f"{directory} begins on {manifest['window']['first']}, not on {since}: export without "
            "--since, or without --incremental"
        )
    return snapshot


def calendar_read_at(snapshot: Snapshot) -> datetime:
    """Just before the calendar of an exported snapshot was read."""
    return datetime.fromisoformat((snapshot.manifest or {})["calendar_read_at"])


def first_day(snapshot: Snapshot) -> date:
    """The first date that the source of a snapshot was asked for."""
    return date.fromisoformat((snapshot.manifest or {})["window"]["first"])


def extend_bars(
    snapshot: Snapshot, source: Source, symbols: pd.DataFrame, now: datetime
) -> Iterator[pd.DataFrame] | None:
    """The snapshot's bars and the new ones, symbol by symbol; None if the source's past has changed.

    The past counts as unchanged if there are as many bars before the overlap and if every value in the
    overlap is the same. Prices adjusted for a split show in the overlap. A single corrected old bar does not:
    it waits for the next full export, as do bars that were dropped as bad.
    """
    start = datetime.fromisoformat((snapshot.manifest or {})["read_at"]).date() - OVERLAP
    is_old = snapshot.bars["ts"] < pd.Timestamp(start, tz="UTC")
    if source.count_bars(first_day(snapshot), start) != int(is_old.sum()):
        return None
    chunks = list(source.bars(max(start, first_day(snapshot))))
    if not chunks:
        return None if len(snapshot.bars) > is_old.sum() else _by_symbol(snapshot.bars)
    recent = bar_table(pd.concat(chunks, ignore_index=True))
    known = snapshot.bars[~is_old]
    closed = recent[~still_open(recent, symbols, now)]
    again = closed.merge(known[["symbol", "ts"]], on=["symbol", "ts"])
    if not again.reset_index(drop=True).equals(known.reset_index(drop=True)):
        return None
    return _by_symbol(pd.concat([snapshot.bars[is_old], recent], ignore_index=True))


def _by_symbol(bars: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (rows for _, rows in bars.groupby("symbol", sort=True))

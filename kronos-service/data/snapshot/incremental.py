"""What an incremental export adds to: an older snapshot of the same source, if its past is as it was."""

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
"""How far back before the last export its bars are read again, to see whether they have changed."""


def earlier_snapshot(directory: Path, source: Source, since: date | None) -> Snapshot | None:
    """The snapshot to add to; None where there is none yet.

    Raises:
        SnapshotError: it is damaged, of another source, for another first date, or does not say when its
            calendar was read (as those made before that was recorded).
    """
    if not (directory / MANIFEST).exists():
        return None
    snapshot = read_tables(directory)
    manifest = snapshot.manifest or {}
    if manifest["source"] != source.name or not manifest.get("read_at"):
        raise SnapshotError(
            f"{directory} was read from {manifest['source']}, not from {source.name}: nothing can be "
            "added to it; export without --incremental, or choose another directory"
        )
    if not manifest.get("calendar_read_at"):
        raise SnapshotError(
            f"{directory} does not say when its calendar was read: if it was exported without --resume, set "
            f"calendar_read_at in its {MANIFEST} to its read_at; else export without --incremental"
        )
    if since is not None and since.isoformat() != manifest["window"]["first"]:
        raise SnapshotError(
            f"{directory} begins on {manifest['window']['first']}, not on {since}: leave --since out, "
            "or export without --incremental"
        )
    return snapshot


def read_at(snapshot: Snapshot) -> datetime:
    """When the reading of an exported snapshot's bars began."""
    return datetime.fromisoformat((snapshot.manifest or {})["read_at"])


def calendar_read_at(snapshot: Snapshot) -> datetime:
    """A moment just before the calendar of an exported snapshot was read."""
    return datetime.fromisoformat((snapshot.manifest or {})["calendar_read_at"])


def first_day(snapshot: Snapshot) -> date:
    """The first date that the source of a snapshot was asked for."""
    return date.fromisoformat((snapshot.manifest or {})["window"]["first"])


def extend_bars(
    snapshot: Snapshot, source: Source, symbols: pd.DataFrame, now: datetime
) -> Iterator[pd.DataFrame] | None:
    """The snapshot's bars and the new ones, symbol by symbol; None if the source's past has changed.

    The past is taken to be the same if there are as many bars before the overlap, and if those in it are
    the same in every value. (Prices adjusted for a split show in the overlap; a lone old bar that was
    corrected does not, and waits for the next full export, as do bars that were dropped as bad.)
    """
    start = read_at(snapshot).date() - OVERLAP
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

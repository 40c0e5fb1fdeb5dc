"""Staging: bars on disk, whole symbols at a time, on their way into a snapshot.

Memory stays flat whatever the size of the table, and an interrupted export can resume.

.partial/
  state.json                what is being read, and when reading began
  00000.parquet             typed bars, not checked yet; one row group per symbol
  00001.parquet
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos_service.data.tables import TableError, bar_table, bars_of, batches
from kronos_service.events.sessions import DAILY, Interval
from kronos_shared.atomic import replace_file

PART_ROWS = 20_000
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Staging:
    """The bars read so far."""

    directory: Path
    read_at: datetime
    """When the reading began, in this export or in the one it resumes."""
    interval: Interval = DAILY

    def fill(self, chunks: Iterable[pd.DataFrame]) -> None:
        """Write the remaining bars; chunks come symbol by symbol and may have any size."""
        there = len(list(self.directory.glob("*.parquet")))
        for number, frames in enumerate(
            batches(symbol_frames(chunks, self.interval), PART_ROWS), start=there
        ):
            replace_file(self.directory / f"{number:05}.parquet", _to_parquet(frames))

    def bars(self) -> Iterator[pd.DataFrame]:
        """The typed bars of each symbol, in the order of the symbols' code points."""
        groups = {
            symbol: (path, group)
            for path in sorted(self.directory.glob("*.parquet"))
            for group, symbol in enumerate(_symbols(path))
        }
        for symbol in sorted(groups):
            path, group = groups[symbol]
            with pq.ParquetFile(path) as file:
                yield bar_table(file.read_row_group(group).to_pandas(), self.interval)

    def names(self) -> list[str]:
        """Every symbol that has been read whole, in the order of the source."""
        return [symbol for path in sorted(self.directory.glob("*.parquet")) for symbol in _symbols(path)]

    def days(self) -> tuple[date, date]:
        """Session dates of the earliest and the latest bar, from the files' footers."""
        footers = [pq.read_metadata(path) for path in self.directory.glob("*.parquet")]
        groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
        stamps = [group.column(1).statistics for group in groups]
        first, last = min(one.min for one in stamps), max(one.max for one in stamps)
        return pd.Timestamp(first).date(), pd.Timestamp(last).date()


@contextmanager
def open_staging(
    directory: Path,
    request: dict[str, Any],
    *,
    resume: bool,
    now: datetime,
    interval: Interval = DAILY,
) -> Iterator[Staging]:
    """Start empty or, with `resume`, with what an interrupted export of the same request left here.

    After an interruption the bars read so far stay, so that the next export can resume; else the directory is
    removed at the end.
    """
    staging = _resumable(directory, request, interval) if resume else None
    if staging is None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        replace_file(directory / STATE, json.dumps({"request": request, "read_at": now.isoformat()}).encode())
        staging = Staging(directory=directory, read_at=now, interval=interval)
    try:
        yield staging
    except TableError:  # resuming would meet the same bad rows again, so they must be read anew
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def _resumable(directory: Path, request: dict[str, Any], interval: Interval) -> Staging | None:
    state = directory / STATE
    if not state.exists():
        return None
    left = json.loads(state.read_bytes())
    if left["request"] != request:
        return None
    read_at = datetime.fromisoformat(left["read_at"])
    return Staging(directory=directory, read_at=read_at, interval=interval)


def symbol_frames(chunks: Iterable[pd.DataFrame], interval: Interval = DAILY) -> Iterator[pd.DataFrame]:
    """Regroup chunks, which may end anywhere, into one typed frame per symbol.

    Raises:
        TableError: the bars of a symbol are not consecutive, or a chunk lacks a column or does not parse.
    """
    seen = set[str]()
    for symbol, pieces in groupby(_pieces(chunks, interval), key=itemgetter(0)):
        if symbol in seen:
            raise TableError(
                f"table {bars_of(interval)}: bars of {symbol} come in two places; order by symbol"
            )
        seen.add(symbol)
        yield bar_table(pd.concat([rows for _, rows in pieces], ignore_index=True), interval)


def _pieces(chunks: Iterable[pd.DataFrame], interval: Interval) -> Iterator[tuple[str, pd.DataFrame]]:
    for chunk in chunks:
        if "symbol" not in chunk.columns:
            bar_table(chunk, interval)  # raises, naming what is missing
        for name, rows in chunk.groupby("symbol", sort=False, dropna=False):
            yield str(name), rows


def _to_parquet(frames: list[pd.DataFrame]) -> bytes:
    buffer = BytesIO()
    tables = [pa.Table.from_pandas(frame, preserve_index=False) for frame in frames]
    with pq.ParquetWriter(buffer, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
    return buffer.getvalue()


def _symbols(path: Path) -> list[str]:
    """The symbol of each row group, from the file's footer."""
    groups = pq.read_metadata(path)
    return [groups.row_group(i).column(0).statistics.min for i in range(groups.num_row_groups)]

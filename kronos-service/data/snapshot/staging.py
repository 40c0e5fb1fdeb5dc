"""Bars on their way into a snapshot: whole symbols on disk, so that memory stays flat and a cut is no loss.

.partial/
  state.json                what is being read, and since when
  00000.parquet             typed bars, not judged yet; one row group per symbol
  00001.parquet
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos_service.data.tables import TableError, bar_table
from kronos_shared.atomic import replace_file

PART_ROWS = 20_000
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Staging:
    """The part of a table of bars that has been read."""

    directory: Path
    read_at: datetime
    """When the reading began, be it by an earlier export."""
    symbols: tuple[str, ...]
    """Symbols that an earlier export had read whole, in the order of its source."""

    def fill(self, chunks: Iterable[pd.DataFrame]) -> None:
        """Put the rest of the bars on disk; chunks come symbol by symbol, in whatever sizes."""
        there = len(list(self.directory.glob("*.parquet")))
        for number, frames in enumerate(_batches(symbol_frames(chunks)), start=there):
            replace_file(self.directory / f"{number:05}.parquet", _to_parquet(frames))

    def bars(self) -> Iterator[pd.DataFrame]:
        """The typed bars of each symbol, in the order of the symbols' code points."""
        places = {
            symbol: (path, group)
            for path in sorted(self.directory.glob("*.parquet"))
            for group, symbol in enumerate(_symbols(path))
        }
        for symbol in sorted(places):
            path, group = places[symbol]
            with pq.ParquetFile(path) as file:
                yield bar_table(file.read_row_group(group).to_pandas())

    @property
    def is_empty(self) -> bool:
        """True as long as no bar has been read."""
        return not any(self.directory.glob("*.parquet"))

    def names(self) -> list[str]:
        """Every symbol that has been read."""
        return [symbol for path in sorted(self.directory.glob("*.parquet")) for symbol in _symbols(path)]

    def first_day(self) -> date:
        """Session date of the earliest bar, from the files' footers."""
        footers = [pq.read_metadata(path) for path in self.directory.glob("*.parquet")]
        groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
        return pd.Timestamp(min(group.column(1).statistics.min for group in groups)).date()


@contextmanager
def open_staging(directory: Path, request: dict[str, Any], *, resume: bool, now: datetime) -> Iterator[Staging]:
    """An empty start, or with `resume` what an earlier export of the same request left here.

    If the reading is cut off, what has been read stays; in every other case nothing does.
    """
    staging = _resumable(directory, request) if resume else None
    if staging is None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        replace_file(directory / STATE, json.dumps({"request": request, "read_at": now.isoformat()}).encode())
        staging = Staging(directory=directory, read_at=now, symbols=())
    try:
        yield staging
    except TableError:  # what was read is at fault: it must be read again
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def _resumable(directory: Path, request: dict[str, Any]) -> Staging | None:
    state = directory / STATE
    if not state.exists():
        return None
    left = json.loads(state.read_bytes())
    if left["request"] != request:
        return None
    read_at = datetime.fromisoformat(left["read_at"])
    names = Staging(directory=directory, read_at=read_at, symbols=()).names()
    return Staging(directory=directory, read_at=read_at, symbols=tuple(names))


def symbol_frames(chunks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Typed bars, one whole symbol after the other, of chunks that may end anywhere.

    Raises:
        TableError: a symbol comes again after another one, or a chunk is not in form.
    """
    held: list[pd.DataFrame] = []
    seen: list[str] = []
    for chunk in chunks:
        if "symbol" not in chunk.columns:
            bar_table(chunk)  # says what is missing
        for name, rows in chunk.groupby("symbol", sort=False, dropna=False):
            symbol = str(name)
            if not seen or symbol != seen[-1]:
                if held:
                    yield bar_table(pd.concat(held, ignore_index=True))
                held = []
                if symbol in seen:
                    raise TableError(f"table ohlcv_1d: bars of {symbol} come in two places; order by symbol")
                seen.append(symbol)
            held.append(rows)
    if held:
        yield bar_table(pd.concat(held, ignore_index=True))


def _batches(frames: Iterable[pd.DataFrame]) -> Iterator[list[pd.DataFrame]]:
    held: list[pd.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= PART_ROWS:
            yield held
            held = []
    if held:
        yield held


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

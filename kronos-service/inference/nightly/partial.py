"""An unfinished batch on disk: whole chunks beside the file to come, which a killed run leaves for the next.

.2026-11-26.parquet.partial/
  plan.json                 what decides the rows, how symbols are chunked, and the time the batch is of
  tables/                   a snapshot of the source, where the source is none
  00000.parquet             the rows of the first chunk; its metadata names the symbols that failed
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from kronos_service.data.forecasts import SCHEMA, with_about
from kronos_service.inference.nightly.chunk import Chunk
from kronos_shared.atomic import move_into_place, replace_file
from kronos_shared.errors import KronosError

PLAN: Final = "plan.json"
LOCK: Final = ".lock"
ROWS: Final = 50_000
"""Rows of a row group: the finished file must not depend on how symbols were chunked."""
_FAILED: Final = b"failed"


class BusyError(KronosError):
    """Another process makes the same file."""


class UnwritableError(KronosError):
    """The disk is full, or cannot be written; what is done so far stays."""


@dataclass(frozen=True, kw_only=True)
class Began:
    """What the start that an unfinished batch goes back to has decided."""

    facts: Mapping[str, Any]
    chunk: int
    """Symbols of a chunk."""
    now: datetime


@dataclass(frozen=True)
class Partial:
    """The chunks done so far; used by one process at a time."""

    directory: Path

    def began(self) -> Began | None:
        """What an earlier start decided, or None where there was none."""
        try:
            plan = json.loads((self.directory / PLAN).read_bytes())
        except FileNotFoundError:
            return None
        return Began(facts=plan["facts"], chunk=plan["chunk"], now=datetime.fromisoformat(plan["now"]))

    def begin(self, began: Began) -> None:
        """Forget the chunks that are there, and begin a batch."""
        for path in self.directory.glob("*.parquet"):
            path.unlink()
        plan = {"facts": began.facts, "chunk": began.chunk, "now": began.now.isoformat()}
        replace_file(self.directory / PLAN, json.dumps(plan, indent=1, sort_keys=True).encode() + b"\n")

    def has(self, number: int) -> bool:
        """Whether a chunk is done."""
        return self._path(number).exists()

    def put(self, number: int, chunk: Chunk) -> None:
        """Keep a chunk, in one step."""
        buffer = BytesIO()
        pq.write_table(
            chunk.rows.replace_schema_metadata({_FAILED: json.dumps(chunk.failed).encode()}), buffer
        )
        replace_file(self._path(number), buffer.getvalue())

    def failed(self, count: int) -> dict[str, str]:
        """Symbol -> reason, of all chunks."""
        parts = [json.loads(pq.read_schema(self._path(n)).metadata[_FAILED]) for n in range(count)]
        return {symbol: reason for part in parts for symbol, reason in part.items()}

    def finish(self, out: Path, count: int, about: Mapping[str, Any]) -> int:
        """Write the chunks as one file, in one step, and return its rows."""
        rows = 0
        scratch = self.directory / "finished"
        with pq.ParquetWriter(scratch, with_about(SCHEMA, about), compression="zstd") as writer:
            for table in _regrouped(pq.read_table(self._path(number)) for number in range(count)):
                writer.write_table(
                    table.replace_schema_metadata(None).cast(writer.schema), row_group_size=ROWS
                )
                rows += len(table)
        move_into_place(scratch, out)
        return rows

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:05}.parquet"


@contextmanager
def open_partial(out: Path) -> Iterator[Partial]:
    """The unfinished batch of a file, empty where there is none; it is removed once nothing has failed.

    Raises:
        BusyError: another process is at it.
        UnwritableError: the disk is full, or cannot be written.
    """
    directory = out.with_name(f".{out.name}.partial")
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        with lock:
            yield Partial(directory)
    except Timeout:
        raise BusyError(f"another forecast-all is writing {out}: wait for it, or name another file") from None
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise UnwritableError(f"cannot write {out} ({said}): make room; the same command resumes") from None
    shutil.rmtree(directory, ignore_errors=True)


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROWS` rows, but for the last."""
    held = SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table.replace_schema_metadata(None)])
        while len(held) >= ROWS:
            yield held.slice(0, ROWS).combine_chunks()
            held = held.slice(ROWS)
    if len(held):
        yield held.combine_chunks()

"""Writes a snapshot: each file durably, then manifest.json in one step.

Bars are written as they come, one row group per symbol in the order of the symbols' code points: memory does
not grow with the table, and the same content gives the same bytes and hash, whatever source it came from.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from kronos_service.data.snapshot.manifest import MANIFEST, Origin, SnapshotError, make_manifest
from kronos_service.data.tables import SHORT_BARS, TABLES, bar_table, bars_of, calendar_table, symbol_table
from kronos_service.data.validation import check_tables
from kronos_service.events.sessions import DAILY, Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.atomic import fsync, replace_file
from kronos_shared.columns import INTERVAL

LOCK: Final = ".lock"
STAGING: Final = ".partial"
"""What an interrupted export had read, for the next one to resume from."""

_TABLE: Final = f"({'|'.join((*TABLES, SHORT_BARS))})"
_OURS: Final = re.compile(
    rf"\{LOCK}|\{STAGING}|\.?{MANIFEST}(\.tmp)?|\.{MANIFEST}-\w+|{_TABLE}-[0-9a-f]{{12}}\.parquet|"
    rf"\.{_TABLE}[-.0-9a-z]*\.tmp"
)


def write_snapshot(
    directory: str | Path,
    *,
    symbols: pd.DataFrame,
    bars: pd.DataFrame,
    calendar: pd.DataFrame,
    window: tuple[date, date],
    source: str,
    now: datetime | None = None,
    interval: Interval = DAILY,
    leaders: pd.DataFrame | None = None,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> dict[str, Any]:
    """Validate the tables, make them the snapshot in `directory` in one step, and return the manifest.

    Args:
        directory: new, empty, or an older snapshot, which stays valid until the last step.
        symbols: the table of that name; so are `bars` and `calendar`.
        window: first and last date that the source was asked for.
        source: where the rows came from, for the manifest; never a secret.
        now: the time up to which sessions have closed (default: the present).
        interval: how long `bars` are.
        leaders: daily bars of the leaders, where `bars` are shorter.
        taxonomy: what the calendar's types and the leaders are.

    Raises:
        SnapshotError: the directory holds something else, or another export is writing into it.
        TableError: as for `load_snapshot`; nothing has been written then.
    """
    now = now or datetime.now(UTC)
    symbols, bars, calendar = symbol_table(symbols), bar_table(bars, interval), calendar_table(calendar)
    check_tables(symbols, bars, calendar, now=now, interval=interval, taxonomy=taxonomy)
    if leaders is not None:
        leaders = bar_table(leaders)
        check_tables(symbols, leaders, calendar, now=now, taxonomy=taxonomy)
    with exclusive(Path(directory)):
        return commit(
            Path(directory),
            symbols=symbols,
            bars=_by_symbol(bars),
            calendar=calendar,
            origin=Origin(source=source, window=window, interval=interval, taxonomy=taxonomy),
            leaders=leaders,
        )


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Lock the directory against other writers; it is made if missing, and removed if it stays empty.

    Raises:
        SnapshotError: it holds something else, cannot be written, or another export is writing into it.
    """
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise SnapshotError(
                f"another process is writing {directory}; wait for it, or choose another"
            ) from None
    try:
        _refuse_foreign(directory)
        yield
    finally:
        with suppress(OSError):  # Windows keeps an open file
            (directory / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # it holds a snapshot
            directory.rmdir()


def commit(
    directory: Path,
    *,
    symbols: pd.DataFrame,
    bars: Iterable[pd.DataFrame],
    calendar: pd.DataFrame,
    origin: Origin,
    leaders: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Make checked, typed tables the snapshot of a directory that `exclusive` has locked.

    Args:
        symbols, calendar: the whole tables.
        bars: one frame per symbol, in the order of the symbols; an error it raises ends the write.
        origin: for the manifest.
        leaders: daily bars of the leaders, where `bars` are shorter than a day.

    Returns:
        The manifest.

    Raises:
        SnapshotError: the disk is full, or cannot be written.
    """
    if calendar["symbol"].isna().all():  # so that a column of nulls at the source changes no hash
        calendar = calendar.drop(columns="symbol")
    contents: dict[str, Iterable[pd.DataFrame]]
    contents = {"ohlcv_1d": bars, "symbols": [symbols], "economic_calendar": [calendar]}
    if origin.interval != DAILY:
        assert leaders is not None
        short = (frame.assign(**{INTERVAL: origin.interval}) for frame in bars)
        contents |= {"ohlcv_1d": _by_symbol(leaders), bars_of(origin.interval): short}
    scratch = {name: directory / f".{name}.tmp" for name in contents}
    with _explained(directory):
        try:
            rows = {name: _write_table(scratch[name], contents[name]) for name in contents}
            hashes = {name: _sha256(path) for name, path in scratch.items()}
            manifest = make_manifest(rows, hashes, origin)
            files = {name: str(manifest["tables"][name]["file"]) for name in contents}
            for name, path in scratch.items():
                os.replace(path, directory / files[name])
        except BaseException:
            for path in scratch.values():
                path.unlink(missing_ok=True)
            raise
        # The tables must be in the directory before a manifest that names them can be.
        fsync(directory)
        replace_file(directory / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        _remove_leftovers(directory, {MANIFEST, LOCK, *files.values()})
    return manifest


def _by_symbol(bars: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (rows for _, rows in bars.groupby("symbol", sort=True))


def _write_table(path: Path, frames: Iterable[pd.DataFrame]) -> int:
    """Write the frames as row groups, durably, and return the number of rows."""
    writer, count = None, 0
    with path.open("wb") as file, ExitStack() as stack:
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)
            count += len(frame)
        if writer is None:
            raise SnapshotError(f"no rows to write to {path.parent}; expected at least one bar")
        writer.close()
        file.flush()
        os.fsync(file.fileno())
    # The footer is what readers trust, so it is read back.
    if pq.read_metadata(path).num_rows != count:
        raise SnapshotError(f"{path} does not hold the {count} rows that were written; is the disk sound?")
    return count


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SnapshotError(
            f"cannot write {directory} ({error.strerror}); make room or choose another"
        ) from None


def _refuse_foreign(directory: Path) -> None:
    """Raise if there is a file that no snapshot has: the write would remove it."""
    foreign = sorted(path.name for path in directory.iterdir() if not _OURS.fullmatch(path.name))
    if foreign:
        raise SnapshotError(
            f"{directory} holds {foreign[0]}, no part of a snapshot; choose an empty directory or a snapshot"
        )


def _remove_leftovers(directory: Path, keep: set[str]) -> None:
    """Remove the files of older versions and of killed writers."""
    for path in directory.iterdir():
        if path.name == STAGING:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in keep:
            path.unlink()

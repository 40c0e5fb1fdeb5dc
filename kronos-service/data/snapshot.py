"""The embedded source: a directory of parquet files plus `manifest.json`; training reads nothing else.

    2026-11/
      manifest.json                       what was asked for, row counts, each file's name and sha256
      ohlcv_1d-<sha12>.parquet
      symbols-<sha12>.parquet
      economic_calendar-<sha12>.parquet

Files are named by their content, so a new version never touches an old one's. Replacing manifest.json is the
one step that makes the new version the snapshot: a kill at any moment leaves the old or the new one, whole.

A directory of tables without a manifest (ohlcv_1d, symbols, economic_calendar as .parquet or .csv) is read
too: it is hashed on the spot, and flagged.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
from filelock import FileLock, Timeout

from kronos_service.data.manifest import (
    MANIFEST,
    SnapshotError,
    check_hashes,
    check_rows,
    content_hash,
    make_manifest,
    read_manifest,
)
from kronos_service.data.tables import TABLES, bar_table, calendar_table, symbol_table
from kronos_service.data.validation import check_tables
from kronos_shared.candles import LEADERS

__all__ = [
    "Snapshot",
    "SnapshotError",
    "leader_data",
    "load_snapshot",
    "read_tables",
    "series",
    "write_snapshot",
]

_TYPED: Final[dict[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "ohlcv_1d": bar_table,
    "symbols": symbol_table,
    "economic_calendar": calendar_table,
}
_OURS: Final = re.compile(rf"\.lock|\.?({MANIFEST}|({'|'.join(TABLES)})-[0-9a-f]{{12}}\.parquet)(\.tmp)?")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Validated tables in memory, with the hash of the bytes they came from."""

    name: str
    """Last component of the directory."""
    symbols: pd.DataFrame
    """`SYMBOL_COLUMNS`, sorted by symbol."""
    bars: pd.DataFrame
    """`BAR_COLUMNS`, sorted by (symbol, ts); `ts` is the session date at 00:00 UTC, null `amount` allowed."""
    calendar: pd.DataFrame
    """`CALENDAR_COLUMNS`, sorted by release time; several rows of one event_id are its revisions."""
    sha256: str
    """Hash over the files' hashes: the same content has the same hash wherever it lies."""
    manifest: Mapping[str, Any] | None
    """manifest.json, or None for a plain directory of tables."""

    @property
    def flagged(self) -> bool:
        """True where nothing vouches for the files: there is no manifest."""
        return self.manifest is None


def series(snapshot: Snapshot, symbol: str) -> pd.DataFrame:
    """The bars of one symbol, ascending in `ts`, with a fresh index.

    Raises:
        SnapshotError: the snapshot has no such bars.
    """
    bars = snapshot.bars[snapshot.bars["symbol"] == symbol].reset_index(drop=True)
    if bars.empty:
        raise SnapshotError(f"snapshot {snapshot.name} has no bars of {symbol!r}; see its table symbols")
    return bars


def leader_data(snapshot: Snapshot) -> dict[str, pd.DataFrame]:
    """Leader -> frame of (ts, close), for the leaders present; the event encoder refuses a missing one."""
    bars = snapshot.bars[snapshot.bars["symbol"].isin(LEADERS)]
    return {str(name): rows[["ts", "close"]].reset_index(drop=True) for name, rows in bars.groupby("symbol")}


def load_snapshot(path: str | Path, *, now: datetime | None = None) -> Snapshot:
    """Read a snapshot, or a plain directory of tables, and check everything about it.

    Args:
        path: the directory.
        now: the time up to which sessions have closed (default: the present); a later bar is refused.

    Raises:
        SnapshotError: no such snapshot, a missing or damaged file, a file that fails its hash.
        TableError: a missing column, an empty table, a bad key (and its subclasses: bad bars, release times).
        UnknownEventType: the calendar has a type outside the taxonomy.
    """
    snapshot = read_tables(path)
    check_tables(snapshot.symbols, snapshot.bars, snapshot.calendar, now=now or datetime.now(UTC))
    return snapshot


def read_tables(path: str | Path) -> Snapshot:
    """As `load_snapshot`, without judging the values: for whoever means to mend or drop bad rows."""
    directory = Path(path)
    if not directory.is_dir():
        raise SnapshotError(f"no such snapshot: {path} is not a directory; make one with export or sample")
    manifest = read_manifest(directory) if (directory / MANIFEST).exists() else None
    if manifest is None:
        files = _plain_files(directory)
    else:
        files = {name: directory / manifest["tables"][name]["file"] for name in TABLES}
    content = {name: _read_bytes(file) for name, file in files.items()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    if manifest is not None:
        check_hashes(directory, manifest, hashes)
    tables = {name: _TYPED[name](_parse(files[name], data)) for name, data in content.items()}
    if manifest is not None:
        check_rows(directory, manifest, {name: len(table) for name, table in tables.items()})
    return Snapshot(
        name=directory.resolve().name,
        symbols=tables["symbols"],
        bars=tables["ohlcv_1d"],
        calendar=tables["economic_calendar"],
        sha256=content_hash(hashes),
        manifest=manifest,
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
) -> dict[str, Any]:
    """Validate the tables and make them the snapshot in `directory`, in one step; returns the manifest.

    Args:
        directory: new, empty, or an older snapshot, which stays the snapshot until the last moment.
        symbols: as in the table of that name; likewise `bars` and `calendar`.
        window: first and last date that the source was asked for.
        source: where the rows came from, for the manifest; never a secret.
        now: the time up to which sessions have closed (default: the present).

    Raises:
        SnapshotError: the directory holds something else, or another export is writing into it.
        TableError: as `load_snapshot`; nothing has been written then.
    """
    raw = {"ohlcv_1d": bars, "symbols": symbols, "economic_calendar": calendar}
    tables = {name: _TYPED[name](raw[name]) for name in TABLES}
    check_tables(
        tables["symbols"], tables["ohlcv_1d"], tables["economic_calendar"], now=now or datetime.now(UTC)
    )
    content = {name: _to_parquet(table) for name, table in tables.items()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = make_manifest({name: len(table) for name, table in tables.items()}, hashes, window, source)
    _publish(Path(directory), manifest, {manifest["tables"][name]["file"]: content[name] for name in TABLES})
    return manifest


def _publish(directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    lock = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            _refuse_foreign(directory)
            for name, data in files.items():
                _write_durably(directory / name, data)
            _write_durably(directory / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
            _remove_leftovers(directory, {MANIFEST, lock.name, *files})
            with suppress(OSError):  # Windows keeps an open file
                lock.unlink()
    except Timeout:
        raise SnapshotError(
            f"another process is writing {directory}; wait for it, or choose another"
        ) from None
    except OSError as error:
        raise SnapshotError(
            f"cannot write {directory} ({error.strerror}); make room or choose another"
        ) from None


def _refuse_foreign(directory: Path) -> None:
    """What a snapshot does not consist of would be lost or read by mistake later."""
    foreign = sorted(path.name for path in directory.iterdir() if not _OURS.fullmatch(path.name))
    if foreign:
        raise SnapshotError(
            f"{directory} holds {foreign[0]}, no part of a snapshot; choose an empty directory or a snapshot"
        )


def _write_durably(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: `path` has its old content or all of the new, whatever happens."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    if os.name == "posix":  # the rename itself is only durable once the directory is
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_leftovers(directory: Path, keep: set[str]) -> None:
    """Drop the files of older versions and of writers that were killed; the new one is in place."""
    for file in directory.iterdir():
        if file.name not in keep:
            file.unlink()


def _plain_files(directory: Path) -> dict[str, Path]:
    files = {}
    for name in TABLES:
        found = [file for suffix in (".parquet", ".csv") if (file := directory / f"{name}{suffix}").is_file()]
        if not found:
            raise SnapshotError(
                f"{directory} has no {MANIFEST} and no table {name}: expected {name}.parquet or {name}.csv"
            )
        if len(found) > 1:
            raise SnapshotError(f"{directory} has both {found[0].name} and {found[1].name}; keep one")
        files[name] = found[0]
    return files


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read {file} ({error.strerror}); export the snapshot again") from None


def _parse(file: Path, data: bytes) -> pd.DataFrame:
    read = pd.read_csv if file.suffix == ".csv" else pd.read_parquet
    try:
        return read(io.BytesIO(data))
    except (ValueError, OSError) as error:
        raise SnapshotError(
            f"{file} does not parse as {file.suffix[1:]}: {str(error).splitlines()[0]}"
        ) from None


def _to_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()

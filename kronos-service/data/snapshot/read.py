"""Reads a snapshot: a directory of parquet files under `manifest.json`. Training reads nothing else.

    2026-11/
      manifest.json                       source, dates, and each file's name, row count and sha256
      ohlcv_1d-<sha12>.parquet
      symbols-<sha12>.parquet
      economic_calendar-<sha12>.parquet

Files are named by their content, so a new version never overwrites an old one. Replacing manifest.json makes
the new version the snapshot: a kill at any moment leaves the old one or the new one whole.

A directory of tables without a manifest (ohlcv_1d, symbols, economic_calendar as .parquet or .csv) is read
too; it is hashed when it is read, and flagged.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_service.data.snapshot.manifest import (
    MANIFEST,
    SnapshotError,
    content_hash,
    is_sample,
    read_manifest,
    taxonomy_in,
)
from kronos_service.data.snapshot.write import TYPED
from kronos_service.data.tables import TABLES, read_csv
from kronos_service.data.validation import check_tables
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.cli import did_you_mean
from kronos_shared.errors import first_line


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
    """Hash over the files' hashes, the same for the same content in any place."""
    manifest: Mapping[str, Any] | None
    """manifest.json, or None for a plain directory of tables."""
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    """What its event types and leaders are; the manifest carries another than the default one."""

    @property
    def is_sample(self) -> bool:
        """Whether its manifest says that it is a sample market, of whatever seed."""
        return self.manifest is not None and is_sample(str(self.manifest.get("source", "")))

    def record(self) -> dict[str, Any]:
        """What a file of figures says of the data that they are about."""
        mark = {"synthetic": True} if self.is_sample else {}
        return {"name": self.name, "sha256": self.sha256, **mark}

    @property
    def flagged(self) -> bool:
        """True without a manifest, so that nothing vouches for the files."""
        return self.manifest is None


def series(snapshot: Snapshot, symbol: str) -> pd.DataFrame:
    """The bars of one symbol, ascending in `ts`, with a fresh index.

    Raises:
        SnapshotError: the snapshot has no such bars.
    """
    bars = snapshot.bars[snapshot.bars["symbol"] == symbol].reset_index(drop=True)
    if bars.empty:
        advice = did_you_mean(symbol, snapshot.bars["symbol"].unique()) or "; see its table symbols"
        raise SnapshotError(f"snapshot {snapshot.name} has no bars of {symbol!r}{advice}")
    return bars


def leader_data(snapshot: Snapshot) -> dict[str, pd.DataFrame]:
    """Leader -> frame of (ts, close), for the leaders present; the event encoder raises if one is missing."""
    bars = snapshot.bars[snapshot.bars["symbol"].isin(snapshot.taxonomy.leaders)]
    return {str(name): rows[["ts", "close"]].reset_index(drop=True) for name, rows in bars.groupby("symbol")}


def load_snapshot(path: str | Path, *, now: datetime | None = None) -> Snapshot:
    """Read and check a snapshot, or a plain directory of tables.

    Args:
        path: the directory.
        now: bars of sessions that close later are an error (default: the present).

    Raises:
        SnapshotError: no such snapshot, or a file is missing, damaged or fails its hash.
        TableError: a missing column, an empty table, a bad key; its subclasses: bad bars, bare dates.
        UnknownEventType: the calendar has a type outside the taxonomy.
    """
    snapshot = read_tables(path)
    check_tables(
        snapshot.symbols,
        snapshot.bars,
        snapshot.calendar,
        now=now or datetime.now(UTC),
        taxonomy=snapshot.taxonomy,
    )
    return snapshot


def read_tables(path: str | Path) -> Snapshot:
    """As `load_snapshot` but without checking the values, for callers that drop bad rows themselves."""
    directory = Path(path)
    if not directory.is_dir():
        raise SnapshotError(f"no such snapshot: {path} is not a directory; make one with export or sample")
    manifest = read_manifest(directory) if (directory / MANIFEST).exists() else None
    entries = {} if manifest is None else manifest["tables"]
    taxonomy = taxonomy_in(manifest, str(directory / MANIFEST))
    tables, hashes = {}, {}
    for name in TABLES:
        entry = entries.get(name)
        file = directory / entry["file"] if entry else _plain_file(directory, name)
        content = _read_bytes(file)
        hashes[name] = hashlib.sha256(content).hexdigest()
        if entry and hashes[name] != entry["sha256"]:
            raise SnapshotError(
                f"{file} fails its hash: the manifest says {str(entry['sha256'])[:12]}, the file has "
                f"{hashes[name][:12]}; export the snapshot again"
            )
        tables[name] = TYPED[name](_parse(file, content))
        if entry and len(tables[name]) != entry["rows"]:
            raise SnapshotError(
                f"{directory}: {name} has {len(tables[name])} rows, the manifest says {entry['rows']}; "
                "export again"
            )
    return Snapshot(
        name=directory.resolve().name,
        symbols=tables["symbols"],
        bars=tables["ohlcv_1d"],
        calendar=tables["economic_calendar"],
        sha256=content_hash(hashes, taxonomy),
        manifest=manifest,
        taxonomy=taxonomy,
    )


def _plain_file(directory: Path, name: str) -> Path:
    found = [file for suffix in (".parquet", ".csv") if (file := directory / f"{name}{suffix}").is_file()]
    if not found:
        raise SnapshotError(
            f"{directory} has no {MANIFEST} and no table {name}: expected {name}.parquet or {name}.csv"
        )
    if len(found) > 1:
        raise SnapshotError(f"{directory} has both {found[0].name} and {found[1].name}; keep one")
    return found[0]


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read {file} ({error.strerror}); export the snapshot again") from None


def _parse(file: Path, data: bytes) -> pd.DataFrame:
    try:
        return read_csv(BytesIO(data)) if file.suffix == ".csv" else pd.read_parquet(BytesIO(data))
    except (ValueError, OSError) as error:
        raise SnapshotError(f"{file} does not parse as {file.suffix[1:]}: {first_line(error)}") from None

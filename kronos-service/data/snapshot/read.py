"""Reads a snapshot: a directory of parquet files under `manifest.json`. Training reads nothing else.

    2026-11/
      manifest.json                       source, dates, and each file's name, row count and sha256
      ohlcv_1d-<sha12>.parquet
      symbols-<sha12>.parquet
      economic_calendar-<sha12>.parquet
      ohlcv-<sha12>.parquet               bars shorter than a day; ohlcv_1d then holds the leaders' alone

Files are named by their content, so a new version never overwrites an old one. Replacing manifest.json makes
the new version the snapshot: a kill at any moment leaves the old one or the new one whole.

A directory of tables without a manifest (ohlcv_1d, symbols, economic_calendar, and ohlcv if its bars are
shorter than a day, as .parquet or .csv) is read too; it is hashed when it is read, and flagged.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    require_daily,
    taxonomy_in,
)
from kronos_service.data.tables import (
    SHORT_BARS,
    TABLES,
    bar_table,
    calendar_table,
    interval_of,
    read_csv,
    symbol_table,
)
from kronos_service.data.validation import check_tables
from kronos_service.events.sessions import DAILY, Interval
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
    """`BAR_COLUMNS`, sorted by (symbol, ts); `ts` is the session date at 00:00 UTC or, of bars shorter than a
    day, when they open; null `amount` allowed.
    """
    calendar: pd.DataFrame
    """`CALENDAR_COLUMNS`, sorted by release time; several rows of one event_id are its revisions."""
    sha256: str
    """Hash over the files' hashes, the same for the same content in any place."""
    manifest: Mapping[str, Any] | None
    """manifest.json, or None for a plain directory of tables."""
    interval: Interval = DAILY
    """How long `bars` are."""
    leaders: pd.DataFrame | None = None
    """The daily bars of the leaders, where `bars` are shorter."""
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    """What its event types and leaders are; the manifest carries another than the default one."""

    @property
    def is_sample(self) -> bool:
        """Whether its manifest says that it is a sample market, of whatever seed."""
        return self.manifest is not None and is_sample(str(self.manifest.get("source", "")))

    def require_daily(self, what: str) -> None:
        """Raise `SnapshotError` if bars are shorter than a day, where `what` takes daily ones only."""
        require_daily(f"snapshot {self.name}", self.interval, what)

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


def daily(snapshot: Snapshot) -> Snapshot:
    """The snapshot with its daily bars: where they are shorter, with the leaders' alone."""
    if snapshot.leaders is None:
        return snapshot
    return replace(snapshot, bars=snapshot.leaders, interval=DAILY, leaders=None)


def leader_data(snapshot: Snapshot) -> dict[str, pd.DataFrame]:
    """Leader -> frame of (ts, close) of its daily bars, for the leaders present; the event encoder raises if
    one is missing.
    """
    bars = daily(snapshot).bars
    bars = bars[bars["symbol"].isin(snapshot.taxonomy.leaders)]
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
    now = now or datetime.now(UTC)
    symbols, calendar, taxonomy = snapshot.symbols, snapshot.calendar, snapshot.taxonomy
    check_tables(symbols, snapshot.bars, calendar, now=now, interval=snapshot.interval, taxonomy=taxonomy)
    if snapshot.leaders is not None:
        check_tables(symbols, snapshot.leaders, calendar, now=now, taxonomy=taxonomy)
    return snapshot


def read_tables(path: str | Path) -> Snapshot:
    """As `load_snapshot` but without checking the values, for callers that drop bad rows themselves."""
    directory = Path(path)
    if not directory.is_dir():
        raise SnapshotError(f"no such snapshot: {path} is not a directory; make one with export or sample")
    manifest = read_manifest(directory) if (directory / MANIFEST).exists() else None
    entries = {} if manifest is None else manifest["tables"]
    taxonomy = taxonomy_in(manifest, str(directory / MANIFEST))
    raw, hashes = {}, {}
    for name in _names(directory, manifest):
        entry = entries.get(name)
        file = directory / entry["file"] if entry else _plain_file(directory, name)
        content = _read_bytes(file)
        hashes[name] = hashlib.sha256(content).hexdigest()
        if entry and hashes[name] != entry["sha256"]:
            raise SnapshotError(
                f"{file} fails its hash: the manifest says {str(entry['sha256'])[:12]}, the file has "
                f"{hashes[name][:12]}; export the snapshot again"
            )
        raw[name] = _parse(file, content)
        if entry and len(raw[name]) != entry["rows"]:
            raise SnapshotError(
                f"{directory}: {name} has {len(raw[name])} rows, the manifest says {entry['rows']}; "
                "export again"
            )
    daily, short = bar_table(raw["ohlcv_1d"]), raw.get(SHORT_BARS)
    interval = DAILY if short is None else interval_of(short)
    if manifest is not None and manifest.get("interval", DAILY) != interval:
        raise SnapshotError(
            f"{directory}: the manifest says {manifest.get('interval', DAILY)} bars, table {SHORT_BARS} "
            f"holds {interval} ones; export again"
        )
    return Snapshot(
        name=directory.resolve().name,
        symbols=symbol_table(raw["symbols"]),
        bars=daily if short is None else bar_table(short, interval),
        calendar=calendar_table(raw["economic_calendar"]),
        sha256=content_hash(hashes, taxonomy),
        manifest=manifest,
        interval=interval,
        leaders=None if short is None else daily,
        taxonomy=taxonomy,
    )


def _names(directory: Path, manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The tables of a directory: without a manifest, those whose files are there."""
    if manifest is not None:
        return tuple(manifest["tables"])
    is_short = any((directory / f"{SHORT_BARS}{suffix}").is_file() for suffix in (".parquet", ".csv"))
    return (*TABLES, SHORT_BARS) if is_short else TABLES


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

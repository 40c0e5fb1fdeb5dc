"""manifest.json: what a snapshot holds and the hashes that prove it."""

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from kronos_service.data.tables import TABLES
from kronos_shared.errors import KronosError

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"


class SnapshotError(KronosError):
    """A snapshot is absent, incomplete, damaged or busy."""


def content_hash(hashes: Mapping[str, str]) -> str:
    """One sha256 over the tables' sha256, the same for the same content in any place."""
    return hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in TABLES).encode()).hexdigest()


def make_manifest(
    rows: Mapping[str, int],
    hashes: Mapping[str, str],
    window: tuple[date, date],
    source: str,
    read_at: datetime | None = None,
    calendar_read_at: datetime | None = None,
) -> dict[str, Any]:
    """The manifest of three tables: their row counts and hashes, what was read, from where and when."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "window": {"first": window[0].isoformat(), "last": window[1].isoformat()},
        "read_at": read_at and read_at.isoformat(),
        "calendar_read_at": calendar_read_at and calendar_read_at.isoformat(),
        "sha256": content_hash(hashes),
        "tables": {
            name: {
                "file": f"{name}-{hashes[name][:12]}.parquet",
                "rows": rows[name],
                "sha256": hashes[name],
            }
            for name in TABLES
        },
    }


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read and check the manifest of a directory.

    Raises:
        SnapshotError: it does not parse, lacks a table, or has another schema version.
    """
    path = directory / MANIFEST
    try:
        manifest = dict(json.loads(path.read_bytes()))
        version = manifest["schema_version"]
        files = [str(manifest["tables"][name]["file"]) for name in TABLES]
        _ = [(manifest["tables"][name]["rows"], manifest["tables"][name]["sha256"]) for name in TABLES]
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"{path} is not a snapshot manifest ({error!r}); export again") from None
    if version != SCHEMA_VERSION:
        raise SnapshotError(f"{path}: schema version {version}, expected {SCHEMA_VERSION}; export again")
    # A manifest may come from elsewhere: it must not make us read outside its directory.
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise SnapshotError(f"{path} names {outside[0]!r}, which is not a plain file name; export again")
    return manifest


def check_hashes(directory: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Raise `SnapshotError` for the first file whose hash is not the manifest's."""
    for name in TABLES:
        entry = manifest["tables"][name]
        if hashes[name] != entry["sha256"]:
            raise SnapshotError(
                f"{directory / entry['file']} fails its hash: the manifest says {str(entry['sha256'])[:12]}, "
                f"the file has {hashes[name][:12]}; export the snapshot again"
            )


def check_rows(directory: Path, manifest: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Raise `SnapshotError` for the first table whose row count is not the manifest's."""
    for name in TABLES:
        said = manifest["tables"][name]["rows"]
        if rows[name] != said:
            raise SnapshotError(
                f"{directory}: {name} has {rows[name]} rows, the manifest says {said}; export again"
            )

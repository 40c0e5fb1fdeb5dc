"""manifest.json: what a snapshot holds and the hashes that prove it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from kronos_service.data.tables import SHORT_BARS, TABLES
from kronos_service.events.sessions import DAILY, LENGTHS, Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, TaxonomyError, taxonomy_of
from kronos_shared.errors import KronosError

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
SAMPLE: Final = "sample market, seed"
"""How the source of a synthetic market begins."""
NOT_APPLICABLE: Final = (
    "plausibility: not applicable, this is a sample market: its dates and figures are drawn, not published"
)


class SnapshotError(KronosError):
    """A snapshot is absent, incomplete, damaged or busy."""


def content_hash(hashes: Mapping[str, str], taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> str:
    """One sha256 over the sha256 of each table that there is, and over another taxonomy than the default one;
    the same for the same content in any place.
    """
    names = [*TABLES, *([SHORT_BARS] if SHORT_BARS in hashes else [])]
    lines = [f"{name} {hashes[name]}\n" for name in names]
    if not taxonomy.is_default:
        lines.append(f"taxonomy {json.dumps(taxonomy.content())}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where and when the rows of a snapshot were read."""

    source: str
    """Never a secret."""
    window: tuple[date, date]
    """First and last date that the source was asked for."""
    read_at: datetime | None = None
    """When the reading of the bars began: bars of sessions still open then are not in the snapshot."""
    calendar_read_at: datetime | None = None
    """Just before the calendar was read; later than `read_at` if the export was resumed."""
    accepted: tuple[str, ...] = ()
    """Departures from what is public (see `plausibility`) that the user expects."""
    interval: Interval = DAILY
    """How long the bars are that are trained on and forecast."""
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    """What the calendar's types and the leaders are."""


def is_sample(source: str) -> bool:
    """Whether a source is the synthetic market of `sample`, of which nothing is public."""
    return SAMPLE in source


def require_daily(shown: str, interval: str, what: str) -> None:
    """Raise `SnapshotError` if a snapshot's bars are shorter than a day, where `what` takes daily ones."""
    if interval != DAILY:
        raise SnapshotError(f"{shown} holds {interval} bars, and {what} takes {DAILY} ones: name another")


def make_manifest(rows: Mapping[str, int], hashes: Mapping[str, str], origin: Origin) -> dict[str, Any]:
    """The manifest of some tables: their row counts and hashes, what was read, from where and when."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": origin.source,
        "window": {"first": origin.window[0].isoformat(), "last": origin.window[1].isoformat()},
        "read_at": origin.read_at and origin.read_at.isoformat(),
        "calendar_read_at": origin.calendar_read_at and origin.calendar_read_at.isoformat(),
        "sha256": content_hash(hashes, origin.taxonomy),
        **({} if origin.taxonomy.is_default else {"taxonomy": origin.taxonomy.content()}),
        **({"accepted": list(origin.accepted)} if origin.accepted else {}),
        **({"interval": origin.interval} if origin.interval != DAILY else {}),
        "tables": {
            name: {
                "file": f"{name}-{hashes[name][:12]}.parquet",
                "rows": rows[name],
                "sha256": hashes[name],
            }
            for name in hashes
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
        names = (*TABLES, SHORT_BARS) if SHORT_BARS in manifest["tables"] else TABLES
        files = [str(manifest["tables"][name]["file"]) for name in names]
        _ = [(manifest["tables"][name]["rows"], manifest["tables"][name]["sha256"]) for name in names]
        interval = manifest.get("interval", DAILY)
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"{path} is not a snapshot manifest ({error!r}); export again") from None
    if version != SCHEMA_VERSION:
        raise SnapshotError(f"{path}: schema version {version}, expected {SCHEMA_VERSION}; export again")
    if (interval in LENGTHS) != (SHORT_BARS in names) or interval not in (DAILY, *LENGTHS):
        raise SnapshotError(
            f"{path}: interval {interval!r}, and {'a' if SHORT_BARS in names else 'no'} table {SHORT_BARS}; "
            "export again"
        )
    # A manifest may come from elsewhere: it must not make us read outside its directory.
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise SnapshotError(f"{path} names {outside[0]!r}, which is not a plain file name; export again")
    return manifest


def taxonomy_in(manifest: Mapping[str, Any] | None, where: str) -> Taxonomy:
    """The taxonomy that a manifest carries; the default one where there is none.

    Raises:
        SnapshotError: it carries one that cannot be read.
    """
    content = None if manifest is None else manifest.get("taxonomy")
    if content is None:
        return DEFAULT_TAXONOMY
    try:
        return taxonomy_of(content, f"the taxonomy in {where}")
    except (TaxonomyError, TypeError, ValueError) as error:
        raise SnapshotError(f"{error}; export again") from None

"""The tables of one batch as a snapshot on disk, whatever the source: memory does not grow with the table,
and a resumed run sees the bars that it began with.
"""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.manifest import MANIFEST, Origin
from kronos_service.data.snapshot.staging import open_staging
from kronos_service.data.snapshot.write import STAGING, commit, exclusive
from kronos_service.data.sources import open_source
from kronos_service.data.tables import TableError, calendar_table, symbol_table
from kronos_service.inference.market.readers import reach
from kronos_service.inference.nightly.chunk import MAX_BARS
from kronos_service.inference.nightly.config import ForecastAllConfig

FRESH: Final = timedelta(hours=12)
"""A resumed run uses what it has read of a database for so long; then it reads again."""


def find_tables(config: ForecastAllConfig, scratch: Path, *, now: datetime) -> Path:
    """The snapshot to forecast from: the user's own, or what is read of the source into `scratch`.

    Raises:
        KronosError: the source cannot be read.
    """
    directory = config.snapshot or (sample_snapshot_path() if config.source == "snapshot" else None)
    if directory is not None and (directory / MANIFEST).exists():
        return directory
    if _is_fresh(scratch, now):
        return scratch
    # what cannot be true is left out as bars are read; how far back a directory of tables goes is its owner's
    since = None if directory is not None else (now - reach(MAX_BARS)).date()
    with open_source(config.source, directory) as source, exclusive(scratch):
        symbols, calendar = symbol_table(source.symbols()), calendar_table(source.calendar())
        request = {"source": source.name, "since": since and since.isoformat()}
        with open_staging(scratch / STAGING, request, resume=True, now=now) as staging:
            staging.fill(source.bars(since, next(reversed(staging.names()), None)))
            if not staging.names():
                raise TableError(f"table ohlcv_1d of {source.name} has no bars since {since}")
            origin = Origin(
                source=source.name,
                window=(since or staging.days()[0], now.date()),
                read_at=staging.read_at,
                calendar_read_at=now,
            )
            commit(scratch, symbols=symbols, bars=staging.bars(), calendar=calendar, origin=origin)
    return scratch


def _is_fresh(scratch: Path, now: datetime) -> bool:
    try:
        manifest = json.loads((scratch / MANIFEST).read_bytes())
    except FileNotFoundError:
        return False
    return abs(now - datetime.fromisoformat(manifest["calendar_read_at"])) <= FRESH

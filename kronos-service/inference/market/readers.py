"""From a source to a market: a snapshot when it changes, a database whole at first, then its latest days."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.manifest import MANIFEST, read_manifest, taxonomy_in
from kronos_service.data.snapshot.read import read_tables
from kronos_service.data.sources import SOURCES, Opener
from kronos_service.data.tables import bar_table, calendar_table, symbol_table
from kronos_service.events.leaders import RETURNS
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, read_taxonomy, require_same
from kronos_service.inference.market.market import Market, build_market, require_bars
from kronos_service.inference.settings import Settings

OVERLAP: Final = timedelta(days=10)
"""A database is read again from this long before its last bar: late and corrected bars arrive there."""
WHOLE_AGAIN: Final = timedelta(hours=12)
"""After this a database is read whole again, for corrections of older bars."""

Reader = Callable[[datetime], Market | None]
"""Reads the market as it may be known at a moment; None where nothing has changed."""


def taxonomy_of_source(settings: Settings) -> Taxonomy:
    """The one taxonomy that a service of these settings serves: its snapshot's, or the file it names.

    Raises:
        KronosError: the manifest or the file cannot be read.
    """
    if settings.source == "snapshot":
        directory = settings.snapshot or sample_snapshot_path()
        manifest = read_manifest(directory) if (directory / MANIFEST).is_file() else None
        return taxonomy_in(manifest, str(directory / MANIFEST))
    return DEFAULT_TAXONOMY if settings.taxonomy is None else read_taxonomy(settings.taxonomy)


def market_reader(settings: Settings, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> Reader:
    """The reader of the source that the settings name; nothing is read yet.

    Raises:
        KronosError: the source's own settings (SUPABASE_URL, DATABASE_URL ...) are absent or cannot be.
    """
    if settings.source == "snapshot":
        return SnapshotReader(settings.snapshot or sample_snapshot_path(), taxonomy)
    return DatabaseReader(SOURCES[settings.source](None), reach=reach(settings.max_bars), taxonomy=taxonomy)


def reach(max_bars: int) -> timedelta:
    """How far back a database is read for forecasts from so many bars.

    Equities have 0.69 sessions a day; a leader's moves need their returns before the first bar.
    """
    return timedelta(days=1.5 * (max_bars + RETURNS))


class SnapshotReader:
    """Reads a snapshot when it has changed, or may be judged otherwise than when it was read.

    One of another taxonomy than the service began with is rejected: its adapters would be, too.
    """

    def __init__(self, directory: Path, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> None:
        self._directory, self._taxonomy = directory, taxonomy
        self._seen: object = None
        self._held: Market | None = None

    def __call__(self, now: datetime) -> Market | None:
        """The market, or None where the snapshot is the same."""
        state = _state(self._directory)
        if state == self._seen and self._held is not None and _still_holds(self._held, now):
            return None
        tables = read_tables(self._directory)
        tables.require_daily("this service")
        name = f"snapshot:{tables.name}"
        require_same(self._taxonomy, tables.taxonomy, name)
        market = build_market(
            name, tables.symbols, tables.bars, tables.calendar, now=now, taxonomy=tables.taxonomy
        )
        require_bars(market)
        self._seen, self._held = state, market
        return market


class DatabaseReader:
    """Reads `reach` days of bars at first, then the latest days only; symbols and calendar are read whole."""

    def __init__(
        self, open_source: Opener, *, reach: timedelta, taxonomy: Taxonomy = DEFAULT_TAXONOMY
    ) -> None:
        self._open, self._reach, self._taxonomy = open_source, reach, taxonomy
        self._held: pd.DataFrame | None = None
        self._whole_at: datetime | None = None

    def __call__(self, now: datetime) -> Market:
        """The market; the source is opened and closed."""
        is_due = self._whole_at is None or not timedelta(0) <= now - self._whole_at <= WHOLE_AGAIN
        held = None if is_due else self._held
        since = (now - self._reach if held is None else held["ts"].max() - OVERLAP).date()
        with self._open() as source:
            symbols, calendar = symbol_table(source.symbols()), calendar_table(source.calendar())
            bars = bar_table(pd.concat(source.bars(since), ignore_index=True))
            name = source.name
        if held is not None:
            older = held[held["ts"] < pd.Timestamp(since, tz="UTC")]
            bars = pd.concat([older, bars]).sort_values(["symbol", "ts"], ignore_index=True)
        market = build_market(name, symbols, bars, calendar, now=now, taxonomy=self._taxonomy)
        require_bars(market)
        self._held, self._whole_at = bars, now if held is None else self._whole_at
        return market


def _still_holds(market: Market, now: datetime) -> bool:
    """Whether the same tables would be judged the same now: a wrong clock must not decide for good."""
    return market.read_at <= now and (market.more_at is None or now < market.more_at)


def _state(directory: Path) -> object:
    """What differs once a snapshot has been replaced; for a plain directory, its files' sizes and times."""
    manifest = directory / MANIFEST
    if manifest.is_file():
        return manifest.read_bytes()
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in directory.glob("*"))

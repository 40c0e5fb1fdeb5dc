"""Keeps the market fresh: a thread of its own reads the source, and requests read one reference."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd
import structlog

from kronos_service.data.manifest import MANIFEST
from kronos_service.data.postgres import postgres_source
from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import read_tables
from kronos_service.data.source import Source
from kronos_service.data.supabase import supabase_source
from kronos_service.data.tables import bar_table, calendar_table, symbol_table
from kronos_service.events.leaders import RETURNS
from kronos_service.inference.market import Market, build_market
from kronos_service.inference.settings import Settings
from kronos_shared.errors import KronosError

OVERLAP: Final = timedelta(days=10)
"""So many days before its last bar a database is read again: late and corrected bars arrive in them."""
WHOLE_AGAIN: Final = timedelta(hours=12)
"""After this a database is read from the start, for corrections of older bars."""

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class FeedStatus:
    """How the reading of the source goes."""

    market: Market | None
    error: str | None
    """Why the latest reading failed; None if it did not."""
    failures: int
    checked_at: datetime | None
    """When the source was last read, or found unchanged."""


class MarketFeed:
    """Reads the source again and again from `start` on; a failed reading keeps the last market."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._market: Market | None = None
        self._error: str | None = None
        self._failures = 0
        self._checked_at: datetime | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="market-feed", daemon=True)
        self._read = _SnapshotReader(settings) if settings.source == "snapshot" else _DatabaseReader(settings)

    def current(self) -> Market | None:
        """The latest market, or None before the first was read."""
        return self._market

    def status(self) -> FeedStatus:
        """The market with what went wrong since."""
        return FeedStatus(
            market=self._market, error=self._error, failures=self._failures, checked_at=self._checked_at
        )

    def start(self) -> None:
        """Begin to read, aside."""
        self._thread.start()

    def stop(self) -> None:
        """End after the reading under way."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def refresh(self) -> None:
        """Read the source once, now; what goes wrong is kept in `status`."""
        now = self._clock()
        try:
            market = self._read(now)
        except KronosError as error:
            self._error = " ".join(str(error).split())
            self._failures += 1
            _log.warning("source_failed", reason=self._error)
            return
        self._error, self._checked_at = None, now
        if market is not None:
            self._market = market
            _log.info(
                "market_read", source=market.name, symbols=len(market.bars), dropped=len(market.dropped)
            )

    def _run(self) -> None:
        while True:
            try:
                self.refresh()
            except Exception as error:
                self._error, self._failures = f"{type(error).__name__}; see the log", self._failures + 1
                _log.exception("source_failed")
            if self._stopping.wait(self._settings.refresh_seconds):
                return


class _SnapshotReader:
    """Reads a snapshot where it is not the one that was read last."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.snapshot or sample_snapshot_path()
        self._seen: object = None

    def __call__(self, now: datetime) -> Market | None:
        state = _state(self._directory)
        if state == self._seen:
            return None
        tables = read_tables(self._directory)
        name = f"snapshot:{tables.name}"
        market = build_market(name, tables.symbols, tables.bars, tables.calendar, now=now)
        self._seen = state
        return market


class _DatabaseReader:
    """Reads a database: at first all bars that a request may need, then the latest days only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Equities have about 0.69 sessions a day; leaders need their returns before the first bar.
        self._reach = timedelta(days=1.5 * (settings.max_bars + RETURNS))
        self._bars: pd.DataFrame | None = None
        self._whole_at: datetime | None = None

    def __call__(self, now: datetime) -> Market:
        is_due = self._whole_at is None or now - self._whole_at > WHOLE_AGAIN
        held = None if is_due else self._bars
        since = now - self._reach if held is None else pd.Timestamp(held["ts"].max()) - OVERLAP
        with _open(self._settings) as source:
            symbols, calendar = symbol_table(source.symbols()), calendar_table(source.calendar())
            recent = pd.concat([bar_table(chunk) for chunk in source.bars(since.date())], ignore_index=True)
            name = source.name
        if held is not None:
            older = held[held["ts"] < pd.Timestamp(since.date(), tz="UTC")]
            recent = pd.concat([older, recent]).sort_values(["symbol", "ts"], ignore_index=True)
        market = build_market(name, symbols, recent, calendar, now=now)
        self._bars, self._whole_at = recent, now if held is None else self._whole_at
        return market


@contextmanager
def _open(settings: Settings) -> Iterator[Source]:
    opened: AbstractContextManager[Source] = (
        postgres_source() if settings.source == "postgres" else nullcontext(supabase_source())
    )
    with opened as source:
        yield source


def _state(directory: Path) -> object:
    """What differs once a snapshot has been replaced; for a plain directory, its files' sizes and times."""
    manifest = directory / MANIFEST
    if manifest.is_file():
        return manifest.read_bytes()
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in directory.glob("*"))

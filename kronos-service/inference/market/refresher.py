"""Keeps the market fresh: a thread of its own reads the source; requests read one reference."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.inference.market.market import Market
from kronos_service.inference.market.readers import market_reader
from kronos_service.inference.settings import Settings
from kronos_shared.errors import KronosError

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class RefresherStatus:
    """The latest market, and what went wrong since."""

    market: Market | None
    error: str | None
    """Why the latest reading failed; None if it did not."""
    failures: int
    checked_at: datetime | None
    """When the source was last read, or found unchanged."""


class MarketRefresher:
    """Reads the source again and again from `start` on; a failed reading keeps the last market."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], datetime],
        taxonomy: Taxonomy = DEFAULT_TAXONOMY,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._market: Market | None = None
        self._error: str | None = None
        self._failures = 0
        self._checked_at: datetime | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="market-refresher", daemon=True)
        self._read = market_reader(settings, taxonomy)

    def current(self) -> Market | None:
        """The latest market, or None before the first was read."""
        return self._market

    def status(self) -> RefresherStatus:
        """The state for `/v1/model`, `/readyz` and `/metrics`."""
        return RefresherStatus(
            market=self._market, error=self._error, failures=self._failures, checked_at=self._checked_at
        )

    def start(self) -> None:
        """Read in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End after the reading in progress."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def refresh(self) -> None:
        """Read the source once, now; a failure shows in `status`, and the last market stays."""
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

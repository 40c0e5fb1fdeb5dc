"""The log of served forecasts: a thread of its own turns answers into forecast files.

A request only hands over what it has computed. Files are rotated by day and by size, the current one is
rewritten whole every minute, and files past their time are removed: a kill loses the last minute.

log/2026-11-26-host-4711-000.parquet
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from kronos_service.data.forecasts import SCHEMA, with_about
from kronos_service.inference.market.market import Market
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import PreparedSeries
from kronos_service.inference.requests.rows import forecast_rows
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.served_log.coverage import rolling_coverage
from kronos_service.model.generation.generate import Generated
from kronos_service.model.generation.inputs import to_prices
from kronos_shared.atomic import replace_file
from kronos_shared.disk_errors import explain

WAITING: Final = 100
"""Answers that may wait for the thread; later ones are lost rather than held in memory."""
ROWS: Final = 100_000
"""Rows of a file at most."""
WRITE_SECONDS: Final = 60.0
COVERAGE_SECONDS: Final = 3600.0

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """One answer, as the model computed it."""

    request: ForecastRequest
    series: Sequence[PreparedSeries]
    generated: Generated
    serving: ServedModel
    now: datetime

    def rows(self) -> Iterator[pa.Table]:
        """The rows of each series that can be scored later: of the latest bars of the source, as known, in
        plain sampling, with the widths that the version is served with, and not of the base beside it.
        """
        request = self.request
        if request.scenario is not None or request.calendar is not None or request.paths < 2:
            return
        if not (request.is_plain and request.recalibrated):
            return
        if request.model == "base":
            return
        for asked, one, bars in zip(request.series, self.series, self.generated.bars, strict=True):
            if asked.candles is None and asked.as_of is None:
                prices = to_prices(bars, one.prepared)
                yield forecast_rows(one, prices, serving=self.serving, seed=request.seed, now=self.now)


class ServedLog:
    """Writes answers to a directory from `start` to `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_days: int,
        market: Callable[[], Market | None],
        clock: Callable[[], datetime],
        registry: CollectorRegistry,
    ) -> None:
        """Keep the settings; the metrics of the log are registered."""
        self._directory, self._keep_days = directory, keep_days
        self._market, self._clock = market, clock
        self._waiting: queue.Queue[Served | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._rows, self._is_written = SCHEMA.empty_table(), True
        self._number, self._day = 0, date.min
        self._lost = Counter(
            "kronos_served_log_lost", "Answers, and files on a full disk, that are lost.", registry=registry
        )
        self._coverage = Gauge(
            "kronos_served_coverage",
            "Share of outcomes inside the interval, of the forecasts in the log.",
            ["interval"],
            registry=registry,
        )
        self._targets = Gauge(
            "kronos_served_coverage_targets", "Outcomes that the coverage is of.", registry=registry
        )

    def start(self) -> None:
        """Write in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Write what was handed over, then end."""
        self._waiting.put(None)
        self._thread.join()

    def add(self, served: Served) -> None:
        """Hand an answer over; never blocks."""
        try:
            self._waiting.put_nowait(served)
        except queue.Full:
            self._lost.inc()

    def _run(self) -> None:
        next_write, next_coverage = time.monotonic() + WRITE_SECONDS, time.monotonic()
        while True:
            served, is_last = self._next(next_write)
            if served is not None:
                self._hold(served)
            if is_last or time.monotonic() >= next_write or len(self._rows) >= ROWS:
                self._write()
                next_write = time.monotonic() + WRITE_SECONDS
            if is_last:
                self._count_unwritten()
                return
            if time.monotonic() >= next_coverage and self._measure():
                next_coverage = time.monotonic() + COVERAGE_SECONDS

    def _next(self, until: float) -> tuple[Served | None, bool]:
        """The next answer, or None at the time to write; and whether it was the last."""
        try:
            served = self._waiting.get(timeout=max(0.0, min(until - time.monotonic(), 1.0)))
        except queue.Empty:
            return None, False
        return served, served is None

    def _hold(self, served: Served) -> None:
        today = self._clock().date()
        if today != self._day or len(self._rows) >= ROWS:
            self._write()
            self._rotate(today)
        try:
            rows = list(served.rows())
        except Exception:  # the log must not end with one answer that it cannot take
            self._lost.inc()
            _log.exception("served_log_failed")
            return
        if rows:
            self._rows, self._is_written = pa.concat_tables([self._rows, *rows]), False

    def _rotate(self, today: date) -> None:
        """Begin a file, and remove those past their time."""
        self._count_unwritten()
        self._number = 0 if today != self._day else self._number + 1
        self._day, self._rows, self._is_written = today, SCHEMA.empty_table(), True
        oldest = f"{today - timedelta(days=self._keep_days):%Y-%m-%d}"
        for path in self._directory.glob("????-??-??-*.parquet"):
            if path.name[:10] < oldest:
                path.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._is_written:
            return
        name = f"{self._day:%Y-%m-%d}-{socket.gethostname()}-{os.getpid()}-{self._number:03}.parquet"
        buffer = BytesIO()
        pq.write_table(self._rows.cast(with_about(SCHEMA, {})), buffer, compression="zstd")
        try:
            replace_file(self._directory / name, buffer.getvalue())
            self._is_written = True
        except OSError as error:
            _log.warning("served_log_unwritten", reason=explain(error))

    def _count_unwritten(self) -> None:
        """Count the rows that a disk has not taken: they are dropped now."""
        if not self._is_written:
            self._lost.inc()

    def _measure(self) -> bool:
        """Set the coverage; False where there is no market yet."""
        market = self._market()
        if market is None:
            return False
        try:
            found = rolling_coverage(sorted(self._directory.glob("*.parquet")), market.bars, self._clock())
        except Exception:  # a file that somebody put there must not end the log
            _log.exception("served_coverage_failed")
            return True
        self._targets.set(found.targets)
        for name, share in found.shares.items():
            self._coverage.labels(name).set(share)
        return True

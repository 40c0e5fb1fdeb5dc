"""Work off the event loop: small pieces a few at a time, large requests one after another beside them.

One lane for all let eight inline calendars of 20,000 events hold up every small request until its deadline.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import anyio

from kronos_service.inference.errors import DeadlineExceeded

Result = TypeVar("Result")

THREADS: Final = 4
"""More would only take turns on the interpreter."""
LARGE: Final = 2048
"""Inline rows (events and candles) from which a request is large."""


class Preparation:
    """The two lanes, and how long a row of a large request takes; used from the event loop."""

    def __init__(self) -> None:
        self._small, self._large = anyio.CapacityLimiter(THREADS), anyio.CapacityLimiter(1)
        self._seconds_per_row = 0.0

    def seconds(self, rows: int) -> float:
        """How long a request of so many inline rows takes to prepare; 0 for a small one."""
        return rows * self._seconds_per_row if rows >= LARGE else 0.0

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run a small piece of work in a thread."""
        return await anyio.to_thread.run_sync(call, limiter=self._small)

    async def prepare(self, call: Callable[[], Result], *, rows: int, expires_at: float) -> Result:
        """Prepare a request in its lane, unless its deadline (monotonic clock) passed while it waited.

        Raises:
            DeadlineExceeded: it passed.
        """
        is_large = rows >= LARGE

        def prepare_in_time() -> Result:
            started = time.monotonic()
            if started > expires_at:
                raise DeadlineExceeded(
                    "the deadline passed before the request was prepared: nothing was computed"
                )
            result = call()
            if is_large:
                self._seconds_per_row = (time.monotonic() - started) / rows
            return result

        limiter = self._large if is_large else self._small
        return await anyio.to_thread.run_sync(prepare_in_time, limiter=limiter)

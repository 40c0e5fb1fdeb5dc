"""Fair shares: how often each key may ask, and how many places of the queue it may hold."""

import math
import time
from collections.abc import Mapping

from kronos_service.inference.errors import Overloaded
from kronos_service.inference.metrics import Metrics
from kronos_service.inference.settings import EVERY_KEY, KeyLimit


class Shares:
    """The limits of every key, and when each may ask again; used from the event loop.

    A key that has been silent may ask for one second's worth at once.
    """

    def __init__(self, limits: Mapping[str, KeyLimit], *, places: int, metrics: Metrics) -> None:
        self._limits, self._places, self._metrics = limits, places, metrics
        self._free_at: dict[str, float] = {}
        """Key -> when its requests so far are paid for."""

    def check(self, name: str) -> None:
        """Raise Overloaded while the key has asked too often."""
        limit = self._limit(name)
        if limit is None:
            return
        ahead = self._free_at.get(name, 0.0) - time.monotonic()
        # the tolerance is rounding: exactly a second's worth fits
        wait = ahead + 1 / limit.rate - max(1.0, 1 / limit.rate)
        if wait > 1e-9:
            self._metrics.rejections.labels("key_rate").inc()
            message = f"your key may ask {limit.rate:g} times a second: try later"
            raise Overloaded(message, retry_after=max(1, math.ceil(wait)))

    def take(self, name: str) -> None:
        """Count one request of the key.

        Raises:
            Overloaded: it has asked too often; says when to try again.
        """
        self.check(name)
        if (limit := self._limit(name)) is not None:
            now = time.monotonic()
            self._free_at[name] = max(now, self._free_at.get(name, 0.0)) + 1 / limit.rate

    def places(self, name: str) -> int:
        """How many places of the queue the key may hold."""
        limit = self._limit(name)
        return self._places if limit is None else max(1, int(limit.share * self._places))

    def _limit(self, name: str) -> KeyLimit | None:
        return self._limits.get(name, self._limits.get(EVERY_KEY))

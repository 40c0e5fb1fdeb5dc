"""The two lanes of preparation: large requests do not hold up small ones, and late ones are not begun."""

import asyncio
import threading
import time

import pytest

from kronos_service.inference.errors import DeadlineExceeded
from kronos_service.inference.scheduler.preparation import LARGE, THREADS, Preparation


def test_small_requests_are_prepared_while_large_ones_take_turns() -> None:
    async def run() -> None:
        lanes, free, begun = Preparation(), threading.Event(), []

        def slow() -> None:
            begun.append(1)
            assert free.wait(20)

        until = time.monotonic() + 60
        large = [asyncio.create_task(lanes.prepare(slow, rows=LARGE, expires_at=until)) for _ in range(8)]
        assert await lanes.prepare(lambda: "small", rows=3, expires_at=until) == "small"
        assert await lanes.run(lambda: "answer") == "answer"
        assert len(begun) == 1
        free.set()
        await asyncio.gather(*large)
        assert len(begun) == 8

    asyncio.run(run())


def test_what_is_late_by_then_is_not_prepared() -> None:
    async def run() -> None:
        lanes, called = Preparation(), []
        with pytest.raises(DeadlineExceeded, match="nothing was computed"):
            await lanes.prepare(lambda: called.append(1), rows=LARGE, expires_at=time.monotonic() - 1)
        assert called == []

    asyncio.run(run())


def test_large_requests_are_expected_to_take_what_the_latest_took_a_row() -> None:
    async def run() -> None:
        lanes = Preparation()
        assert lanes.seconds(10 * LARGE) == 0
        await lanes.prepare(lambda: time.sleep(0.05), rows=LARGE, expires_at=time.monotonic() + 60)
        assert 0.45 < lanes.seconds(10 * LARGE) < 5
        assert lanes.seconds(LARGE - 1) == 0

    asyncio.run(run())


def test_all_small_work_shares_a_few_threads() -> None:
    """A request that finds them taken waits, here until its deadline has passed."""

    async def run() -> None:
        lanes, free, begun = Preparation(), threading.Event(), threading.Semaphore(0)

        def slow() -> None:
            begun.release()
            assert free.wait(20)

        taken = [asyncio.create_task(lanes.run(slow)) for _ in range(THREADS)]
        for _ in taken:
            assert await asyncio.to_thread(begun.acquire, timeout=20)
        until = time.monotonic() + 0.2
        waiting = asyncio.create_task(lanes.prepare(lambda: "at once", rows=3, expires_at=until))
        while time.monotonic() <= until:
            await asyncio.sleep(0.01)
        free.set()
        with pytest.raises(DeadlineExceeded):
            await waiting
        await asyncio.gather(*taken)

    asyncio.run(run())

"""Forecast requests to a server on 127.0.0.1, from a thread of their own; bounded in number and time."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from replica import FORECASTS

LONGEST: Final = 900.0
"""Seconds after which any load ends by itself."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request and what came of it."""

    body: int
    """Which of the bodies it was."""
    started: float
    """On the monotonic clock."""
    seconds: float
    status: int
    """0: no answer came."""
    answer: dict[str, Any]
    retry_after: str | None
    error: str | None = None


@dataclass
class Load:
    """What has been sent so far; `stop` ends it after the requests under way."""

    sent: list[Sent] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def failed(self) -> list[Sent]:
        return [one for one in self.sent if one.status != 200]


@contextmanager
def clients(url: str, bodies: Sequence[dict[str, Any]], *, count: int, most: int) -> Iterator[Load]:
    """`count` clients that each ask again as soon as they have an answer, at most `most` times together."""
    load = Load()

    async def one_client(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(most // count):
            if load.stop.is_set():
                return
            load.sent.append(await _ask(client, bodies, (number + turn) % len(bodies)))

    async def all_clients() -> None:
        async with _client(url) as client:
            await asyncio.gather(*(one_client(client, number) for number in range(count)))

    with _in_a_thread(load, all_clients()):
        yield load


@contextmanager
def arrivals(url: str, bodies: Sequence[dict[str, Any]], *, rate: float, most: int) -> Iterator[Load]:
    """`rate` requests a second, whether or not the earlier ones have been answered, `most` in all."""
    load = Load()

    async def all_arrivals() -> None:
        async with _client(url) as client:
            started, tasks = time.monotonic(), []
            for number in range(most):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                if load.stop.is_set():
                    break
                tasks.append(asyncio.create_task(_ask(client, bodies, number % len(bodies))))
                tasks[-1].add_done_callback(lambda task: load.sent.append(task.result()))
            await asyncio.gather(*tasks)

    with _in_a_thread(load, all_arrivals()):
        yield load


@contextmanager
def _in_a_thread(load: Load, work: Any) -> Iterator[None]:
    thread = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(work, LONGEST)))
    thread.start()
    try:
        yield
    finally:
        load.stop.set()
        thread.join()


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(
        base_url=url, headers=FORECASTS, timeout=60, limits=limits, verify=False, trust_env=False
    )


async def _ask(client: httpx.AsyncClient, bodies: Sequence[dict[str, Any]], number: int) -> Sent:
    started = time.monotonic()
    try:
        answer = await client.post("/v1/forecast", json=bodies[number])
    except httpx.TransportError as error:
        seconds = time.monotonic() - started
        return Sent(
            body=number,
            started=started,
            seconds=seconds,
            status=0,
            answer={},
            retry_after=None,
            error=repr(error),
        )
    return Sent(
        body=number,
        started=started,
        seconds=time.monotonic() - started,
        status=answer.status_code,
        answer=answer.json(),
        retry_after=answer.headers.get("Retry-After"),
    )

"""The service without HTTP: who holds a place while a request is prepared, and what stopping waits for."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from kronos_service.inference.errors import Overloaded
from kronos_service.inference.scheduler.queue import MARGIN
from kronos_service.inference.scheduler.work import BatchKey, Cost, cost_of
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings
from kronos_service.model.generation.sampling import Sampling

NOW = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)
ALICE, BOB = "the-secret-of-alice-123456", "the-secret-of-bob-123456"


@contextmanager
def ready(settings: Settings) -> Iterator[Service]:
    service = Service(settings, clock=lambda: NOW)
    service.start()
    try:
        until = time.monotonic() + 30
        while reason := service.not_ready_because():
            assert time.monotonic() < until, reason
            time.sleep(0.02)
        yield service
    finally:
        service.stop()


async def ask(service: Service, caller: str = "alice", **changes: Any) -> bytes:
    body = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2} | changes
    request = ForecastRequest.model_validate(body)
    return await service.forecast(request, caller=caller, request_id="r", arrived=time.monotonic())


def test_a_request_holds_a_place_of_its_key_while_it_is_prepared(
    settings_of: Callable[..., Settings],
) -> None:
    callers = ("alice", "bob", "bob", "alice", "alice")

    async def at_once(service: Service) -> list[Any]:
        return await asyncio.gather(*(ask(service, one) for one in callers), return_exceptions=True)

    changes = {"api_keys": f"alice:{ALICE},bob:{BOB}", "key_limits": "alice=1000:0.2", "queue_size": 10}
    with ready(settings_of(**changes)) as service:
        *answers, last = asyncio.run(at_once(service))  # no preparation ends before all have asked
    assert [type(one) for one in answers] == [bytes] * 4
    assert isinstance(last, Overloaded)
    assert "2 requests of your key are waiting already" in str(last)


def test_a_request_is_expected_to_read_the_longest_history_of_each_of_its_series(
    settings_of: Callable[..., Settings],
) -> None:
    with ready(settings_of()) as service:
        serving = service.loader.current()
        assert serving is not None
        key = BatchKey(horizon=2, paths=2, sampling=Sampling())
        longest = Cost(serving=serving, key=key, bars=3 * serving.context, series=3)
        service.queue.expect(1.0)
        held = service.queue.admit(longest, math.inf)  # an idle service would try, whatever it takes
        try:
            with pytest.raises(Overloaded, match=f"would take about {MARGIN * cost_of([longest] * 2):.1f} s"):
                asyncio.run(ask(service, series=[{"symbol": name} for name in ("SPY", "SYN01", "SYN02")]))
        finally:
            service.queue.give_up(held)


def test_stopping_waits_for_what_is_running(settings_of: Callable[..., Settings]) -> None:
    with ThreadPoolExecutor(1) as pool, ready(settings_of()) as service:
        answer = pool.submit(lambda: asyncio.run(ask(service, horizon=8, paths=200)))
        while not service.queue.is_busy:
            assert not answer.done(), answer.result()
            time.sleep(0.001)
        service.stop()
        assert service.queue.join(0)
        assert len(json.loads(answer.result(20))["series"]) == 1

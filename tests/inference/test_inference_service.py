"""The service without HTTP: who holds a place while a request is prepared, and what stopping waits for."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hub_server import running_hub, use_hub
from pytest_mock import MockerFixture

from kronos_service.finetune.config import PushConfig
from kronos_service.finetune.push import push
from kronos_service.inference import service as service_module
from kronos_service.inference.errors import NotReady, Overloaded
from kronos_service.inference.scheduler.queue import MARGIN
from kronos_service.inference.scheduler.work import BatchKey, Cost, cost_of
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.service import RETRY_SECONDS, Service
from kronos_service.inference.settings import Settings
from kronos_service.model.adapter.files import read_files
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_store import publish

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


def test_a_service_without_a_model_refuses_and_counts_it(
    settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    service = Service(settings_of(adapters=tmp_path / "none"), clock=lambda: NOW)
    with pytest.raises(NotReady, match="no model") as raised:
        asyncio.run(ask(service))
    assert raised.value.retry_after == RETRY_SECONDS
    assert service.metrics.registry.get_sample_value("kronos_rejections_total", {"reason": "not_ready"}) == 1


def test_an_adapter_of_the_hub_serves_by_its_commit(
    settings_of: Callable[..., Settings],
    adapter_of: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with running_hub() as hub:
        use_hub(hub, str(tmp_path / "hub-cache"), monkeypatch)
        name = push(PushConfig(adapter=adapter_of(1), repo="someone/fomc"))
        settings = settings_of(adapters=name)
        with ready(settings) as service:
            serving = service.loader.current()
            answer = json.loads(asyncio.run(ask(service)))
    assert serving is not None
    assert serving.digest == read_files(adapter_of(1)).digest
    assert answer["model"]["version"] == serving.version
    assert (settings.state_dir / "hub").is_dir()
    with ready(settings) as service:  # a restart needs no hub: the commit was kept
        assert service.loader.current() is not None


def test_every_model_is_warmed_up_and_the_first_one_again_for_the_pace(
    settings_of: Callable[..., Settings],
    adapter_of: Callable[[int], Path],
    tmp_path: Path,
    mocker: MockerFixture,
) -> None:
    warmed = mocker.spy(service_module, "warm_up")
    service = Service(settings_of(adapters=tmp_path / "adapters"), clock=lambda: NOW)
    publish(adapter_of(0), tmp_path / "adapters", keep=5)
    before = service.queue.has_estimate
    first = service.loader.look().serving
    assert (before, service.queue.has_estimate) == (False, True)
    publish(adapter_of(1), tmp_path / "adapters", keep=5)
    second = service.loader.look().serving
    assert first is not None
    assert second is not None
    assert [call.args[0].digest for call in warmed.call_args_list] == [
        first.digest,
        first.digest,
        second.digest,
    ]


def test_what_waits_in_the_queue_is_its_key_s(
    settings_of: Callable[..., Settings], mocker: MockerFixture
) -> None:
    with ready(settings_of()) as service:
        submit = mocker.spy(service.queue, "submit")
        asyncio.run(ask(service, "bob"))
    ticket, job = submit.call_args.args
    assert (ticket.owner, job.owner) == ("bob", "bob")
    assert job.expires_at == ticket.expires_at


def test_stopping_waits_for_what_is_running(settings_of: Callable[..., Settings]) -> None:
    with ThreadPoolExecutor(1) as pool, ready(settings_of()) as service:
        answer = pool.submit(lambda: asyncio.run(ask(service, horizon=8, paths=200)))
        while not service.queue.is_busy:
            assert not answer.done(), answer.result()
            time.sleep(0.001)
        service.stop()
        assert service.queue.join(0)
        assert len(json.loads(answer.result(20))["series"]) == 1

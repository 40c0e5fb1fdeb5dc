"""The end of a server: what it admitted is answered over the wire, and then it is gone."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
import uvicorn
from structlog.testing import capture_logs

from kronos_service.inference.http import server as module
from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.server import AddressError, Server, require_free, serve
from kronos_service.inference.scheduler.queue import ForecastQueue
from kronos_service.inference.scheduler.work import ForecastJob, run_batch
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.generation.generate import Generated

BODY = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2}


class Held:
    """Runs batches once it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.taken = 0

    def __call__(self, batch: Sequence[ForecastJob]) -> list[Generated]:
        self.taken += len(batch)
        assert self.free.wait(30)
        return run_batch(batch)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def running(settings_of: Callable[..., Settings], held: Held) -> Iterator[tuple[Server, str]]:
    """A server on a port of its own, whose forecasts wait for `held`, and its address."""
    app = create_app(settings_of(), clock=lambda: datetime(2023, 1, 3, 12, 0, tzinfo=UTC))
    service: Service = app.state.service
    service.queue = ForecastQueue(size=8, batch_rows=64, window_seconds=0, metrics=service.metrics, run=held)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(uvicorn.Config(app, log_config=None), service)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        until = time.monotonic() + 30
        while not is_ready(url):
            assert time.monotonic() < until
            time.sleep(0.05)
        yield server, url
        held.free.set()
        server.handle_exit(signal.SIGTERM, None)
        thread.join(30)
        assert not thread.is_alive()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def forecast(url: str, seed: int = 0) -> httpx.Response:
    headers = {"Authorization": "Bearer an-api-key-of-the-tests"}
    return httpx.post(f"{url}/v1/forecast", json=BODY | {"seed": seed}, headers=headers, timeout=30)


def test_after_the_signal_nothing_is_admitted_and_nothing_admitted_is_lost(
    running: tuple[Server, str], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos_service.inference.http.server.NOTICE_SECONDS", 0.1)
    server, url = running
    with ThreadPoolExecutor(4) as pool:
        admitted = [pool.submit(forecast, url, seed) for seed in range(4)]
        until = time.monotonic() + 20
        while server.service.queue.depth + held.taken < 4:
            assert time.monotonic() < until
            time.sleep(0.01)
        with capture_logs() as lines:
            server.handle_exit(signal.SIGTERM, None)
            while is_ready(url):
                time.sleep(0.01)
        (draining,) = (line for line in lines if line["event"] == "draining")
        assert draining["signal"] == "SIGTERM"
        time.sleep(0.6)  # longer than the notice: the port stays open for what is still to be answered
        refused = forecast(url)
        assert refused.status_code == 503
        assert refused.headers["Connection"] == "close"
        held.free.set()
        assert [one.result().status_code for one in admitted] == [200] * 4
    until = time.monotonic() + 20
    while not server.should_exit:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def no_app(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the app was made first")

    monkeypatch.setattr(module, "create_app", load)


@pytest.mark.usefixtures("no_app")
def test_a_port_in_use_is_said_before_anything_is_loaded(settings_of: Callable[..., Settings]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"cannot listen on 127.0.0.1 port {port} .Address already"):
            serve(settings_of(port=port))
    require_free("127.0.0.1", port)


@pytest.mark.usefixtures("no_app")
def test_an_address_of_another_machine_is_refused(settings_of: Callable[..., Settings]) -> None:
    with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        serve(settings_of(host="192.0.2.1", port=0))


def test_a_device_that_is_not_there_is_said_before_anything_is_loaded(
    settings_of: Callable[..., Settings],
) -> None:
    with pytest.raises(BaseModelError, match="cannot compute on device cuda:99 "):
        serve(settings_of(port=0, device="cuda:99"))


def test_work_whose_client_has_hung_up_is_dropped_and_counted(
    running: tuple[Server, str], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos_service.inference.http.server.NOTICE_SECONDS", 0.1)
    server, url = running
    queue = server.service.queue
    with sent(url):
        eventually(lambda: (held.taken, queue.depth) == (1, 0))  # it runs
    with sent(url):
        eventually(lambda: (held.taken, queue.depth) == (1, 1))  # it waits
    eventually(lambda: queue.depth == 0)
    eventually(lambda: 'status="499"} 2.0' in httpx.get(f"{url}/metrics").text)
    held.free.set()
    eventually(lambda: not queue.is_busy)
    assert forecast(url).status_code == 200
    assert held.taken == 2  # the one that waited was never run


def sent(url: str) -> socket.socket:
    """A connection on which a whole request was sent."""
    content = json.dumps(BODY).encode()
    head = (
        "POST /v1/forecast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer an-api-key-of-the-tests\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
    connection.sendall(head.encode() + content)
    return connection


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)

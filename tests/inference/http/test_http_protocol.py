"""Limits in time and number, over real sockets: whoever does not finish a request does not hold up others."""

import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import pytest

from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.server import Server, server_config
from kronos_service.inference.settings import Settings

KEY = "an-api-key-of-the-tests"
HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-"
BODY = (
    f"POST /v1/forecast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
).encode()
WITHOUT_KEY = b"POST /v1/forecast HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"


@contextmanager
def running(settings: Settings) -> Iterator[tuple[Server, int]]:
    """A server in a thread, and its port; at the end it is drained."""
    app = create_app(settings, clock=lambda: datetime(2023, 1, 3, 12, 0, tzinfo=UTC))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(server_config(app, settings), app.state.service)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        port = listener.getsockname()[1]
        until = time.monotonic() + 30
        while status(port, "/readyz") != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield server, port
        server.handle_exit(signal.SIGTERM, None)
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(settings_of: Callable[..., Settings]) -> Iterator[int]:
    """A server with little patience."""
    with running(settings_of(head_seconds=0.6, body_seconds=0.6, max_body_bytes=65536)) as (_, port):
        yield port


@pytest.fixture(scope="module")
def small(settings_of: Callable[..., Settings]) -> Iterator[int]:
    """A patient server for few connections and few bytes: nothing ends there because it took too long."""
    settings = settings_of(max_connections=20, max_held_bytes=100_000, head_seconds=60, body_seconds=60)
    with running(settings) as (_, port):
        yield port


def status(port: int, path: str = "/livez") -> int | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code
    except httpx.TransportError:
        return None


def opened(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(sent)
    return connection


def begun(port: int) -> socket.socket:
    """A connection with a request whose body the server waits for, and says so."""
    connection = opened(port, BODY.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def seconds_open(connection: socket.socket, *, trickle: bytes = b"") -> float:
    """How long until the server closes it; meanwhile a byte is sent now and then."""
    started = time.monotonic()
    connection.settimeout(0.1)
    while time.monotonic() - started < 30:
        try:
            if trickle:
                connection.sendall(trickle)
            if connection.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [(b"", b""), (HEAD, b""), (HEAD, b"y"), (BODY, b""), (BODY, b" "), (WITHOUT_KEY, b" ")],
    ids=["nothing", "half a head", "a head without end", "half a body", "a slow body", "a body without key"],
)
def test_a_request_that_is_not_finished_in_time_loses_its_connection(
    port: int, sent: bytes, trickle: bytes
) -> None:
    started = time.monotonic()
    with opened(port, sent) as connection:
        assert seconds_open(connection, trickle=trickle) < 30
    assert time.monotonic() - started > 0.5


def test_connections_have_the_limits_of_the_operator(settings_of: Callable[..., Settings]) -> None:
    limits = {"max_connections": 7, "head_seconds": 1.5, "body_seconds": 2.5}
    settings = settings_of(**limits)
    protocol: Any = server_config(create_app(settings), settings).http
    assert list(protocol.keywords.values()) == list(limits.values())


def test_an_answered_connection_may_be_used_again_after_a_pause(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            assert client.get("/livez").status_code == 200
            time.sleep(0.8)  # longer than a head may take


def test_nothing_follows_the_head_of_an_answer_to_head(port: int) -> None:
    """Content there would be read as the next answer of the connection."""
    asked = (
        b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    with opened(port, asked) as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest.startswith(b"HTTP/1.1 ")


def test_stalled_connections_beyond_the_limit_hold_up_nobody(small: int) -> None:
    stalled = [opened(small, HEAD) for _ in range(60)]
    try:
        for _ in range(5):
            assert status(small) == 200  # within 5 s; a stalled one may stay for 60
    finally:
        for one in stalled:
            one.close()


FLOOD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
for _ in range(1500):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    held[-1].sendall(b"GET /livez HTTP/1.1\\r\\nHost: x\\r\\nX-")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.soak
def test_a_flood_of_connections_takes_no_file_that_the_service_needs(
    settings_of: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = [sys.executable, "-c", FLOOD]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with (
            running(settings_of()) as (_, port),
            subprocess.Popen([*client, str(port)], stdin=PIPE, stdout=PIPE) as flood,
        ):
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"open\n"
            assert status(port) == 200
            flood.communicate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "out of system resource" not in caplog.text


def test_where_every_connection_has_a_request_the_next_one_is_told_so(small: int) -> None:
    busy = [begun(small) for _ in range(20)]
    try:
        assert status(small) == 503
    finally:
        for one in busy:
            one.close()
    until = time.monotonic() + 20
    while status(small) != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_bodies_that_are_held_are_bounded_all_together(small: int) -> None:
    half = BODY.replace(b"Length: 100", b"Length: 60000") + b" " * 45_000
    with opened(small, half) as first, opened(small, half) as second, opened(small, half) as third:
        answered, _, _ = select.select([first, second, third], [], [], 20)
        assert [one.recv(100)[:12] for one in answered] == [b"HTTP/1.1 429"]


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_client_that_sends_all_first_can_read_that_it_was_too_much(port: int, is_declared: bool) -> None:
    content = b" " * 12_000_000
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = content if is_declared else (content[at : at + 65536] for at in range(0, len(content), 65536))
    client.request("POST", "/v1/forecast", body, headers, encode_chunked=not is_declared)
    answer = client.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (413, "close")
    assert json.loads(answer.read())["error"]["code"] == "body_too_large"


def test_draining_does_not_wait_for_what_clients_leave_half_done(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHUTDOWN_SECONDS", "NOTICE_SECONDS"):
        monkeypatch.setattr(f"kronos_service.inference.http.server.{name}", 1)
    settings = settings_of(head_seconds=300, body_seconds=300)
    with running(settings) as (server, port), begun(port) as body, opened(port, HEAD) as head:
        server.handle_exit(signal.SIGTERM, None)
        assert max(seconds_open(body), seconds_open(head)) < 30


@pytest.mark.soak
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_process_whatever_clients_leave_half_done(
    name: str, market_path: Path, base_path: Path, store: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KRONOS_")} | {
        "KRONOS_API_KEYS": KEY,
        "KRONOS_PORT": str(port),
        "KRONOS_ADAPTERS": str(store),
        "KRONOS_STATE_DIR": str(tmp_path / "state"),
        "KRONOS_SNAPSHOT": str(market_path),
        "KRONOS_BASE_MODEL": str(base_path),
        "KRONOS_BODY_SECONDS": "60",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "kronos_service.inference", "serve"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        until = time.monotonic() + 60
        while status(port, "/readyz") != 200:
            assert time.monotonic() < until
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        with opened(port, BODY), opened(port, HEAD):
            time.sleep(0.2)
            process.send_signal(getattr(signal, name))
            assert process.wait(20) == 0
    finally:
        process.kill()
    assert f'"signal": "{name}"' in (tmp_path / "log").read_text()

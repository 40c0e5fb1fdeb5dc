"""The app under Ray Serve, started as documented: the plain service's numbers; replicas follow LATEST."""

import importlib
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from kronos_service.inference.http.app import create_app
from kronos_service.inference.settings import Settings
from kronos_shared.adapter_store import publish
from kronos_shared.ray_cluster import cluster

pytestmark = pytest.mark.ray
SCRIPT = Path(__file__).parents[3] / "deploy" / "ray_serve.py"
KEY = "an-api-key-of-the-tests"
BODY = {"series": [{"symbol": "SPY"}], "horizon": 4, "paths": 5, "seed": 3}


@pytest.fixture(scope="module")
def growing_store(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(store, tmp_path_factory.mktemp("ray") / "store"))


@pytest.fixture(scope="module")
def service(
    ray_cluster: Any,
    growing_store: Path,
    market_path: Path,
    base_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and its process, on the test's cluster with two processors."""
    node = ray_cluster.add_node(num_cpus=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "API_KEYS": KEY,
        "ADAPTERS": growing_store,
        "STATE_DIR": tmp_path_factory.mktemp("state"),
        "BASE_MODEL": base_path,
        "SNAPSHOT": market_path,
        "PORT": port,
        "POLL_SECONDS": 0.2,
        "DEFAULT_DEADLINE_MS": 60_000,
    }
    environment = os.environ | {f"KRONOS_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, str(SCRIPT), "--min-replicas", "2", "--max-replicas", "2"]
    with (tmp_path_factory.mktemp("log") / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 180
            while process.poll() is None and time.monotonic() < until and not _is_ready(url):
                time.sleep(0.5)
            log.seek(0)
            assert _is_ready(url), log.read()[-3000:]
            yield url, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            ray_cluster.remove_node(node)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def answers(url: str, count: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):  # a connection each: the proxy hands them to either replica
        response = httpx.post(
            f"{url}/v1/forecast", json=BODY, headers={"Authorization": f"Bearer {KEY}"}, timeout=90
        )
        assert response.status_code == 200, response.text
        found.append(response.json())
    return found


def test_a_replica_takes_no_request_before_it_can_answer(settings_of: Callable[..., Settings]) -> None:
    app = create_app(settings_of())
    runpy.run_path(str(SCRIPT))["start_ready_first"](app)
    with TestClient(app) as replica:
        assert replica.get("/readyz").status_code == 200


def test_replicas_answer_as_the_plain_service_does_and_follow_latest(
    service: tuple[str, subprocess.Popen[bytes]],
    growing_store: Path,
    serve: Callable[..., AbstractContextManager[TestClient]],
    ask: Callable[..., dict[str, Any]],
    adapter_of: Callable[[int], Path],
) -> None:
    address, _ = service
    with serve(now=datetime.now(UTC)) as plain:
        expected = ask(plain, **BODY)
    for one in answers(address, 12):
        assert (one["series"], one["model"]["version"]) == (expected["series"], expected["model"]["version"])
    newer = publish(adapter_of(2), growing_store, keep=5)
    until = time.monotonic() + 60
    while {one["model"]["version"] for one in answers(address, 12)} != {newer.version}:
        assert time.monotonic() < until
    assert httpx.post(f"{address}/v1/forecast", json=BODY).status_code == 401


def test_after_its_end_the_cluster_is_free_again(service: tuple[str, subprocess.Popen[bytes]]) -> None:
    _, process = service
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    with cluster():
        ray: Any = importlib.import_module("ray")
        until = time.monotonic() + 30
        while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
            assert time.monotonic() < until, ray.available_resources()
            time.sleep(0.2)

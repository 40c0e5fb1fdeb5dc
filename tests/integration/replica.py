"""The service as a process of its own on 127.0.0.1, run as its operators run it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

API_KEY: Final = "an-api-key-of-the-tests"
ADMIN_KEY: Final = "an-admin-key-of-the-tests"
FORECASTS: Final = {"Authorization": f"Bearer {API_KEY}"}
ADMIN: Final = {"Authorization": f"Bearer {ADMIN_KEY}"}


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, verify=False, trust_env=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def running(*replicas: "Replica") -> Iterator[None]:
    """Start servers, wait until they are ready, and leave none behind."""
    try:
        for one in replicas:
            one.start()
        for one in replicas:
            one.wait_until_ready()
        yield
    finally:
        for one in replicas:
            one.kill()


@dataclass(kw_only=True)
class Replica:
    """One server; `directory` holds its state and its log, and survives the process."""

    adapters: Path | str
    directory: Path
    base: str
    snapshot: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """More environment variables, without their prefix."""
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        ours = {
            "api_keys": API_KEY,
            "admin_keys": ADMIN_KEY,
            "adapters": self.adapters,
            "state_dir": self.directory / "state",
            "base_model": self.base,
            "snapshot": self.snapshot,
            "port": self.port,
        }
        named = {f"KRONOS_{name.upper()}": str(value) for name, value in (ours | dict(self.settings)).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KRONOS_")}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kronos_service.inference", "serve"],
                env=inherited | named | {"OMP_NUM_THREADS": "1"},
                cwd=self.directory,
                stderr=log,
            )

    def is_ready(self, probe: str = "/readyz") -> bool:
        try:
            return self.get(probe).status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self, seconds: float = 60, probe: str = "/readyz") -> float:
        """Seconds that it took; with the probe /livez it need not be ready."""
        started = time.monotonic()
        while not self.is_ready(probe):
            assert self.process is not None
            assert self.process.poll() is None, self.text()
            assert time.monotonic() - started < seconds, self.text()
            time.sleep(0.05)
        return time.monotonic() - started

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.terminate()
        assert self.process is not None
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> httpx.Response:
        with _client(self.url) as client:
            return client.get(path, headers=FORECASTS)

    def post(self, path: str, body: object, headers: Mapping[str, str] = FORECASTS) -> httpx.Response:
        with _client(self.url) as client:
            return client.post(path, headers=headers, json=body)

    def model(self) -> dict[str, Any]:
        """The answer of GET /v1/model."""
        answer = self.get("/v1/model")
        answer.raise_for_status()
        status: dict[str, Any] = answer.json()
        return status

    def admin(self, action: str, **body: str | None) -> httpx.Response:
        """The answer of POST /v1/adapters/ACTION."""
        return self.post(f"/v1/adapters/{action}", body or None, ADMIN)

    def wait_for(self, version: str, seconds: float = 30) -> float:
        """Seconds until /v1/model names the version as what serves."""
        started = time.monotonic()
        while (self.model()["serving"] or {}).get("version") != version:
            assert time.monotonic() - started < seconds, self.text()
            time.sleep(0.05)
        return time.monotonic() - started

    def metric(self, sample: str) -> float:
        """The value of one sample, by its whole name with labels, of GET /metrics."""
        lines = self.get("/metrics").text.splitlines()
        (value,) = (line.removeprefix(f"{sample} ") for line in lines if line.startswith(f"{sample} "))
        return float(value)

    def resident_bytes(self) -> int:
        """Memory of the process, as Linux counts it."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def text(self) -> str:
        """The end of what it logged."""
        return (self.directory / "log").read_text()[-5000:]

    def requests(self) -> list[dict[str, Any]]:
        """Its log's lines about POST /v1/forecast: request_id, status and seconds in the server."""
        text = (self.directory / "log").read_text()
        strange = [line for line in text.splitlines() if not line.startswith("{")]
        assert strange == []  # a collector of JSON lines would lose them
        lines = [json.loads(line) for line in text.splitlines()]
        return [one for one in lines if one["event"] == "request" and one["route"] == "/v1/forecast"]

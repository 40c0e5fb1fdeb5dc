"""A real S3-compatible server for the tests, started and stopped with them."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from kronos_shared.adapter_location import StoreUrl

PYTHON: Final = Path(__file__).resolve().parents[2] / "build/object-store/bin/python"
"""An environment of its own: the server's libraries want an older python-dateutil than ours."""
SECRET: Final = "a-secret-of-the-tests"
KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True)
class ObjectStore:
    """The server, which this process's environment names."""

    url: str

    def new_store(self) -> StoreUrl:
        """An empty store in a bucket of its own."""
        name = f"desk-{uuid.uuid4().hex[:12]}"
        httpx.put(f"{self.url}/{name}", trust_env=False, timeout=60).raise_for_status()
        return StoreUrl(f"s3://{name}/adapters")

    def fail(self, *faults: dict[str, Any]) -> None:
        """Answer the next requests so; none takes back what was planned."""
        httpx.put(f"{self.url}/_faults", json=faults, trust_env=False, timeout=60).raise_for_status()


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """The server on a free port of 127.0.0.1; processes that are started meanwhile find it too."""
    assert PYTHON.exists(), f"no {PYTHON}: make object-store installs it"
    script = str(Path(__file__).with_name("object_store_server.py"))
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([PYTHON, script], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            server = ObjectStore(f"http://127.0.0.1:{int(process.stdout.readline())}")
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (KEYS | {"AWS_ENDPOINT_URL": server.url}).items():
                    patch.setenv(name, value)
                yield server
        finally:
            process.kill()

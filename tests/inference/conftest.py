"""A service on the small market and the small random base, with one adapter published; and loaders alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from kronos_service.inference.http.app import create_app
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.settings import Settings, load_settings
from kronos_service.model.factory import BaseChoice
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_store import publish

AFTER = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)
"""All bars of the market are there; the next session of every asset class is still open."""

# The console's tracebacks, with every local variable, take seconds.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
)

SettingsOf = Callable[..., Settings]
Serve = Callable[..., AbstractContextManager[TestClient]]
Ask = Callable[..., dict[str, Any]]
NewLoader = Callable[..., AdapterLoader]


@pytest.fixture(scope="session")
def store(adapter_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter store with one version."""
    root = tmp_path_factory.mktemp("store")
    publish(adapter_of(1), root, keep=5)
    return root


@pytest.fixture(scope="session")
def settings_of(
    market_path: Path, base_path: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> SettingsOf:
    """Settings of a service on the small market, with changes."""

    def make(**changes: Any) -> Settings:
        usual: dict[str, Any] = {
            "api_keys": "an-api-key-of-the-tests",
            "admin_keys": "an-admin-key-of-the-tests",
            "adapters": store,
            "state_dir": tmp_path_factory.mktemp("state"),
            "base_model": str(base_path),
            "snapshot": market_path,
            "batch_window_ms": 0,
            "default_deadline_ms": 60_000,
        }
        return load_settings(**(usual | changes))

    return make


@pytest.fixture(scope="session")
def serve(settings_of: SettingsOf) -> Serve:
    """A client of a new service that is ready, with changed settings; it sends the API key."""

    @contextmanager
    def running(now: datetime = AFTER, **changes: Any) -> Iterator[TestClient]:
        settings = settings_of(**changes)
        app = create_app(settings, clock=lambda: now)
        with TestClient(app, raise_server_exceptions=False) as client:
            client.headers["Authorization"] = f"Bearer {settings.api_keys[0].get_secret_value()}"
            until = time.monotonic() + 30
            while (answer := client.get("/readyz")).status_code != 200:
                assert time.monotonic() < until, answer.text
                time.sleep(0.02)
            yield client

    return running


@pytest.fixture(scope="session")
def client(serve: Serve) -> Iterator[TestClient]:
    with serve() as client:
        yield client


@pytest.fixture(scope="session")
def ask(client: TestClient) -> Ask:
    """The answer to a small forecast of SPY, with changes, from the common service or another one."""

    def post(on: TestClient = client, **changes: Any) -> dict[str, Any]:
        body = {"series": [{"symbol": "SPY"}], "horizon": 4, "paths": 5, "seed": 3} | changes
        answer = on.post("/v1/forecast", json=body)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    return post


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def new_loader(empty_store: Path | StoreUrl, base_path: Path, tmp_path: Path) -> Iterator[NewLoader]:
    """Loaders that follow the store, all of one replica unless told otherwise."""
    made: list[AdapterLoader] = []

    def make(**settings: Any) -> AdapterLoader:
        usual: dict[str, Any] = {
            "state": tmp_path / "state",
            "base": BaseChoice(model=str(base_path)),
            "poll_seconds": 0.01,
        }
        loader = AdapterLoader(empty_store, **(usual | settings))
        made.append(loader)
        return loader

    yield make
    for loader in made:
        loader.stop()

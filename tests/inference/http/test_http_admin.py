"""Reload, pin and roll back over HTTP, and what /v1/model and /metrics say of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.inference.schemas import VersionBody
from kronos_shared.adapter_manifest import is_version, version_name
from kronos_shared.adapter_store import publish

Ask = Callable[..., dict[str, Any]]
Serve = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def own_store(adapter_of: Callable[[int], Path], tmp_path: Path) -> Path:
    root = tmp_path / "store"
    publish(adapter_of(1), root, keep=5)
    return root


@pytest.fixture
def served(serve: Serve, own_store: Path) -> Iterator[TestClient]:
    """A service that polls so rarely that only a reload can bring news."""
    with serve(adapters=own_store, poll_seconds=3600) as client:
        yield client


def admin(client: TestClient, action: str, body: Any = None) -> Any:
    headers = {"Authorization": "Bearer an-admin-key-of-the-tests"}
    return client.post(f"/v1/adapters/{action}", json=body, headers=headers)


def test_a_reload_brings_what_was_published_and_answers_with_the_state(
    served: TestClient, own_store: Path, adapter_of: Callable[[int], Path], ask: Ask
) -> None:
    before = ask(served)
    second = publish(adapter_of(2), own_store, keep=5)
    assert ask(served)["model"] == before["model"]
    state = admin(served, "reload")
    assert state.status_code == 200, state.text
    assert state.json()["serving"]["version"] == second.version
    after = ask(served)
    assert after["model"]["version"] == second.version
    assert after["model"]["digest"] == second.manifest_sha256
    assert after["model"]["generation"] == second.generation
    assert after["series"][0]["mean"] != before["series"][0]["mean"]


def test_a_pin_holds_and_a_rollback_returns_to_the_same_numbers(
    served: TestClient, own_store: Path, adapter_of: Callable[[int], Path], ask: Ask
) -> None:
    first = ask(served)
    second = publish(adapter_of(2), own_store, keep=5)
    admin(served, "reload")
    pinned = admin(served, "pin", {"version": first["model"]["version"]})
    assert pinned.json()["pinned"] == first["model"]["version"]
    assert ask(served)["series"] == first["series"]
    assert admin(served, "pin", {"version": None}).json()["serving"]["version"] == second.version
    rolled = admin(served, "rollback", {"version": None}).json()
    assert rolled["serving"]["version"] == first["model"]["version"]
    assert rolled["latest"]["generation"] == second.generation + 1
    assert ask(served)["series"] == first["series"]


@pytest.mark.parametrize("action", ["pin", "rollback"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": "000009-0123456789ab"}, 409),
        ({"version": "../../etc/passwd"}, 422),
        ({"version": "000001-a197dfceb2ee/../.."}, 422),
        ({"version": "000001-a197dfceb2ee\n"}, 422),
        ({"version": 1}, 422),
        ({"version": None, "force": True}, 422),
        ({}, 422),
        (None, 415),
        ([], 422),
    ],
)
def test_what_is_no_version_changes_nothing(client: TestClient, action: str, body: Any, status: int) -> None:
    before = client.get("/v1/model").json()
    answer = admin(client, action, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    after = client.get("/v1/model").json()
    assert (after["serving"], after["pinned"], after["latest"]) == (
        before["serving"],
        before["pinned"],
        before["latest"],
    )


def test_a_broken_adapter_is_named_and_the_last_one_serves_on(
    served: TestClient, own_store: Path, adapter_of: Callable[[int], Path], ask: Ask
) -> None:
    before = ask(served)
    second = publish(adapter_of(2), own_store, keep=5)
    (own_store / "versions" / second.version / "event_emb.safetensors").write_bytes(b"broken")
    state = admin(served, "reload").json()
    assert state["ready"] is True
    assert state["serving"]["version"] == before["model"]["version"]
    assert "event_emb.safetensors" in state["stale_because"]
    assert state["last_refusal"]["version"] == second.version
    assert ask(served)["series"] == before["series"]
    assert "kronos_adapter_stale 1.0" in served.get("/metrics").text


def test_the_state_names_the_base_the_channels_the_source_and_the_limits(
    client: TestClient, base_path: Path
) -> None:
    state = client.get("/v1/model").json()
    assert (state["ready"], state["reason"]) == (True, None)
    assert state["serving"]["base"] == base_path.name
    assert state["serving"]["context"] == 72
    assert state["channels"] == {"version": 1, "sha256": DEFAULT_TAXONOMY.sha256}
    assert state["source"]["name"] == "snapshot:snapshot"
    assert (state["source"]["symbols"], state["source"]["last_bar"]) == (7, "2022-12-30")
    assert state["limits"]["max_series"] == 16


def test_without_a_model_it_is_alive_but_not_ready_and_says_why(
    settings_of: Callable[..., Any], tmp_path: Path
) -> None:
    from kronos_service.inference.http.app import create_app

    app = create_app(settings_of(adapters=tmp_path / "none"))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = "Bearer an-api-key-of-the-tests"
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"].startswith("no model: ")
        assert answer.headers["Retry-After"] == "5"
        body = {"series": [{"symbol": "SPY"}], "horizon": 1}
        assert client.post("/v1/forecast", json=body).status_code == 503
        assert client.get("/v1/model").json()["serving"] is None
        assert 'kronos_rejections_total{reason="not_ready"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("action", ["pin", "rollback"])
def test_without_a_key_not_even_the_body_is_looked_at(client: TestClient, action: str) -> None:
    headers = {"Authorization": "Bearer not-a-key-of-anybody", "Content-Type": "application/json"}
    answer = client.post(f"/v1/adapters/{action}", content=b"\x00 no JSON", headers=headers)
    assert answer.status_code == 401


def test_every_name_that_a_store_may_give_can_be_asked_for() -> None:
    for number in (1, 10**9, 10**12 - 1):
        name = version_name(number, b"a manifest")
        assert is_version(name)
        assert VersionBody(version=name).version == name

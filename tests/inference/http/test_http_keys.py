"""Keys with names: rotated without a restart, each with its share, and never shown."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from kronos_service.inference.http import keys as keys_module
from kronos_service.inference.http.keys import KeyRing
from kronos_service.inference.http.server import configure_logs
from kronos_service.inference.settings import SettingsError, load_settings
from kronos_shared.adapter_store import publish

Serve = Callable[..., AbstractContextManager[TestClient]]
ALICE, BOB, CAROL = (f"the-secret-of-{name}-123456" for name in ("alice", "bob", "carol"))
TICKS = count(1)
BODY = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2}


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "LOOK_SECONDS", 0.0)


@pytest.fixture
def json_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Everything logged, as the server writes it."""
    written, was, root = StringIO(), structlog.get_config(), logging.getLogger()
    before = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    configure_logs()
    yield written
    root.handlers, root.level = before
    structlog.configure(**was)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    later = time.time() + next(TICKS)
    os.utime(path, (later, later))  # two writes within one tick of the disk's clock differ too
    return path


def status(client: TestClient, key: str) -> int:
    return client.get("/v1/model", headers={"Authorization": f"Bearer {key}"}).status_code


def test_keys_are_rotated_by_writing_their_file(serve: Serve, tmp_path: Path) -> None:
    file = write(tmp_path / "keys", "# the desk", f"alice:{ALICE}", "", BOB)
    with serve(api_keys_file=file) as client:
        assert [status(client, key) for key in (ALICE, BOB, CAROL)] == [200, 200, 401]
        write(file, f"alice:{ALICE}", f"alice:{CAROL}")
        with capture_logs() as lines:
            assert [status(client, key) for key in (ALICE, BOB, CAROL)] == [200, 401, 200]
        (read,) = (line for line in lines if line["event"] == "keys_read")
        assert read["names"] == ["admin-1", "alice", "api-1"]  # api-1: the environment's
        write(file, f"alice:{CAROL}")
        assert [status(client, key) for key in (ALICE, BOB, CAROL)] == [401, 401, 200]
        for bad in ("alice:short", "an-admin-key-of-the-tests"):
            write(file, bad)
            assert [status(client, key) for key in (ALICE, CAROL)] == [401, 200]
        file.unlink()
        assert status(client, CAROL) == 200
        write(file, f"alice:{ALICE}")
        assert [status(client, key) for key in (ALICE, CAROL)] == [200, 401]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api_keys_file": "nowhere"}, "nowhere is missing"),
        ({"api_keys": f"alice:{ALICE}", "admin_keys": f"root:{ALICE}"}, "not both"),
        ({"api_keys": f"alice:{ALICE}", "key_limits": "alcie=1:0.5"}, "did you mean alice"),
        ({"api_keys": f"alice:{ALICE}", "key_limits": "alice=fast"}, "expected NAME=RATE:SHARE"),
        ({"api_keys": f"alice:{ALICE}", "key_limits": "alice=0:0.5"}, "expected NAME=RATE:SHARE"),
        ({"api_keys": f"alice:{ALICE}", "key_limits": "alice=1:1.5"}, "expected NAME=RATE:SHARE"),
        ({"api_keys": "alice:short"}, "at least 16 ASCII characters"),
    ],
)
def test_keys_and_limits_that_cannot_be_stop_the_start(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        KeyRing(load_settings(**changes))
    assert "secret" not in str(refused.value)


def test_admin_keys_may_be_in_a_file_too(tmp_path: Path) -> None:
    file = write(tmp_path / "admins", f"root:{BOB}")
    ring = KeyRing(load_settings(api_keys=ALICE, admin_keys=CAROL, admin_keys_file=file))
    roles = {key: caller.role for key in (ALICE, BOB, CAROL) if (caller := ring.caller_of(key))}
    assert roles == {ALICE: "forecast", BOB: "admin", CAROL: "admin"}


def test_a_key_that_has_a_colon_of_its_own_is_still_one_key() -> None:
    ring = KeyRing(load_settings(api_keys="abcdefgh:ijklmnopq"))
    found = ring.caller_of("abcdefgh:ijklmnopq")
    assert found is not None
    assert found.name == "api-1"


def test_each_key_has_its_own_rate_and_the_others_do_not_notice(serve: Serve) -> None:
    limits = "alice=0.01:0.5,*=1000:1"
    with serve(api_keys=f"{CAROL},alice:{ALICE},bob:{BOB}", key_limits=limits) as client:

        def ask(key: str) -> Any:
            return client.post("/v1/forecast", json=BODY, headers={"Authorization": f"Bearer {key}"})

        assert [ask(ALICE).status_code, ask(BOB).status_code] == [200, 200]
        refused = ask(ALICE)
        assert refused.status_code == 429
        assert "your key may ask 0.01 times a second" in refused.json()["error"]["message"]
        assert 90 < int(refused.headers["Retry-After"]) <= 100
        assert [ask(BOB).status_code for _ in range(3)] == [200] * 3
        text = client.get("/metrics").text
    assert 'kronos_key_requests_total{key="alice",status="429"} 1.0' in text
    assert 'kronos_key_requests_total{key="bob",status="200"} 4.0' in text
    assert 'kronos_rejections_total{reason="key_rate"} 1.0' in text
    assert ALICE not in text


def test_a_key_cannot_hold_more_places_than_its_share(serve: Serve) -> None:
    settings = {
        "api_keys": f"{CAROL},alice:{ALICE},bob:{BOB}",
        "key_limits": "alice=1000:0.2",
        "queue_size": 10,
        "batch_window_ms": 1000,  # what is admitted holds its place this long
    }
    with serve(**settings) as client, ThreadPoolExecutor(5) as pool:

        def ask(key: str) -> Any:
            return client.post("/v1/forecast", json=BODY, headers={"Authorization": f"Bearer {key}"})

        answers = list(pool.map(ask, [ALICE] * 4 + [BOB]))
        text = client.get("/metrics").text
    assert sorted(one.status_code for one in answers[:4]) == [200, 200, 429, 429]
    assert answers[4].status_code == 200
    refused = {one.json()["error"]["message"] for one in answers[:4] if one.status_code == 429}
    assert refused == {"2 requests of your key are waiting already, as many as it may have: try later"}
    assert 'kronos_rejections_total{reason="key_share"} 2.0' in text


def test_what_happens_to_adapters_is_logged_with_who_asked(
    serve: Serve, json_logs: StringIO, adapter_of: Callable[[int], Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = publish(adapter_of(1), store, keep=5)
    with serve(adapters=store, poll_seconds=3600, admin_keys=f"root:{ALICE}") as client:
        admin = {"Authorization": f"Bearer {ALICE}"}
        second = publish(adapter_of(2), store, keep=5)
        client.post("/v1/adapters/reload", headers=admin)
        client.post("/v1/adapters/pin", headers=admin, json={"version": first.version})
        client.post("/v1/adapters/pin", headers=admin, json={"version": None})
        client.post("/v1/adapters/rollback", headers=admin, json={"version": None})
        (store / "LATEST.json").write_text("{}")
        client.post("/v1/adapters/reload", headers=admin)
        client.post("/v1/forecast", json=BODY)
    lines = [json.loads(line) for line in json_logs.getvalue().splitlines()]
    of = {name: [line for line in lines if line["event"] == name] for name in {one["event"] for one in lines}}
    digests = [first.manifest_sha256, second.manifest_sha256]
    assert [line["digest"] for line in of["adapter_loaded"]] == digests
    assert [line["version"] for line in of["adapter_serves"]][:3] == [
        first.version,
        second.version,
        first.version,
    ]
    assert [line["version"] for line in of["adapter_pinned"]] == [first.version, None]
    assert (of["adapter_rolled_back"][0]["version"], of["adapter_rolled_back"][0]["generation"]) == (
        first.version,
        3,
    )
    assert "not a valid pointer" in of["adapter_refused"][0]["reason"]
    for name in ("adapter_pinned", "adapter_rolled_back", "adapter_refused", "adapter_reload"):
        assert {line["key"] for line in of[name]} == {"root"}
    assert {line.get("key") for line in of["request"] if line["route"] == "/v1/forecast"} == {"api-1"}
    assert not any(word in json_logs.getvalue() for word in ("secret-of", "key-of-the"))


def test_a_key_that_asks_too_often_is_told_before_its_body_is_judged(serve: Serve) -> None:
    with serve(api_keys=f"{CAROL},alice:{ALICE}", key_limits="alice=0.01:0.5") as client:
        headers = {"Authorization": f"Bearer {ALICE}", "Content-Type": "application/json"}
        assert client.post("/v1/forecast", content=b"{", headers=headers).status_code == 422
        assert client.post("/v1/forecast", json=BODY, headers=headers).status_code == 200
        refused = client.post("/v1/forecast", content=b"{", headers=headers)
    assert refused.status_code == 429
    assert "your key may ask 0.01 times a second" in refused.json()["error"]["message"]

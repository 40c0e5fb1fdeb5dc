"""Around every request: ids, limits on bodies, logs without secrets, metrics, errors of our own."""

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import structlog
from fastapi.testclient import TestClient
from pydantic import BaseModel

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.inference.errors import DeadlineExceeded, Overloaded
from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.server import configure_logs
from kronos_service.inference.scheduler.work import BatchKey, Cost
from kronos_service.inference.schemas import ForecastRequest, ForecastResponse
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_store import publish

Ask = Callable[..., dict[str, Any]]
Serve = Callable[..., AbstractContextManager[TestClient]]
BODY = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2}


def test_a_sane_request_id_is_kept_and_another_is_replaced(client: TestClient) -> None:
    for sent, is_kept in (
        ("abc-123_x.Y", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ('"}{', False),
        ("", False),
    ):
        answer = client.post("/v1/forecast", json=BODY, headers={"X-Request-Id": sent})
        given = answer.headers["X-Request-Id"]
        assert answer.json()["request_id"] == given
        assert (given == sent) == is_kept
        assert given


@pytest.mark.parametrize("path", ["/v1/forecast", "/v1/adapters/pin", "/livez", "/nowhere"])
def test_a_body_over_the_limit_is_refused_by_its_declared_length(client: TestClient, path: str) -> None:
    answer = client.post(path, content=b"x" * (4 * 2**20 + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert answer.headers["Connection"] == "close"


def test_a_declared_length_that_is_no_number_is_none(client: TestClient) -> None:
    transport = httpx.ASGITransport(client.app)

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as sender:
            return await sender.post("/nowhere", content=b"{}", headers={b"Content-Length": b"\xb2"})

    assert asyncio.run(post()).status_code == 404


def test_a_body_over_the_limit_is_refused_as_it_comes(client: TestClient) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(5):
            sent += 2**20
            yield b" " * 2**20

    kind = {"Content-Type": "application/json"}
    assert client.post("/v1/forecast", content=chunks(), headers=kind).status_code == 413
    headers = {"Authorization": "Bearer an-admin-key-of-the-tests", **kind}
    assert client.post("/v1/adapters/pin", content=chunks(), headers=headers).status_code == 413


def test_a_body_at_the_limit_passes(client: TestClient) -> None:
    content = json.dumps(BODY).encode().ljust(4 * 2**20)
    answer = client.post("/v1/forecast", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/forecast", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_has_the_common_form(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


def test_an_error_of_our_own_is_a_500_that_tells_nothing(serve: Serve) -> None:
    with serve() as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        service.clock = lambda: "no time, but a secret"
        answer = client.post("/v1/forecast", json=BODY)
        assert answer.status_code == 500
        assert answer.json()["error"] == {
            "code": "internal",
            "message": "an error on our side: see the log",
            "fields": [],
        }
        assert answer.headers["X-Request-Id"] == answer.json()["request_id"]
        assert service.queue.depth == 0  # its place in the queue is free again
        metrics = client.get("/metrics").text
    assert 'kronos_requests_total{route="/v1/forecast",status="500"} 1.0' in metrics


@pytest.fixture
def json_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """What the service logs as it would on stderr, for one test."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    was = structlog.get_config()
    written = StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logs()
    yield written
    root.handlers, root.level = before
    structlog.configure(**was)


def test_logs_are_json_with_request_ids_and_neither_keys_nor_candles(
    serve: Serve, json_logs: StringIO
) -> None:
    with serve() as client:
        for key, number in (("an-api-key-of-the-tests", "314.159"), ("a-wrong-key-of-mine", "271.828")):
            body = {"series": [{"symbol": "x", "asset_class": "crypto", "candles": [{"open": number}]}]}
            headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "mine"}
            client.post("/v1/forecast", json=body, headers=headers)
        client.post("/v1/forecast", json=BODY, headers={"X-Request-Id": "good"})
    lines = [json.loads(line) for line in json_logs.getvalue().splitlines()]
    requests = {line["request_id"]: line for line in lines if line["event"] == "request"}
    assert requests["good"].items() >= {"route": "/v1/forecast", "status": 200, "method": "POST"}.items()
    assert {"level", "timestamp", "seconds"} <= requests["good"].keys()
    text = json.dumps(lines)
    assert not any(word in text for word in ("key-of", "314.159", "271.828"))


def test_metrics_count_requests_by_route_and_status(serve: Serve, ask: Ask) -> None:
    with serve() as client:
        ask(client)
        client.post("/v1/forecast", json={})
        client.get("/one/of/endless/many")
        text = client.get("/metrics").text
    for line in (
        'kronos_requests_total{route="/v1/forecast",status="200"} 1.0',
        'kronos_requests_total{route="/v1/forecast",status="422"} 1.0',
        'kronos_requests_total{route="unmatched",status="404"} 1.0',
        'kronos_request_seconds_count{route="/v1/forecast"} 2.0',
        "kronos_batch_requests_count 1.0",
        "kronos_forecast_seconds_count 1.0",
        'kronos_rejections_total{reason="queue_full"} 0.0',
        "kronos_queue_depth 0.0",
        "kronos_adapter_generation 1.0",
        "kronos_adapter_stale 0.0",
        'kronos_adapter_outcomes_total{outcome="swaps"} 1.0',
        "kronos_source_age_seconds 0.0",
        "kronos_source_failures_total 0.0",
    ):
        assert f"\n{line}\n" in text, line
    assert 'kronos_adapter_info{base="tiny",digest="' in text
    assert "endless" not in text


def unread() -> Iterator[bytes]:
    """A body that must not be asked for beyond what a client sends ahead."""
    yield b"{"
    raise AssertionError("the body was read")


def test_a_full_queue_answers_429_at_once_with_the_time_to_wait(serve: Serve, ask: Ask) -> None:
    with serve(queue_size=1) as client, ThreadPoolExecutor(2) as pool:
        service = client.app.state.service  # type: ignore[attr-defined]
        queue, serving = service.queue, service.loader.current()
        key_of_one = BatchKey(horizon=1, paths=1, sampling=Sampling())
        demand = Cost(serving=serving, key=key_of_one, bars=10, series=1)
        ticket = queue.admit(demand, time.monotonic() + 60)
        answer = client.post("/v1/forecast", content=unread())
        queue.give_up(ticket)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "overloaded"
        assert int(answer.headers["Retry-After"]) >= 1
        assert pool.submit(ask, client).result(30)["series"]


def test_a_service_with_an_adapter_has_estimate_before_the_first_request(serve: Serve) -> None:
    with serve() as client:
        assert client.app.state.service.queue.has_estimate  # type: ignore[attr-defined]


def test_a_deadline_that_passes_unserved_is_504(serve: Serve) -> None:
    with serve() as client:
        answer = client.post("/v1/forecast", json=BODY | {"deadline_ms": 1})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"


def test_a_request_that_names_no_deadline_has_the_default_one(serve: Serve) -> None:
    with serve(default_deadline_ms=1) as client:
        assert client.post("/v1/forecast", json=BODY).status_code == 504
        assert client.post("/v1/forecast", json=BODY | {"deadline_ms": 60_000}).status_code == 200


def test_the_deadline_counts_from_when_the_request_arrived(serve: Serve) -> None:
    with serve(default_deadline_ms=60_000) as client:
        service: Service = client.app.state.service  # type: ignore[attr-defined]
        request = ForecastRequest.model_validate_json(json.dumps(BODY))

        async def ask(arrived: float) -> bytes:
            return await service.forecast(request, caller="api-1", request_id="r", arrived=arrived)

        assert asyncio.run(ask(time.monotonic() - 30))
        with pytest.raises((DeadlineExceeded, Overloaded)):
            asyncio.run(ask(time.monotonic() - 61))


def test_a_request_is_answered_by_the_model_it_began_with(
    adapter_of: Callable[[int], Path], settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    """While it is prepared, the clock is asked; that moment another adapter goes live."""
    store, swapped = tmp_path / "adapters", list[str]()
    first = publish(adapter_of(0), store, keep=9)

    def clock() -> datetime:
        if (service := getattr(app.state, "service", None)) and swapped == ["armed"]:
            swapped[:] = [publish(adapter_of(1), store, keep=9).version]
            service.loader.look()
        return datetime(2023, 1, 5, tzinfo=UTC)

    app = create_app(settings_of(adapters=store, poll_seconds=3600), clock=clock)
    with TestClient(app, headers={"Authorization": "Bearer an-api-key-of-the-tests"}) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        before = client.post("/v1/forecast", json=BODY).json()
        swapped.append("armed")
        across = client.post("/v1/forecast", json=BODY).json()
        after = client.post("/v1/forecast", json=BODY).json()
    assert across["model"]["version"] == before["model"]["version"] == first.version
    assert across["series"] == before["series"]
    assert [after["model"]["version"]] == swapped
    assert after["series"] != before["series"]


def test_while_it_shuts_down_new_requests_are_503_and_connections_close(serve: Serve) -> None:
    with serve() as client:
        client.app.state.service.queue.close()  # type: ignore[attr-defined]
        answer = client.post("/v1/forecast", json=BODY)
        assert answer.status_code == 503
        assert "shutting down" in answer.json()["error"]["message"]
        assert answer.headers["Connection"] == "close"
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200


@pytest.fixture(scope="module")
def document(settings_of: Callable[..., Settings]) -> dict[str, Any]:
    """The OpenAPI document."""
    return create_app(settings_of()).openapi()


def test_the_api_describes_its_bodies_errors_and_examples(document: dict[str, Any], ask: Ask) -> None:
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/v1/forecast"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ForecastRequest"
    }
    assert {"200", "401", "403", "413", "415", "422", "429", "503", "504"} == operation["responses"].keys()
    assert operation["security"] == [{"HTTPBearer": []}]
    assert "bars *after* its date" in schemas["ScenarioIn"]["description"]
    models: tuple[type[BaseModel], ...] = (ForecastRequest, ForecastResponse)
    for model in models:
        examples = schemas[model.__name__]["examples"]
        assert [model.model_validate_json(json.dumps(example)) for example in examples]
    example = schemas["ForecastResponse"]["examples"][0]
    answer = ask()
    assert example.keys() == answer.keys()
    assert example["series"][0].keys() == answer["series"][0].keys()


def test_every_reference_of_the_document_is_there(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= document["components"]["schemas"].keys()
    assert "ForecastRequest" in named


def test_a_client_that_hangs_up_before_its_body_is_whole_is_no_error_of_ours(client: TestClient) -> None:
    sent: list[Any] = []

    async def hang_up() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    key = client.headers["Authorization"].encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/forecast",
        "query_string": b"",
        "headers": [(b"authorization", key), (b"content-type", b"application/json")],
    }
    assert client.portal is not None
    client.portal.call(client.app, scope, hang_up, send)
    assert sent == []
    assert 'kronos_requests_total{route="/v1/forecast",status="499"} 1.0' in client.get("/metrics").text


def test_without_a_market_it_is_not_ready_and_everything_else_answers(
    settings_of: Callable[..., Settings],
) -> None:
    clock = [datetime(1996, 1, 3, tzinfo=UTC)]
    settings = settings_of(refresh_seconds=0.05)
    app = create_app(settings, clock=lambda: clock[0])
    key = {"Authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"}
    with TestClient(app, headers=key, raise_server_exceptions=False) as client:
        until = time.monotonic() + 30
        while "check the clock" not in (client.get("/v1/model").json()["source"]["error"] or ""):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/forecast", json=BODY).status_code == 503
        metrics = client.get("/metrics")
        assert metrics.status_code == 200
        assert "kronos_source_failures_total 0.0" not in metrics.text
        clock[0] = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert client.post("/v1/forecast", json=BODY).status_code == 200


def test_a_symbol_left_behind_is_marked_counted_and_named_or_rejected(
    serve: Serve, ask: Ask, market: Snapshot, tmp_path: Path
) -> None:
    is_old = (market.bars["symbol"] == "SYN02") & (market.bars["ts"] > pd.Timestamp("2021-12-31", tz="UTC"))
    for name, table in (
        ("ohlcv_1d", market.bars[~is_old]),
        ("symbols", market.symbols),
        ("economic_calendar", market.calendar),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
    both = [{"symbol": "SYN01"}, {"symbol": "SYN02"}]
    with serve(snapshot=tmp_path) as client:
        answers = ask(client, series=both)["series"]
        assert [(one["is_stale"], one["stale_sessions"]) for one in answers] == [(False, 0), (True, 251)]
        assert "\nkronos_source_stale_symbols 1.0\n" in client.get("/metrics").text
        assert client.get("/v1/model").json()["source"]["stale_symbols"] == ["SYN02"]
    with serve(snapshot=tmp_path, max_stale_sessions=10) as client:
        answer = client.post("/v1/forecast", json=BODY | {"series": both})
        assert answer.status_code == 422
        (fault,) = answer.json()["error"]["fields"]
        assert fault == {
            "field": "series.1.symbol",
            "message": "SYN02 ends at 2021-12-31, 251 sessions ago: expected at most 10",
        }
        assert ask(client, series=both[:1])["series"][0]["is_stale"] is False
        rows = market.bars[(market.bars["symbol"] == "SYN02") & ~is_old].iloc[-70:]
        columns = ["open", "high", "low", "close", "volume"]
        candles = [
            {"ts": str(row["ts"].date())} | {name: float(row[name]) for name in columns}
            for _, row in rows.iterrows()
        ]
        own = {"symbol": "mine", "asset_class": "us_equity", "candles": candles}
        assert ask(client, series=[own])["series"][0]["stale_sessions"] == 251  # its sender decides


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/model"])
def test_head_is_answered_as_get(client: TestClient, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert client.head("/v1/forecast").status_code == 405


def test_pages_of_the_named_origins_alone_may_call(serve: Serve) -> None:
    asked = {
        "Origin": "https://desk.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization, Content-Type",
    }
    with serve(cors_origins="https://desk.example") as client:
        allowed = client.options("/v1/forecast", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://desk.example"
        answer = client.post("/v1/forecast", json={}, headers={"Origin": "https://desk.example"})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (
            422,
            "https://desk.example",
        )
        other = client.options("/v1/forecast", headers=asked | {"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


def test_without_origins_no_page_may_call(client: TestClient) -> None:
    answer = client.get("/livez", headers={"Origin": "https://desk.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("prefix", ["", "/kronos"])
def test_a_proxy_may_publish_it_under_a_path(serve: Serve, prefix: str) -> None:
    with serve(root_path="/kronos") as client:
        assert client.get(f"{prefix}/livez").text == "ok"
        assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/kronos"}]


def test_an_encoded_body_is_415(client: TestClient) -> None:
    content = gzip.compress(json.dumps(BODY).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/v1/forecast", content=content, headers=headers)
    assert answer.status_code == 415
    assert "without Content-Encoding" in answer.json()["error"]["message"]
    plain = client.post("/v1/forecast", json=BODY, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


def test_readyz_tells_strangers_no_path(settings_of: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "market").mkdir()
    app = create_app(settings_of(adapters=tmp_path / "store", snapshot=tmp_path / "market"))
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(20):
            answer = client.get("/readyz")
            assert answer.status_code == 503
            message = answer.json()["error"]["message"]
            assert message == "no model: GET /v1/model says why"
            time.sleep(0.01)

"""What is refused, with which status and by which field; never a 500."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from kronos_service.data.snapshot.read import Snapshot, series

Body = dict[str, Any]
Change = Callable[[Body], None]


@pytest.fixture(scope="module")
def inline(market: Snapshot) -> Callable[[int], Body]:
    """A request with the last bars of SYN02 inline."""

    def make(bars: int = 70) -> Body:
        rows = series(market, "SYN02").iloc[-bars:]
        candles = [
            {"ts": str(row["ts"].date())}
            | {name: float(row[name]) for name in ("open", "high", "low", "close", "volume")}
            for _, row in rows.iterrows()
        ]
        return {
            "series": [{"symbol": "mine", "asset_class": "us_equity", "candles": candles}],
            "horizon": 2,
            "paths": 2,
        }

    return make


def candle(bar: int, **values: Any) -> Change:
    return lambda body: body["series"][0]["candles"][bar].update(values)


def top(**values: Any) -> Change:
    return lambda body: body.update(values)


def swap(body: Body) -> None:
    candles = body["series"][0]["candles"]
    candles[3], candles[4] = candles[4], candles[3]


def repeat(body: Body) -> None:
    body["series"][0]["candles"].insert(5, body["series"][0]["candles"][5])


def gap(body: Body) -> None:
    del body["series"][0]["candles"][40]


def only(bars: int) -> Change:
    def cut(body: Body) -> None:
        del body["series"][0]["candles"][: 70 - bars]

    return cut


def drop(name: str) -> Change:
    return lambda body: body["series"][0].pop(name) and None


def one(**values: Any) -> Change:
    return lambda body: body["series"][0].update(values)


def lookup(symbol: str) -> Change:
    return lambda body: body.update(series=[{"symbol": "SPY"}, {"symbol": symbol}])


def calendar(**changes: Any) -> Change:
    event = {
        "event_id": "a",
        "event_type": "cpi",
        "impact": "high",
        "release_at": "2023-01-12T13:30:00Z",
    }
    return lambda body: body.update(
        calendar={"events": [event, event | changes], "complete_until": "2023-02-01"}
    )


CASES: dict[str, tuple[Change, str]] = {
    "NaN": (candle(7, close=float("nan")), "series.0.candles.7.close"),
    "infinite": (candle(7, volume=float("inf")), "series.0.candles.7.volume"),
    "minus infinite": (candle(7, open=float("-inf")), "series.0.candles.7.open"),
    "negative price": (candle(7, low=-1.0), "series.0.candles.7.low"),
    "price of zero": (candle(7, low=0.0), "series.0.candles.7.low"),
    "negative volume": (candle(7, volume=-1.0), "series.0.candles.7.volume"),
    "negative amount": (candle(7, amount=-1.0), "series.0.candles.7.amount"),
    "price as text": (candle(7, open="12"), "series.0.candles.7.open"),
    "null price": (candle(7, open=None), "series.0.candles.7.open"),
    "low above the body": (candle(7, low=1e6, high=1e6), "series.0.candles.7.low"),
    "high below the body": (candle(7, high=1e-3), "series.0.candles.7.high"),
    "unknown column": (candle(7, vwap=1.0), "series.0.candles.7.vwap"),
    "unsorted": (swap, "series.0.candles.4.ts"),
    "duplicated": (repeat, "series.0.candles.6.ts"),
    "gapped": (gap, "series.0.candles.40.ts"),
    "a time for a date": (candle(7, ts="2022-10-03T09:30:00Z"), "series.0.candles.7.ts"),
    "a number for a date": (candle(7, ts=1664755200), "series.0.candles.7.ts"),
    "a Saturday": (candle(0, ts="2022-09-17"), "series.0.candles.0.ts"),
    "today's unfinished bar": (candle(69, ts="2023-01-03"), "series.0.candles.69.ts"),
    "a bar of the year 9999": (candle(69, ts="9999-12-31"), "series.0.candles.69.ts"),
    "a bar of the year 1": (candle(0, ts="0001-01-01"), "series.0.candles.0.ts"),
    "too short": (only(63), "series.0.candles"),
    "no candles": (only(0), "series.0.candles"),
    "candles without asset class": (drop("asset_class"), "series.0"),
    "asset class without candles": (drop("candles"), "series.0"),
    "unknown asset class": (
        lambda body: body["series"][0].update(asset_class="bond"),
        "series.0.asset_class",
    ),
    "no series": (top(series=[]), "series"),
    "too many series": (top(series=[{"symbol": "SPY"}] * 17), "series"),
    "unknown symbol": (lookup("SPYY"), "series.1.symbol"),
    "a symbol that is a path": (lookup("../../etc/passwd\x00"), "series.1.symbol"),
    "horizon of 0": (top(horizon=0), "horizon"),
    "horizon over the limit": (top(horizon=65), "horizon"),
    "horizon that leaves no history": (top(horizon=9), "horizon"),
    "horizon that is half a bar": (top(horizon=1.5), "horizon"),
    "no paths": (top(paths=0), "paths"),
    "paths over the limit": (top(paths=257), "paths"),
    "rows over the limit": (top(series=[{"symbol": "SPY"}] * 3, paths=100), "paths"),
    "negative seed": (top(seed=-1), "seed"),
    "huge seed": (top(seed=2**70), "seed"),
    "quantile of 1": (top(quantiles=[0.5, 1.0]), "quantiles.1"),
    "quantile twice": (top(quantiles=[0.5, 0.5]), "quantiles"),
    "negative temperature": (top(temperature=-1), "temperature"),
    "temperature that overflows": (top(temperature=1e-300), "temperature"),
    "top_p of 0": (top(top_p=0), "top_p"),
    "deadline over the limit": (top(deadline_ms=60_001), "deadline_ms"),
    "unknown setting": (top(sedd=1), "sedd"),
    "unknown event type": (calendar(event_type="rain"), "calendar.events.1.event_type"),
    "release without a zone": (calendar(release_at="2023-01-12T13:30:00"), "calendar.events.1.release_at"),
    "release in the year 9999": (calendar(release_at="9999-01-12T13:30:00Z"), "calendar.events.1.release_at"),
    "one event twice": (calendar(), "calendar.events"),
    "infinite actual": (calendar(actual=float("inf")), "calendar.events.1.actual"),
    "calendar that ends too early": (
        top(calendar={"events": [], "complete_until": "2023-01-05"}),
        "calendar.complete_until",
    ),
}


@pytest.mark.parametrize(("change", "field"), CASES.values(), ids=CASES.keys())
def test_a_request_is_refused_by_the_field_at_fault(
    client: TestClient, inline: Callable[[int], Body], change: Change, field: str
) -> None:
    body = inline(70)
    change(body)
    answer = send(client, json.dumps(body))
    assert answer.status_code == 422, answer.text
    fields = [fault["field"] for fault in answer.json()["error"]["fields"]]
    assert field in fields, answer.text
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


def test_the_request_of_these_cases_is_fine_as_it_is(
    client: TestClient, inline: Callable[[int], Body]
) -> None:
    answer = send(client, json.dumps(inline(70)))
    assert answer.status_code == 200, answer.text
    (series,) = answer.json()["series"]
    assert (series["bars_given"], series["bars_used"], series["history_shortened"]) == (70, 70, False)


def test_the_limits_are_the_operators(serve: Callable[..., Any], inline: Callable[[int], Body]) -> None:
    requests: dict[str, Body] = {
        "series": {"series": [{"symbol": "SPY"}] * 3, "paths": 1},
        "series.0.candles": inline(70),
        "horizon": {"horizon": 4},
        "paths": {"paths": 4},
        "deadline_ms": {"deadline_ms": 50_001},
    }
    limits = {"max_series": 2, "max_bars": 69, "max_horizon": 3, "max_paths": 3, "max_deadline_ms": 50_000}
    with serve(**limits, max_rows=5, max_body_bytes=20_000, default_deadline_ms=50_000) as client:
        for field, body in requests.items():
            wanted = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2} | body
            assert refused_fields(client, wanted) == [field]
        rows = {"series": [{"symbol": "SPY"}] * 2, "horizon": 2, "paths": 3}
        assert refused_fields(client, rows) == ["paths"]
        assert send(client, json.dumps(rows).ljust(20_001)).status_code == 413


def refused_fields(client: TestClient, body: Body) -> list[str]:
    answer = send(client, json.dumps(body))
    assert answer.status_code == 422, answer.text
    return [fault["field"] for fault in answer.json()["error"]["fields"]]


def test_too_many_candles_are_refused(client: TestClient) -> None:
    days = np.arange(np.datetime64("2018-01-01"), np.datetime64("2018-01-01") + 1025)
    price = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0}
    candles = [{"ts": str(day), **price} for day in days]
    one = {"symbol": "x", "asset_class": "crypto", "candles": candles}
    answer = send(client, json.dumps({"series": [one], "horizon": 2}))
    assert answer.status_code == 422
    assert answer.json()["error"]["fields"][0] == {
        "field": "series.0.candles",
        "message": "expected 64 to 1024 bars, got 1025",
    }


def test_a_gap_names_the_sessions_that_are_missing(client: TestClient, inline: Callable[[int], Body]) -> None:
    body = inline(70)
    candles = body["series"][0]["candles"]
    missing = [candles[bar]["ts"] for bar in (40, 41)]
    del candles[40:42]
    (fault,) = send(client, json.dumps(body)).json()["error"]["fields"]
    assert fault["message"] == f"2 sessions are missing before {candles[40]['ts']}: {', '.join(missing)}"


def test_every_fault_of_a_request_is_named_but_not_without_end(
    client: TestClient, inline: Callable[[int], Body]
) -> None:
    body = inline(70)
    for one in body["series"][0]["candles"]:
        one["close"] = None
    faults = send(client, json.dumps(body)).json()["error"]["fields"]
    assert [fault["field"] for fault in faults] == [f"series.0.candles.{bar}.close" for bar in range(20)]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"null", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    client: TestClient, content: bytes, kind: str, status: int
) -> None:
    answer = client.post("/v1/forecast", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text


def test_what_was_sent_is_not_sent_back(client: TestClient) -> None:
    body = {"series": [{"symbol": "SPY"}], "horizon": "a-very-private-horizon"}
    answer = send(client, json.dumps(body))
    assert answer.status_code == 422
    assert "private" not in answer.text


def test_a_bar_counts_from_the_minute_its_session_has_closed(
    serve: Callable[..., Any], inline: Callable[[int], Body]
) -> None:
    body = inline(70)
    close = datetime(2022, 12, 30, 21, 0, tzinfo=UTC)
    with serve(now=close - timedelta(seconds=1)) as early:
        answer = send(early, json.dumps(body))
        assert answer.json()["error"]["fields"][0]["field"] == "series.0.candles.69.ts"
        assert "closes at 2022-12-30T21:00Z" in answer.text
    with serve(now=close) as sharp:
        assert send(sharp, json.dumps(body)).status_code == 200


def send(client: TestClient, content: str) -> Any:
    return client.post("/v1/forecast", content=content, headers={"Content-Type": "application/json"})

"""Limits before work: bodies that are cheap to send must be cheap to reject."""

import json
import resource
import time
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from kronos_service.inference.settings import MOST_EVENTS

N = 1_900_000


def request(series: str, more: str = "") -> str:
    return f'{{"horizon":1,"series":[{series}]{more}}}'


def candles(content: str) -> str:
    return request(f'{{"symbol":"X","asset_class":"crypto","candles":[{content}]}}')


NAMES = ",".join(f'"{i:x}":0' for i in range(250_000))
BOMBS = {
    "a list of zeros for series": request(",".join(["0"] * N)),
    "a list of zeros for candles": candles(",".join(["0"] * N)),
    "a list of empty series": request(",".join(["{}"] * (N // 2))),
    "empty candles up to the bound": candles(",".join(["{}"] * 9000)),
    "names that nobody knows": request('{"symbol":"SPY"}', f",{NAMES}"),
    "a candle of names that nobody knows": candles(f"{{{NAMES}}}"),
}


def little() -> float:
    """Seconds that a request may take at most: 7 s on a machine where the worst of these takes 1 s."""
    started = time.process_time()
    json.loads(max(BOMBS.values(), key=len))
    return 50 * (time.process_time() - started)


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_a_body_of_very_many_faults_is_rejected_for_little(client: TestClient, body: str) -> None:
    assert len(body) < 4 * 2**20
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    answer = client.post("/v1/forecast", content=body, headers={"Content-Type": "application/json"})
    took = time.process_time() - started
    assert answer.status_code == 422
    assert len(answer.content) < 10_000
    assert answer.json()["error"]["fields"]
    assert took < little()  # 31 s before there was a bound
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB; 2.5 GB before


def test_a_whole_inline_calendar_is_still_taken(client: TestClient) -> None:
    first = datetime(2000, 1, 3, 13, 30, tzinfo=UTC)
    events = [
        {
            "event_id": f"e{i}",
            "event_type": "cpi",
            "impact": "high",
            "release_at": (first + timedelta(hours=10 * i)).isoformat(),
            "actual": float(i % 7),
            "forecast": 1.0,
            "first_seen_at": None,
        }
        for i in range(MOST_EVENTS)
    ]
    calendar = {"events": events, "complete_until": "2023-03-01"}
    body = {"series": [{"symbol": "SPY"}], "horizon": 1, "paths": 1, "calendar": calendar}
    content = json.dumps(body, separators=(",", ":"))
    started = time.process_time()
    answer = client.post("/v1/forecast", content=content, headers={"Content-Type": "application/json"})
    took = time.process_time() - started
    assert answer.status_code == 200, answer.text[:500]
    assert took < little()

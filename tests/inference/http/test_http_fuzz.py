"""A request with anything in any of its places is answered or refused: never an error of ours."""

import copy
import json
import math
from collections.abc import Iterator
from datetime import date
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

Place = tuple[str | int, ...]

DAYS = [str(day) for day in sessions("us_equity", date(2022, 9, 1), date(2022, 12, 30)).dates][-70:]
BODY: dict[str, Any] = {
    "series": [
        {
            "symbol": "x",
            "asset_class": "us_equity",
            "candles": [
                {
                    "ts": day,
                    "open": 10.0,
                    "high": 12.0,
                    "low": 9.0,
                    "close": 11.0,
                    "volume": 5.0,
                    "amount": None,
                }
                for day in DAYS
            ],
        },
        {"symbol": "SPY", "as_of": "2022-12-30"},
    ],
    "horizon": 3,
    "paths": 2,
    "model": "adapter",
    "seed": 1,
    "quantiles": [0.1, 0.9],
    "temperature": 1.0,
    "top_p": 0.9,
    "top_k": 0,
    "calendar": {
        "events": [
            {
                "event_id": "a",
                "event_type": "cpi",
                "impact": "high",
                "release_at": "2023-01-04T13:30:00Z",
                "actual": None,
                "forecast": 3.0,
                "first_seen_at": None,
            }
        ],
        "complete_until": "2023-03-01",
    },
    "scenario": {
        "surprises": [{"date": "2023-01-04", "event_type": "cpi", "z": 2.0}],
        "leaders": [{"date": "2023-01-03", "leader": "VIX", "z": -1.0}],
    },
    "return_paths": True,
    "deadline_ms": 30_000,
}


def places(body: Any, at: Place = ()) -> Iterator[Place]:
    yield at
    if isinstance(body, dict):
        for name, value in body.items():
            yield from places(value, (*at, name))
    if isinstance(body, list):
        for index, value in enumerate(body):
            yield from places(value, (*at, index))


# Candles are many and alike: a few of them stand for all.
PLACES = [at for at in places(BODY) if not (len(at) > 3 and at[2] == "candles" and at[3] not in (0, 30, 69))]
NUMBERS = st.sampled_from(
    [0, -0.0, -1, 1, 2, 8, 5e-324, 1e-9, 0.01, 0.5, 4.99, 1e9, 1e12, 1e15, 1e24, 1e308, 2**63, 10**400]
)
DATES = ("0001-01-01", "1990-01-16", "2022-12-31", "2023-01-04", "2023-01-06", "9999-12-31")
MOMENTS = ("1990-01-01T00:00:00Z", "2023-01-05T23:59:59.999999+14:00", "2199-12-31T23:59:59Z")
WORDS = st.sampled_from(
    [
        "",
        "x",
        "SPY",
        "VIX",
        "crypto",
        "fx",
        "high",
        "adapter",
        "base",
        "../..",
        "\x00",
        "é",
        *DATES,
        *MOMENTS,
        *DEFAULT_TAXONOMY.event_types,
    ]
)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, float("nan"), float("inf"), -float("inf"), [], {}, [[]], {"a": 1}]
)
REMOVE = object()
VALUES = NUMBERS | WORDS | ODD | st.floats() | st.integers(-5, 5) | st.text(max_size=5) | st.just(REMOVE)


def put(body: Any, at: Place, value: Any) -> Any:
    """The body with another value at a place, if that place is still there."""
    if not at:
        return {} if value is REMOVE else value
    inside = body
    for name in at[:-1]:
        try:
            inside = inside[name]
        except (KeyError, IndexError, TypeError):
            return body
    try:
        if value is REMOVE:
            del inside[at[-1]]
        else:
            inside[at[-1]] = value
    except (KeyError, IndexError, TypeError):
        pass
    return body


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES[1:]), VALUES), min_size=1, max_size=3))
def test_whatever_stands_in_a_request_is_answered_or_refused(
    client: TestClient, changes: list[tuple[Place, Any]]
) -> None:
    body = copy.deepcopy(BODY)
    for at, value in changes:
        body = put(body, at, value)
    answer = client.post(
        "/v1/forecast", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (200, 422, 504), answer.text
    if answer.status_code == 422:
        assert answer.json()["error"]["fields"]
    if answer.status_code == 200:
        for series in answer.json()["series"]:
            assert all(math.isfinite(number) for number in numbers(series))
            assert all(None not in column for column in series["mean"].values())


def test_the_request_that_is_changed_is_fine_as_it_is(client: TestClient) -> None:
    answer = client.post("/v1/forecast", json=BODY)
    assert answer.status_code == 200, answer.text

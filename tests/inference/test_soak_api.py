"""Whatever is sent to a route that the OpenAPI document names: the answer is one that it names too."""

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from replica import ADMIN, FORECASTS, Replica, running
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.adapter_store import publish
from kronos_shared.columns import ASSET_CLASSES

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

CASES = 500 * int(os.environ.get("SOAK", "1"))
LAST_DAY = date(2022, 12, 30)
"""Of the small market: a session of every asset class."""
DEFAULT_QUANTILES = [0.1, 0.5, 0.9]
MOST_ROWS, MOST_BARS, MOST_HORIZON, MOST_MILLISECONDS = 4, 80, 2, 60_000
WHOLE = {"horizon", "paths", "seed", "top_k", "deadline_ms"}
ADMIN_ONLY = {"/v1/adapters/reload", "/v1/adapters/pin", "/v1/adapters/rollback"}
PUBLIC = {"/livez", "/readyz", "/metrics"}
KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "unknown": {"Authorization": "Bearer not-a-key-of-anybody"},
    "forecasts": FORECASTS,
    "admin": ADMIN,
}


@pytest.fixture(scope="module")
def replica(
    adapter_of: Callable[[int], Path],
    base_path: Path,
    market_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Replica]:
    root = tmp_path_factory.mktemp("fuzzed")
    for number in range(2):
        publish(adapter_of(number), root / "adapters", keep=1000)
    replica = Replica(
        adapters=root / "adapters",
        directory=root / "replica",
        base=str(base_path),
        snapshot=market_path,
        settings={
            "max_rows": str(MOST_ROWS),
            "max_bars": str(MOST_BARS),
            "max_horizon": str(MOST_HORIZON),
            "max_deadline_ms": str(MOST_MILLISECONDS),
        },
    )
    with running(replica):
        yield replica


def allowed(path: str, key: str) -> set[int]:
    """What the key alone decides: an empty set means that the rest of the request does."""
    if path in PUBLIC:
        return set()
    if key in ("none", "unknown"):
        return {401}
    may = (
        {"admin"}
        if path in ADMIN_ONLY
        else {"forecasts"}
        if path == "/v1/forecast"
        else {"forecasts", "admin"}
    )
    return set() if key in may else {403}


def key_for(path: str) -> SearchStrategy[str]:
    """The right key four times in five, or any other."""
    right = "forecasts" if path == "/v1/forecast" else "admin"
    return st.sampled_from([*[right] * 4 * len(KEYS), *KEYS])


def described(replica: Replica) -> dict[str, Any]:
    """The server's document, with the symbols and limits that it does not tell, so that more gets through;
    without its word on keys, or schemathesis would take ours off again wherever it means to spoil a request.
    """
    document: dict[str, Any] = replica.get("/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    schemas = document["components"]["schemas"]
    schemas["SeriesIn"]["properties"]["symbol"] = {"enum": ["SPY", "SYN01"]}
    for name in ("EventIn", "SupposedSurprise"):
        schemas[name]["properties"]["event_type"] = {"enum": [*DEFAULT_TAXONOMY.event_types]}
    for parameter in document["paths"]["/v1/bars"]["get"]["parameters"]:
        if parameter["name"] == "symbol":
            parameter["schema"] = {"enum": ["SPY", "SYN01"]}
    assert isinstance(replica.adapters, Path)
    versions = [path.name for path in (replica.adapters / "versions").iterdir()]
    (version,) = document["paths"]["/v1/adapters/{version}"]["get"]["parameters"]
    version["schema"] = {"enum": [*versions, "000009-0123456789ab"]}
    fields = schemas["ForecastRequest"]["properties"]
    fields["horizon"]["maximum"] = MOST_HORIZON
    fields["paths"]["maximum"] = MOST_ROWS
    fields["temperature"] = {"anyOf": [{"const": 0}, {"type": "number", "minimum": 0.01, "maximum": 5}]}
    fields["deadline_ms"] = {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_MILLISECONDS}
    return document


@st.composite
def candles(draw: st.DrawFn, asset_class: str) -> list[dict[str, Any]]:
    """Enough bars up to the market's last day, no session left out; from constant to wild."""
    days = sessions(asset_class, date(2022, 1, 3), LAST_DAY).dates[-draw(st.integers(64, MOST_BARS)) :]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = draw(st.sampled_from([0.0, 1e-9, 0.01, 0.3])) * rng.normal(size=(len(days), 4))
    prices = draw(st.sampled_from([1e-9, 1.0, 417.3, 1e6])) * np.exp(steps.cumsum(0))
    volumes = draw(st.sampled_from([0.0, 1.0, 1e15])) * rng.random(len(days))
    amount = draw(st.none() | st.floats(0, 1e24))
    return [
        {
            "ts": str(day),
            "open": four[1],
            "high": max(four),
            "low": min(four),
            "close": four[2],
            "volume": volume,
            "amount": amount,
        }
        for day, four, volume in zip(days, prices.tolist(), volumes.tolist(), strict=True)
    ]


@st.composite
def fitting(draw: st.DrawFn, body: dict[str, Any]) -> dict[str, Any]:
    """The body with series that there are, a calendar that reaches, and a what-if about it where the horizon
    leaves room; all else as it was generated, but for 1.0, which JSON Schema takes for an integer.
    """
    body = {
        name: int(value) if name in WHOLE and value is not None else value for name, value in body.items()
    }
    asset_class = draw(st.sampled_from(ASSET_CLASSES))
    inline = st.fixed_dictionaries(
        {"symbol": st.just("x"), "asset_class": st.just(asset_class), "candles": candles(asset_class)}
    )
    looked_up: SearchStrategy[dict[str, Any]] = st.just({"symbol": "SPY"})
    one = inline | looked_up if asset_class == "us_equity" else inline
    paths = body.get("paths", MOST_ROWS)
    series = draw(st.lists(one, min_size=1, max_size=MOST_ROWS // paths))
    future = sessions(asset_class, date(2022, 12, 31), date(2023, 1, 31))
    tomorrow = str(future.dates[0])
    event = {
        "event_id": "a",
        "event_type": draw(st.sampled_from([*DEFAULT_TAXONOMY.event_types])),
        "impact": draw(st.sampled_from(["high", "medium", "low"])),
        "release_at": f"{np.datetime_as_string(future.opens[0], unit='s')}Z",
    }
    z = st.floats(-5, 5)
    surprise = {"date": tomorrow, "event_type": event["event_type"], "z": draw(z)}
    move = {"date": tomorrow, "leader": draw(st.sampled_from(DEFAULT_TAXONOMY.leaders)), "z": draw(z)}
    scenario = draw(st.none() | st.just({"surprises": [surprise], "leaders": [move]}))
    return {
        **body,
        "series": series,
        "paths": paths,
        "quantiles": [*dict.fromkeys(body.get("quantiles", [0.1, 0.9]))],
        "calendar": {"events": [event], "complete_until": "2023-03-01"},
        "scenario": scenario if body["horizon"] == MOST_HORIZON else None,
    }


@st.composite
def case_of(draw: st.DrawFn, operation: Any, mode: GenerationMode) -> Any:
    """A case as schemathesis generates it; three in four of the proper forecasts made to fit the market."""
    case = draw(operation.as_strategy(mode))
    is_proper = mode is GenerationMode.POSITIVE and operation.path == "/v1/forecast"
    if is_proper and draw(st.sampled_from([True, True, True, False])):
        case.body = draw(fitting(case.body))
    return case


def judge(asked: Any, answer: dict[str, Any]) -> None:
    """Every series has finite, possible candles for each bar asked for, and quantiles in their order."""
    assert len(answer["series"]) == len(asked["series"])
    for series in answer["series"]:
        assert len(set(series["dates"])) == len(series["dates"]) == asked["horizon"]
        assert series["dates"] == sorted(series["dates"])
        forecasts = [series["mean"], *series["quantiles"].values()]
        for columns in forecasts:
            assert {len(column) for column in columns.values()} == {asked["horizon"]}
            assert all(math.isfinite(number) for column in columns.values() for number in column)
        by_level = {float(level): columns for level, columns in series["quantiles"].items()}
        levels = sorted(by_level)
        assert levels == sorted(set(map(float, asked.get("quantiles", DEFAULT_QUANTILES))))
        for lower, upper in itertools.pairwise(by_level[level] for level in levels):
            assert all(np.all(np.array(lower[name]) <= upper[name]) for name in lower)
        judge_candles(series["mean"])
        assert (series["paths"] is not None) == asked.get("return_paths", False)
        if series["paths"] is not None:
            judge_candles(series["paths"])


def judge_candles(columns: dict[str, Any]) -> None:
    opens, highs, lows, closes, volumes = (
        np.array(columns[name]) for name in ("open", "high", "low", "close", "volume")
    )
    assert np.isfinite(opens + highs + lows + closes + volumes).all()
    assert (lows > 0).all()
    assert (lows <= np.minimum(opens, closes)).all()
    assert (highs >= np.maximum(opens, closes)).all()
    assert (volumes >= 0).all()


def test_no_request_that_can_be_made_from_the_document_breaks_the_server(replica: Replica) -> None:
    document = schemathesis.openapi.from_dict(described(replica))
    operations = [one.ok() for one in document.get_all_operations() if isinstance(one, Ok)]
    with_input = [one for one in operations if one.body or one.query or one.path_parameters]
    assert {one.path for one in with_input} == {
        *("/v1/forecast", "/v1/adapters/pin", "/v1/adapters/rollback"),
        *("/v1/symbols", "/v1/bars", "/v1/adapters/{version}"),
    }
    conformance: Any = CHECKS.get_by_names(
        ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    seen: Counter[tuple[str, int]] = Counter()
    session = requests.Session()

    def send(case: "schemathesis.Case[Any]", key: str) -> None:
        answer = case.call(base_url=replica.url, headers=dict(KEYS[key]), session=session)
        assert answer.request.headers.get("Authorization") == KEYS[key].get("Authorization")
        seen[case.path, answer.status_code] += 1
        expected = allowed(case.path, key)
        assert not expected or answer.status_code in expected, (key, case.as_curl_command(), answer.text)
        # 503 and 504 have their meaning; the document says on which routes.
        assert answer.status_code not in (500, 502), (case.as_curl_command(), answer.text)
        case.validate_response(answer, checks=conformance)
        if case.path == "/v1/forecast" and answer.status_code == 200:
            judge(case.body, answer.json())

    share = CASES // (2 * len([one for one in with_input if one.body]))
    for operation in operations:
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            if mode is GenerationMode.NEGATIVE and operation not in with_input:
                continue
            most = share if operation.body else CASES // 20 if operation in with_input else 5

            @settings(
                max_examples=most, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @given(case=case_of(operation, mode), key=key_for(operation.path))
            def fuzz(case: "schemathesis.Case[Any]", key: str) -> None:
                send(case, key)

            fuzz()
    print(sum(seen.values()), "requests:", dict(sorted(seen.items())))  # noqa: T201
    assert sum(seen.values()) >= CASES
    assert {status for path, status in seen if path == "/v1/forecast"} >= {200, 401, 422}
    forecasts = sum(count for (path, _), count in seen.items() if path == "/v1/forecast")
    assert seen["/v1/forecast", 200] >= forecasts / 5
    assert {status for path, status in seen if path == "/v1/adapters/pin"} >= {200, 401, 409, 422}
    assert {status for path, status in seen if path == "/v1/bars"} >= {200, 401, 422}
    assert {status for path, status in seen if path == "/v1/adapters/{version}"} >= {200, 401, 404}
    assert replica.is_ready()


OUTSIDE = [
    "../versions",
    "..",
    "/etc/passwd",
    "%2e%2e%2fversions",
    "..%2F..%2Fetc%2Fpasswd",
    "000001-0123456789ab/../../secret",
    "000001-0123456789ab\x00",
    "000001-0123456789ab\n",
    "000001-0123456789AB",
    "C:\\secret",
    "",
]


@pytest.mark.parametrize("action", ["pin", "rollback"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_store(replica: Replica, action: str, name: str) -> None:
    before = replica.model()["serving"]
    answer = replica.admin(action, version=name)
    assert answer.status_code == 422
    assert answer.json()["error"]["fields"][0]["field"] == "version"
    assert replica.model()["serving"] == before


def test_a_version_that_is_a_link_out_of_the_store_is_never_followed(
    replica: Replica, adapter_of: Callable[[int], Path], tmp_path: Path
) -> None:
    """The link leads to a whole adapter, whose manifest even has the digest of the name."""
    elsewhere = tmp_path / "elsewhere"
    pointer = publish(adapter_of(3), elsewhere, keep=9)
    assert isinstance(replica.adapters, Path)
    link = replica.adapters / "versions" / pointer.version.replace("000001", "000099")
    link.symlink_to(elsewhere / "versions" / pointer.version, target_is_directory=True)
    before: Any = replica.model()["serving"]
    try:
        assert replica.admin("pin", version=link.name).status_code == 409
        assert replica.model()["serving"] == before
    finally:
        link.unlink()

"""Whatever is sent to a route that the OpenAPI document names: the answer is one that it names too."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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

from kronos_shared.adapter_store import publish

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

CASES = 500 * int(os.environ.get("SOAK", "1"))
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
        settings={"max_rows": "4", "max_horizon": "2"},
    )
    with running(replica):
        yield replica


def allowed(path: str, key: str) -> set[int]:
    """What the key alone decides: an empty set means that the rest of the request does."""
    if path in PUBLIC:
        return set()
    if key in ("none", "unknown"):
        return {401}
    may = {"/v1/forecast": {"forecasts"}, "/v1/model": {"forecasts", "admin"}}.get(path, {"admin"})
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
    schemas["ForecastRequest"]["properties"]["horizon"]["maximum"] = 2
    schemas["ForecastRequest"]["properties"]["paths"]["maximum"] = 4
    return document


def test_no_request_that_can_be_made_from_the_document_breaks_the_server(replica: Replica) -> None:
    document = schemathesis.openapi.from_dict(described(replica))
    operations = [one.ok() for one in document.get_all_operations() if isinstance(one, Ok)]
    with_input = [one for one in operations if one.body]
    assert {one.path for one in with_input} == {"/v1/forecast", "/v1/adapters/pin", "/v1/adapters/rollback"}
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

    share = CASES // (2 * len(with_input))
    for operation in operations:
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue
            most = share if operation.body else 5

            @settings(
                max_examples=most, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @given(case=operation.as_strategy(mode), key=key_for(operation.path))
            def fuzz(case: "schemathesis.Case[Any]", key: str) -> None:
                send(case, key)

            fuzz()
    print(sum(seen.values()), "requests:", dict(sorted(seen.items())))  # noqa: T201
    assert sum(seen.values()) >= CASES
    assert {status for path, status in seen if path == "/v1/forecast"} >= {200, 401, 422}
    assert {status for path, status in seen if path == "/v1/adapters/pin"} >= {200, 401, 409, 422}
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
    link = replica.adapters / "versions" / pointer.version.replace("000001", "000099")
    link.symlink_to(elsewhere / "versions" / pointer.version, target_is_directory=True)
    before: Any = replica.model()["serving"]
    try:
        assert replica.admin("pin", version=link.name).status_code == 409
        assert replica.model()["serving"] == before
    finally:
        link.unlink()

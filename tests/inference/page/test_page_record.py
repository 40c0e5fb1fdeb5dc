"""The panel of the track record, and the API's description."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from replica import API_KEY, Replica, running

from kronos_shared.adapter_store import published

pytestmark = pytest.mark.ui

Serious = Callable[[Page], list[str]]
Visit = Callable[..., Page]


def mean(value: float, spread: float | None = None) -> dict[str, Any]:
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return {"mean": value, "low": low, "high": high, "dates": 60}


def group(by: str, name: str, steps: str, targets: int) -> dict[str, Any]:
    """As `scorecard` writes it; test_http_page holds the reader against the writer."""
    return {
        **{"by": by, "group": name, "steps": steps, "targets": targets, "dates": 60},
        **{"crps": mean(0.0084, 0.001), "over_walk": mean(0.0005), "over_base": None},
        **{"inside_50": mean(0.512, 0.02), "inside_80": mean(0.81), "inside_90": mean(0.887, 0.01)},
    }


def scorecard(version: str, *, targets: int = 240) -> dict[str, Any]:
    covered = {"version": version, "steps": "1", "low": 0.85, "high": 0.95, "targets": 240, "dates": 60}
    return {
        **{"targets": 2400, "pending": 12, "unknown": 0, "days": 90},
        "snapshot": {"name": "desk", "sha256": "0" * 64},
        "coverage": [
            covered | {"interval": "90", "share": 0.887},
            covered | {"interval": "80", "share": 0.6},
        ],
        "versions": [
            {
                **{"version": version, "digest": "0" * 64, "first": "2026-08-03", "last": "2026-10-30"},
                **{"symbols": 4, "pit": [24, 24, 24, 24, 24, 24, 24, 24, 24, 24]},
                "groups": [group("all", "all", "1", targets), group("day", "event", "1", 12)],
            }
        ],
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "scorecard.json"


@pytest.fixture(scope="module")
def service(
    replica_in: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory, file: Path
) -> Iterator[Replica]:
    """A service with a track record in `file`."""
    replica = replica_in(tmp_path_factory.mktemp("scored"), scorecard=file)
    with running(replica):
        yield replica


def test_the_record_of_the_version_that_serves_is_shown(
    service: Replica, file: Path, visit: Visit, serious: Serious
) -> None:
    file.write_text(json.dumps(scorecard(published(service.adapters)[-1])))
    page = visit(service.url, key=API_KEY)
    record = page.locator("#record")
    expect(record.locator(".headline")).to_have_text(
        "From 3 August 2026 to 30 October 2026, 88.7 % of 240 outcomes of the first bar fell inside the 90 % "
        "band."
    )
    scores = record.get_by_role("region", name="Scores").locator("tbody tr")
    assert scores.first.locator("th, td").all_inner_texts() == [
        *("All", "first bar", "240", "0.84 (0.74 to 0.94)", "0.05", "–"),
        *("51.2 (49.2 to 53.2)", "81.0", "88.7 (87.7 to 89.7)"),
    ]
    expect(scores.nth(1)).to_have_class("is-aside")  # 12 targets
    coverage = record.get_by_role("region", name="Coverage").locator("tbody tr")
    verdicts = [row.locator("td").all_inner_texts()[-1] for row in coverage.all()]
    assert verdicts == ["pass", "fail"]
    tenths = record.get_by_role("img", name="Percent of outcomes by tenths")
    expect(tenths).to_have_attribute(
        "aria-label", f"Percent of outcomes by tenths of the forecast: {', '.join(['10'] * 10)}"
    )
    expect(record).to_contain_text("2,400 forecasts scored, 12 wait for their bar.")
    assert serious(page) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (scorecard("base", targets=29), "too few forecasts have come to say how good they were"),
        (
            scorecard("000007-0123456789ab"),
            "The version that serves has none yet; this is 000007-0123456789ab.",
        ),
        ({"versions": []}, "No track record: the file is not a scorecard.json"),
    ],
)
def test_no_more_is_claimed_than_there_is(
    service: Replica, file: Path, visit: Visit, content: Any, said: str
) -> None:
    file.write_text(json.dumps(content))
    page = visit(service.url, key=API_KEY)
    expect(page.locator("#record")).to_contain_text(said)


def test_without_a_scorecard_there_is_no_panel(demo: str, visit: Visit) -> None:
    page = visit(demo)
    expect(page.get_by_role("heading", name="Versions")).to_be_visible()
    expect(page.get_by_role("heading", name="Track record")).to_be_hidden()


def test_the_api_is_described_without_a_network_or_a_field_for_a_key(
    demo: str, visit: Visit, serious: Serious
) -> None:
    """`visit` fails for any request to elsewhere."""
    page = visit(demo, path="/docs", fragment="#post/v1/forecast", waits=False)
    page.locator("#ForecastRequest").wait_for()
    document = httpx.get(f"{demo}/openapi.json", trust_env=False).json()
    named = {text.split(" ", 1)[1] for text in page.locator("nav a").all_inner_texts()}
    assert named == set(document["paths"])
    cards = set(page.locator("main > section > h2").all_inner_texts())
    assert set(document["components"]["schemas"]) <= cards
    expect(page.locator("[id='post/v1/forecast']")).to_be_in_viewport()
    horizon = page.locator("#ForecastRequest tr", has=page.get_by_text("horizon", exact=True))
    expect(horizon).to_contain_text("from 1. Bars to forecast.")
    assert page.locator("input, button").count() == 0
    assert serious(page) == []

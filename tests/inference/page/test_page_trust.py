"""The panel of trust: what the manifest of the served version says, and what it does not hold."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from replica import API_KEY, Replica, running

from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_manifest import MANIFEST, MODEL_CARD, file_record
from kronos_shared.adapter_store import latest_version, publish

pytestmark = pytest.mark.ui

Visit = Callable[..., Page]
MARKUP = "<img src=x onerror=window.hacked=1>"
CARD = f"""---
library_name: peft
---
# A card {MARKUP}

<script>window.hacked = 1</script> is *text* with `code <b>`.

- one {MARKUP}
- two, which goes
  on

| name | figure |
| --- | --- |
| {MARKUP} | 1 |
"""


@pytest.fixture(scope="module")
def service(
    replica_in: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A service whose store the tests of this module publish into."""
    replica = replica_in(tmp_path_factory.mktemp("trusted"))
    with running(replica):
        yield replica


@pytest.fixture
def serve_changed(service: Replica, tmp_path: Path) -> Callable[..., None]:
    """Publishes the packaged adapter with another card, metrics or data, and waits until it serves."""

    def publish_and_wait(
        *, card: str = "# Card\n", data: Mapping[str, Any] | None = None, **changes: Any
    ) -> None:
        packaged = latest_version(SAMPLE_ADAPTERS)
        assert packaged is not None
        adapter = tmp_path / "changed"
        shutil.copytree(packaged, adapter)
        (adapter / MODEL_CARD).write_text(card)
        manifest = json.loads((packaged / MANIFEST).read_text()) | changes
        manifest["files"][MODEL_CARD] = file_record(card.encode()).model_dump()
        manifest["data"] |= data or {}
        (adapter / MANIFEST).write_text(json.dumps(manifest))
        service.wait_for(publish(adapter, service.adapters, keep=99).version)

    return publish_and_wait


def cells(row: Locator) -> list[str]:
    """The texts of a row, with plain blanks."""
    return [text.replace("\xa0", " ").strip() for text in row.locator("th, td").all_inner_texts()]


def metrics(**gains: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with these gains only."""
    return {"val": {}, "gains": gains}


def gain(nats: float, *, dates: int = 25) -> dict[str, Any]:
    """A gain whose interval is half as wide as it is large."""
    share = {"low": 0.75 * nats, "high": 1.25 * nats, "percent": 10 * nats}
    return {"nats": nats, "targets": 30 * dates, "dates": dates, **share}


def test_the_figures_are_the_manifests_and_what_it_does_not_hold_is_said(demo: str, visit: Visit) -> None:
    page = visit(demo)
    trust = page.locator("#trust")
    expect(trust.locator(".headline")).to_have_text(
        "In validation, on 25 event dates, its loss is 14.6 % lower than the same training's without events. "
        "No look-ahead was found."
    )
    rows = [cells(row) for row in trust.locator("tbody tr").all()]
    assert rows[0] == ["Event days", "+14.6 %", "+12.9 % to +16.1 %", "25"]
    assert rows[1] == ["Rates, CPI, payrolls", "+14.8 %", "too few dates", "19"]
    assert rows[2] == ["Non-event days", "+10.5 %", "+9.5 % to +11.5 %", "97"]
    names = trust.locator("dt").all_inner_texts()
    facts = dict(zip(names, trust.locator("dd").all_inner_texts(), strict=True))
    assert facts["Look-ahead audit"] == "pass: 0 findings in 10 checks"
    assert facts["Trained on"] == "1 January 2021 to 31 December 2024"
    assert facts["Walk-forward"] == "not recorded"
    assert facts["Coverage, PIT"].startswith("not recorded in a manifest")
    expect(trust).to_contain_text("Placebo (events on wrong dates): not recorded")
    trust.get_by_text("Model card").click()
    expect(trust.locator(".prose table")).to_have_count(3)
    expect(trust.locator(".prose")).to_contain_text("SYNTHETIC: this is the embedded sample market")


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        (metrics(), "Whether events help is not recorded"),
        (
            metrics(adapter_event=gain(1.0, dates=12)),
            "12 event dates are too few to say",
        ),
        (
            metrics(adapter_event=gain(-1.0)),
            "its loss is 10.0 % higher than the same training's",
        ),
        (metrics(adapter_event=gain(0.1) | {"low": -0.1}), "no difference that can be told from chance."),
    ],
)
def test_no_more_is_claimed_than_the_figures_allow(
    service: Replica, serve_changed: Callable[..., None], visit: Visit, found: dict[str, Any], headline: str
) -> None:
    serve_changed(metrics=found)
    page = visit(service.url, key=API_KEY)
    expect(page.locator("#trust .headline")).to_contain_text(headline)


def test_a_walk_forward_comes_first_with_its_placebo(
    service: Replica, serve_changed: Callable[..., None], visit: Visit
) -> None:
    rows = [
        {"model": model, "over": "control", "by": "day", "group": group, "gain": gain(nats, dates=60)}
        for model, group, nats in (
            *(("adapter", "event", 0.8), ("adapter", "quiet", 0.2)),
            ("placebo", "event", 0.01),
        )
    ]
    walked = {"gains": rows, "folds": ["2023-01-01", "2024-01-01", "2024-12-31"], "seeds": [0, 1, 2]}
    serve_changed(metrics={"walk_forward": walked})
    page = visit(service.url, key=API_KEY)
    trust = page.locator("#trust")
    expect(trust.locator(".headline")).to_contain_text(
        "Over several periods, on 60 event dates, its loss is 8.0"
    )
    table = trust.get_by_role("region", name="Walk-forward")
    expect(table).to_contain_text("Walk-forward, 2 periods, 3 seeds")
    placebo = cells(table.locator("tr.is-placebo").first)
    assert placebo == ["Placebo, event days", "+0.1 %", "+0.1 % to +0.1 %", "60"]


def test_names_and_cards_with_markup_are_text(
    service: Replica, serve_changed: Callable[..., None], visit: Visit
) -> None:
    serve_changed(card=CARD, data={"snapshot": MARKUP}, created_at=MARKUP)
    page = visit(service.url, key=API_KEY)
    trust = page.locator("#trust")
    expect(trust).to_contain_text(MARKUP)
    trust.get_by_text("Model card").click()
    prose = trust.locator(".prose")
    expect(prose.locator("h3")).to_have_text(f"A card {MARKUP}")
    expect(prose.locator("p").first).to_have_text(
        "<script>window.hacked = 1</script> is *text* with code <b>."
    )
    expect(prose.locator("li")).to_have_text([f"one {MARKUP}", "two, which goes on"])
    expect(prose.locator("td").first).to_have_text(MARKUP)
    assert page.locator("#trust img, #trust script, #trust b, #versions img").count() == 0
    assert page.evaluate("window.hacked") is None

"""A report in a real browser: nothing fetched, no error, no overflow on a phone, numbers on hover, paper."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import a_run, gain
from playwright.sync_api import expect

from kronos_service.finetune.event_conditioned.report.document import render

WIDTHS = (320, 390, 768, 1280, 1920)
pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with curves, families and criteria, and a name that is markup."""
    epochs = [
        {"epoch": epoch, "train/fixed_loss": 5.0, "val/event_total": 6.0, "val/quiet_total": 4.0}
        for epoch in range(3)
    ]
    run = a_run(gain())
    losses = {
        model: {
            group: {"s1": 4.0, "s2": 1.0, "total": 5.0, "targets": 600} for group in ("event", "quiet", "all")
        }
        for model in ("base", "adapter", "control")
    }
    assert run.results is not None
    results = dict(run.results) | {
        "val": losses,
        "family_gains": {"control": {"cpi": gain(), "core_cpi": gain()}},
    }
    path = tmp_path_factory.mktemp("page") / "report.html"
    made = replace(
        run,
        config={"snapshot": "<img src=x onerror=alert(1)>", "note": "w" * 300},
        results=results,
        manifest=None,
        epochs={"adapter": epochs, "control": epochs},
        criteria=[{"name": "n", "wanted": "w", "figure": 1, "detail": "d", "verdict": "pass"}],
    )
    path.write_text(render(made), encoding="utf-8")
    return path


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, page_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "request", lambda asked: None if asked.url == page_path.as_uri() else problems.append(asked.url)
    )
    opened.goto(page_path.as_uri())
    yield opened
    assert problems == []
    context.close()


def test_no_width_makes_the_page_scroll_sideways(page: Any) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_verdict_and_the_command_are_on_the_first_screen_of_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name in (".headline", ".sentence"):
        box = page.locator(name).bounding_box()
        assert box["y"] + box["height"] < 844


def test_a_curve_shows_its_numbers_where_it_is_pointed_at(page: Any) -> None:
    tip = page.locator(".tip")
    assert not tip.is_visible()
    hit = page.locator("#learning .hit").nth(1)
    hit.scroll_into_view_if_needed()
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    hit.hover()  # after the scrolling, which hides it
    expect(tip).to_have_text("epoch 1: adapter 5.0000, control 5.0000, base 5.0000")
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    page.locator("h1").hover()
    expect(tip).to_be_hidden()


def test_the_command_is_copied(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("button.copy")
    button.click()
    expect(button).to_have_text(re.compile("^(Copied|Selected)$"))  # once the clipboard has answered
    command = page.locator(".command code").inner_text()
    copied = page.evaluate("() => getSelection().toString() || navigator.clipboard.readText()")
    assert copied == command


def test_paper_is_white_and_holds_what_was_folded(page: Any) -> None:
    folded = page.locator("details")
    assert not folded.first.evaluate("part => part.open")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(folded.evaluate_all("parts => parts.map(part => part.open)"))
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(json.loads(f"[{ink[4:-1]}]")) < 64, "dark on white, whatever the screen"
    assert not page.locator("nav").is_visible()

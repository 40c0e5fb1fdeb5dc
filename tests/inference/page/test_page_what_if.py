"""The what-if: sliders move the fan as the sample market's law says, and the fan without them stays.

The law: an equity's bar after a release drifts up by one sigma per unit of surprise (docs/sample-market.md).
"""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from looking import CPI_DAY, CPI_SLIDER, PAST, coloured, slide, table, wait_for_forecast, wait_for_what_if
from playwright.sync_api import Page, expect
from replica import API_KEY, Replica, running

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import OWN_TAXONOMY, own_events
from kronos_service.events.taxonomy import read_taxonomy
from kronos_shared.adapter_store import publish

pytestmark = pytest.mark.ui

Visit = Callable[..., Page]

VERMILION = (184, 77, 0)


@pytest.mark.parametrize("z", [3, -3])
def test_cpi_moves_the_bar_after_it_and_none_before(demo: str, visit: Visit, z: int) -> None:
    page = visit(demo, fragment=PAST)
    before = {row.bar: row.median("Adapter") for row in table(page)}
    slide(page, CPI_SLIDER, z)
    wait_for_what_if(page)
    rows = {row.bar: row for row in table(page)}
    moved = {bar: row.median("What if") - row.median("Adapter") for bar, row in rows.items()}
    assert moved["Mon 23 Jun"] * z > 0
    assert [bar for bar, move in moved.items() if move] == ["Mon 23 Jun"]
    assert {bar: row.median("Adapter") for bar, row in rows.items()} == before
    asked = {
        "series": [{"symbol": "SPY", "as_of": "2025-06-06"}],
        "horizon": 10,
        "paths": 64,
        "quantiles": [0.5],
        "scenario": {"surprises": [{"date": CPI_DAY, "event_type": "cpi", "z": z}]},
    }
    told = httpx.post(f"{demo}/v1/forecast", json=asked, trust_env=False).json()["series"][0]
    shown = [row.median("What if") for row in rows.values()]
    assert shown == [round(close, 2) for close in told["quantiles"]["0.5"]["close"]]


def test_forecast_without_it_stays_as_a_ghost_until_reset(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    adapter = page.locator("#legend").get_by_role("button", name="Adapter")
    what_if = page.locator("#legend").get_by_role("button", name="What if")
    expect(what_if).to_be_hidden()
    slide(page, CPI_SLIDER, 2)
    wait_for_what_if(page)
    expect(what_if).to_be_visible()
    expect(adapter).to_have_class("legend-item is-ghost")
    assert coloured(page, VERMILION) > 0
    # the ghost alone: its lines are still there
    what_if.click()
    page.locator("#legend").get_by_role("button", name="Base").click()
    assert coloured(page, VERMILION) == 0 < coloured(page, (0, 114, 178))
    page.get_by_role("button", name="Reset").click()
    expect(what_if).to_be_hidden()
    expect(adapter).to_have_class("legend-item")
    expect(page.locator(CPI_SLIDER)).to_have_value("0")
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()
    page.wait_for_url("**as_of=2025-06-06&horizon=10")


def test_last_value_of_a_moving_slider_is_what_is_shown(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    ended: list[str | None] = []
    page.on("requestfailed", lambda request: ended.append(request.failure))
    field = page.locator(CPI_SLIDER)
    for z in (1, 2, 3, -3):
        field.fill(str(z))
        page.wait_for_timeout(60)  # longer than the slider rests, shorter than an answer takes
    expect(page.locator("#what-if-line")).to_contain_text("by −")
    assert ended
    assert set(ended) == {"net::ERR_ABORTED"}
    sent = httpx.get(f"{demo}/metrics", trust_env=False).text
    assert 'kronos_requests_total{route="/v1/forecast",status="499"}' in sent


def test_leaders_move_on_a_bar_of_choice_on_which_they_trade(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment="#symbol=BTCUSDT&as_of=2025-06-05&horizon=6")
    day = page.get_by_label("Bar on which the leaders move")
    expect(page.locator("#move-SPY")).to_be_enabled()
    slide(page, "#move-SPY", 2)
    page.locator("#move-BTCUSDT").fill("1")
    wait_for_what_if(page)
    page.wait_for_url("**move=SPY@2025-06-06:2&move=BTCUSDT@2025-06-06:1")
    day.select_option(label="Sat 7 Jun")
    expect(page.locator("#move-SPY")).to_be_disabled()
    expect(page.locator("#sliders")).to_contain_text("does not trade on this bar")
    page.wait_for_url("**horizon=6&move=BTCUSDT@2025-06-07:1")
    wait_for_what_if(page)


def test_the_leaders_are_those_of_the_taxonomy(
    adapter_of: Callable[..., Path], base_path: Path, visit: Visit, tmp_path: Path
) -> None:
    write_sample(tmp_path / "market", symbols=2, world=own_events())
    publish(adapter_of(1, taxonomy=read_taxonomy(OWN_TAXONOMY)), tmp_path / "adapters", keep=1)
    replica = Replica(
        adapters=tmp_path / "adapters",
        directory=tmp_path / "replica",
        base=str(base_path),
        snapshot=tmp_path / "market",
    )
    with running(replica):
        page = visit(replica.url, key=API_KEY, fragment="#symbol=SYN01&as_of=2025-06-05&horizon=6")
        expect(page.locator("#move-QQQ")).to_be_enabled()
        moves = page.locator("#sliders input[id^=move-]")
        assert moves.evaluate_all("all => all.map(one => one.id)") == ["move-QQQ", "move-GLD"]
        slide(page, "#move-QQQ", 2)
        wait_for_what_if(page)
        page.close()  # it would ask on while the service stops


def test_horizon_of_one_bar_has_nothing_that_could_react(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST.replace("horizon=10", "horizon=2"))
    expect(page.locator("#sliders")).to_contain_text("On the last bar: no later bar could react.")
    assert page.locator("#sliders input[id^=if]").count() == 0
    page.get_by_label("Horizon, bars").fill("1")
    page.get_by_label("Horizon, bars").press("Enter")
    expect(page.locator("#forecast-title")).to_contain_text("1 bar after")
    wait_for_forecast(page)
    expect(page.locator("#sliders")).to_contain_text("A horizon of 2 bars or more")
    assert page.locator("#sliders input").count() == 0


def test_shorter_horizon_drops_what_lies_beyond_it(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=f"{PAST}&if=cpi@{CPI_DAY}:2&move=DXY@2025-06-09:1")
    wait_for_what_if(page)
    page.get_by_label("Horizon, bars").fill("5")
    page.get_by_label("Horizon, bars").press("Enter")
    expect(page.locator("#notice")).to_contain_text("Left out of the what-if")
    expect(page.locator("#notice")).to_contain_text("CPI on 20 Jun")
    page.wait_for_url("**horizon=5&move=DXY@2025-06-09:1")
    wait_for_what_if(page)

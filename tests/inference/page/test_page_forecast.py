"""The fan on the page: what it shows is what the service says, found by search, date, horizon and link."""

from collections.abc import Callable, Iterator
from datetime import date

import httpx
import pandas as pd
import pytest
from looking import PAST, choose_symbol, coloured, table, wait_for_forecast
from playwright.sync_api import Locator, Page, expect
from replica import API_KEY, Replica, running

from kronos_service.data.sample import make_market
from kronos_service.data.snapshot.write import write_snapshot

pytestmark = pytest.mark.ui

Visit = Callable[..., Page]

BLUE = (0, 114, 178)
MARKUP = "<img src=x onerror=alert(1)>"
WINDOW = (date(2024, 1, 2), date(2025, 3, 31))


def test_the_page_shows_what_the_service_answers(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    question = {
        "series": [{"symbol": "SPY", "as_of": "2025-06-06"}],
        "horizon": 10,
        "paths": 64,
        "quantiles": [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95],
    }
    for name, model in (("Base", "base"), ("Adapter", "adapter")):
        answer = httpx.post(f"{demo}/v1/forecast", json=question | {"model": model}, trust_env=False).json()
        told = answer["series"][0]
        rows = table(page)
        assert [row.median(name) for row in rows] == [round(x, 2) for x in told["quantiles"]["0.5"]["close"]]
        widths = [high - low for low, high in zip(told["moves"]["0.05"], told["moves"]["0.95"], strict=True)]
        assert [row.forecasts[name][3] for row in rows] == [f"{width:.1f} %" for width in widths]
    assert "64 sample paths" in page.inner_text("#chart-help")


def test_past_as_of_shows_what_came_and_what_was_released(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    where = {"symbol": "SPY", "as_of": "2025-06-06"}
    bars = httpx.get(f"{demo}/v1/bars", params=where, trust_env=False).json()
    rows = table(page)
    assert [row.came for row in rows] == [f"{close:.2f}" for close in bars["after"]["close"][:10]]
    releases = {row.bar: row.releases for row in rows if row.releases}
    assert releases["Tue 10 Jun"] == "FOMC rate decision"
    assert releases["Fri 20 Jun"] == "Core CPI, CPI, PPI"
    assert "in the past" in page.inner_text("#provenance")
    page.get_by_role("button", name="Latest").click()
    expect(page.locator("#forecast-title")).to_have_text("SPY: 10 bars after 31 March 2026")
    wait_for_forecast(page)
    assert all(row.came is None for row in table(page))


def test_the_fan_is_drawn_and_can_be_switched_off(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    drawn = coloured(page, BLUE)
    adapter = page.locator("#legend").get_by_role("button", name="Adapter")
    adapter.click()
    assert coloured(page, BLUE) == 0 < drawn
    expect(adapter).to_have_attribute("aria-pressed", "false")
    adapter.click()
    assert coloured(page, BLUE) == drawn


def test_says_which_adapter_and_how_old_the_data_is(demo: str, visit: Visit) -> None:
    page = visit(demo)
    serving = httpx.get(f"{demo}/v1/model", trust_env=False).json()["serving"]
    told = page.inner_text("#provenance")
    assert serving["version"] in told
    assert serving["digest"][:12] in told
    assert "sessions old: a forecast of the past" in told
    expect(page.locator("#synthetic")).to_be_visible()


def test_pointing_at_a_bar_shows_its_numbers(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    page.locator(".range-column").nth(1).hover()
    readout = page.locator("#readout")
    expect(readout).to_contain_text("Tue 10 Jun")
    expect(readout).to_contain_text("FOMC rate decision, 20:00 CEST")
    row = table(page)[1]
    page.locator(".range-column").nth(1).hover()
    for cells in row.forecasts.values():
        expect(readout).to_contain_text(cells[2])
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    expect(readout).to_contain_text("open")


def test_search_date_and_horizon_ask_for_another_forecast(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    title = page.locator("#forecast-title")
    choose_symbol(page, "SYN1")
    expect(title).to_have_text("SYN10: 10 bars after 6 June 2025")
    page.get_by_label("As of", exact=True).fill("2025-03-03")
    expect(title).to_have_text("SYN10: 10 bars after 3 March 2025")
    page.get_by_label("Horizon, bars").fill("64")
    page.get_by_label("Horizon, bars").press("Enter")
    expect(title).to_have_text("SYN10: 64 bars after 3 March 2025", timeout=30_000)
    wait_for_forecast(page)
    assert len(table(page)) == 64
    expect(page.locator(".range-column")).to_have_count(64)
    page.go_back()
    expect(title).to_have_text("SYN10: 10 bars after 3 March 2025")


def test_link_restores_everything_and_holds_no_key(service: Replica, visit: Visit) -> None:
    page = visit(service.url, key=API_KEY, fragment=PAST)
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Seed").press("Enter")
    page.locator("input[id='if|fomc_rate_decision|2025-06-10']").fill("2")
    page.locator("#move-VIX").fill("-1.5")
    expect(page.locator("#what-if-line")).to_contain_text("median close")
    expect(page.locator(".range-what-if")).to_have_count(10)
    page.wait_for_url("**seed=7*fomc_rate_decision@2025-06-10:2*VIX@2025-06-09:-1.5")
    link, numbers = page.url, table(page)
    assert API_KEY not in link
    other = visit(service.url, key=API_KEY, fragment=f"#{link.partition('#')[2]}")
    expect(other.locator(".range-what-if")).to_have_count(10)
    assert table(other) == numbers
    expect(other.get_by_label("Seed")).to_have_value("7")
    expect(other.locator("#move-VIX")).to_have_value("-1.5")


def test_link_that_makes_no_sense_is_read_as_far_as_it_does(demo: str, visit: Visit) -> None:
    page = visit(
        demo, fragment="#symbol=SPY&as_of=2025-13-77&horizon=-3&seed=x&if=cpi&if=cpi@2025-01-01:1&key=k"
    )
    expect(page.locator("#forecast-title")).to_contain_text("SPY: 10 bars")
    expect(page.locator("#notice")).to_contain_text("Left out of the what-if")
    page.wait_for_url("**/ui#symbol=SPY&horizon=10")


def test_symbol_that_there_is_not_is_said_in_words(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment="#symbol=SPX", waits=False, allowed={422})
    expect(page.locator("#notice")).to_contain_text("has no symbol 'SPX': did you mean SPY?")
    choose_symbol(page, "SPY")
    wait_for_forecast(page)
    expect(page.locator("#notice")).to_be_empty()


@pytest.fixture(scope="module")
def crowded(
    replica_in: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A service whose source has 500 more symbols, one whose name is markup, and releases called so."""
    root = tmp_path_factory.mktemp("crowded")
    names = [MARKUP, *(f"ACME{number:03}" for number in range(500))]

    def crowd(table: pd.DataFrame) -> pd.DataFrame:
        one = table[table["symbol"] == "SYN01"]
        return pd.concat([table, *(one.assign(symbol=name) for name in names)], ignore_index=True)

    market = make_market(5, symbols=2, start=WINDOW[0], end=WINDOW[1])
    write_snapshot(
        root / "snapshot",
        symbols=crowd(market.symbols),
        bars=crowd(market.bars),
        calendar=market.calendar.assign(event_name=MARKUP),
        window=WINDOW,
        source="test",
    )
    replica = replica_in(root, snapshot=root / "snapshot")
    with running(replica):
        yield replica


def test_500_symbols_are_searched(crowded: Replica, visit: Visit) -> None:
    page = visit(crowded.url, key=API_KEY)
    field = page.get_by_role("combobox", name="Symbol")
    field.click()
    field.fill("acme")
    expect(page.locator("#symbol-list")).to_contain_text("450 more symbols: type more of the name.")
    field.fill("e49")
    expect(page.locator("#symbol-list li")).to_have_count(10)
    field.press("ArrowDown")
    field.press("Enter")
    expect(page.locator("#forecast-title")).to_contain_text("ACME491")


def test_names_with_markup_are_text(crowded: Replica, visit: Visit) -> None:
    page = visit(crowded.url, key=API_KEY)
    choose_symbol(page, MARKUP)
    expect(page.locator("#forecast-title")).to_contain_text(f"{MARKUP}: 10 bars")
    expect(page.locator("#sliders")).to_contain_text(MARKUP)
    page.locator(".range-column.is-event").first.hover()
    expect(page.locator("#readout")).to_contain_text(MARKUP)
    assert page.locator("img").count() == 1


def tab_to(page: Page, element: Locator) -> None:
    for _ in range(60):
        if element.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail("the Tab key does not get there")


def test_all_is_done_with_the_keyboard(demo: str, visit: Visit) -> None:
    page = visit(demo, fragment=PAST)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the forecast")).to_be_focused()
    tab_to(page, page.get_by_role("combobox", name="Symbol"))
    page.locator("#symbol-list li").first.wait_for()
    page.keyboard.type("syn02")
    page.locator("#symbol-list li[aria-selected=true]", has_text="SYN02").wait_for()
    page.keyboard.press("Enter")
    expect(page.locator("#forecast-title")).to_contain_text("SYN02")
    wait_for_forecast(page)
    tab_to(page, page.locator("#chart"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#spoken")).to_contain_text("Tue 10 Jun; Base: ")
    expect(page.locator("#spoken")).to_contain_text("FOMC rate decision, 20:00 CEST")
    page.keyboard.press("Escape")
    expect(page.locator("#readout")).to_be_hidden()
    slider = page.locator("#sliders input").first
    tab_to(page, slider)
    page.keyboard.press("End")
    expect(page.locator("#what-if-line")).to_contain_text("median close")
    expect(slider).to_have_attribute("aria-valuetext", "plus 3 sigma")

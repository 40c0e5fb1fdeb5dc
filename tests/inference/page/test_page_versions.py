"""The panel of versions, keys, and a service that is busy, not ready or away: what the page makes of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from looking import FIRST_SECONDS, wait_for_forecast
from playwright.sync_api import Locator, Page, expect
from replica import ADMIN_KEY, API_KEY, Replica, running

from kronos_service.data.sample import sample_snapshot_path
from kronos_shared.adapter_store import published

pytestmark = pytest.mark.ui

NewService = Callable[..., Replica]
Serious = Callable[[Page], list[str]]
Visit = Callable[..., Page]

SHOWN_SECONDS: Final = 5
"""Within which the page shows what another has changed."""


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "api.keys"


@pytest.fixture(scope="module")
def service(
    replica_in: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory, keys_file: Path
) -> Iterator[Replica]:
    """A service whose keys are in a file, and which the tests of this module change."""
    keys_file.write_text(f"reader:{API_KEY}\n")
    replica = replica_in(tmp_path_factory.mktemp("changed"), api_keys="", api_keys_file=keys_file)
    with running(replica):
        yield replica


@pytest.fixture
def versions(service: Replica) -> Iterator[tuple[str, str]]:
    """The two versions of the store; the second serves, unpinned, before a test and after it."""
    first, second = published(service.adapters)[:2]
    yield first, second
    service.admin("pin", version=None)
    if service.model()["latest"]["version"] != second:
        service.admin("rollback", version=second)
    service.wait_for(second)


def item(page: Page, version: str) -> Locator:
    return page.locator("#versions li", has_text=version)


def press(button: Locator) -> None:
    """Twice: the first press of what every replica feels only asks."""
    button.click()
    expect(button).to_contain_text("for every replica?")
    button.click()


def shows_soon(page: Page, version: str) -> None:
    """The version that serves stands above the chart and in the list."""
    milliseconds = 1000 * SHOWN_SECONDS
    expect(page.locator("#provenance")).to_contain_text(version, timeout=milliseconds)
    expect(item(page, version).locator(".chip-serves")).to_have_text("serves", timeout=milliseconds)


def test_a_roll_back_elsewhere_shows_within_seconds(
    service: Replica, versions: tuple[str, str], visit: Visit
) -> None:
    first, second = versions
    page = visit(service.url, key=API_KEY)
    shows_soon(page, second)
    service.admin("rollback", version=first)
    shows_soon(page, first)
    expect(item(page, second).locator(".chip")).to_have_text(["SYNTHETIC"])
    expect(page.locator("#trust .headline")).to_contain_text("14.6 % lower")


def test_an_admin_rolls_back_pins_unpins_and_reloads_on_the_page(
    service: Replica, versions: tuple[str, str], visit: Visit
) -> None:
    first, second = versions
    page = visit(service.url, key=API_KEY, admin_key=ADMIN_KEY)
    press(page.get_by_role("button", name="Roll back"))
    shows_soon(page, first)
    assert service.model()["serving"]["version"] == first
    press(item(page, second).locator("button", has_text="Make LATEST"))
    shows_soon(page, second)
    item(page, first).get_by_role("button", name=f"Pin: {first}").click()
    shows_soon(page, first)
    expect(item(page, first).locator(".chip")).to_contain_text(["serves", "pinned"])
    assert service.model()["pinned"] == first
    page.get_by_role("button", name="Follow LATEST again").click()
    shows_soon(page, second)
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#notice")).to_contain_text(f"Reloaded: {second} serves now.")
    assert service.metric('kronos_adapter_outcomes_total{outcome="reloads"}') >= 1


def test_one_press_rolls_nothing_back(service: Replica, versions: tuple[str, str], visit: Visit) -> None:
    page = visit(service.url, key=API_KEY, admin_key=ADMIN_KEY)
    button = page.get_by_role("button", name="Roll back")
    button.click()
    expect(button).to_have_text("Roll back for every replica?")
    expect(button).to_have_text("Roll back", timeout=10_000)
    assert service.model()["serving"]["version"] == versions[1]


def test_the_admin_key_is_asked_for_once_and_stays_in_the_tab(
    service: Replica, versions: tuple[str, str], visit: Visit
) -> None:
    """A key that is not known is asked for again, in the service's words; giving up changes nothing."""
    first, _ = versions
    page = visit(service.url, key=API_KEY, allowed={401, 403})
    pin = item(page, first).get_by_role("button", name=f"Pin: {first}")
    pin.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Admin key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#versions [role=alert]")).to_contain_text("Nothing has changed")
    pin.click()
    dialog.get_by_label("Key").fill("a-key-that-nobody-knows")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("this key is not known")
    dialog.get_by_label("Key").fill(ADMIN_KEY)
    dialog.get_by_role("button", name="Use this key").click()
    shows_soon(page, first)
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Follow LATEST again").click()
    expect(page.get_by_role("button", name="Follow LATEST again")).to_be_hidden()
    kept = page.evaluate("({...sessionStorage})")
    assert (kept["kronos-key-admin"], kept["kronos-key-forecast"]) == (ADMIN_KEY, API_KEY)
    elsewhere = page.evaluate(
        "JSON.stringify([{...localStorage}, document.cookie, location.href, history.state])"
    )
    assert API_KEY not in elsewhere
    assert ADMIN_KEY not in elsewhere
    log = (service.directory / "log").read_text()
    assert API_KEY not in log
    assert ADMIN_KEY not in log


def test_a_key_that_expires_is_asked_for_and_the_page_goes_on(
    service: Replica, keys_file: Path, visit: Visit
) -> None:
    page = visit(service.url, key=API_KEY, allowed={401})
    new = "the-next-key-of-the-reader"
    keys_file.write_text(f"reader:{new}\n")
    try:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("this key is not known", timeout=1000 * FIRST_SECONDS)
        dialog.get_by_label("Key").fill(new)
        dialog.get_by_label("Key").press("Enter")
        expect(dialog).to_be_hidden()
        horizon = page.get_by_label("Horizon")
        horizon.fill("3")
        horizon.press("Enter")
        expect(page.locator("#forecast-title")).to_contain_text("3 bars")
        wait_for_forecast(page)
    finally:
        keys_file.write_text(f"reader:{API_KEY}\n")


def test_a_page_of_a_service_that_restarts_recovers_by_itself(service: Replica, visit: Visit) -> None:
    page = visit(service.url, key=API_KEY, allowed={0, 503})
    notice = page.locator("#notice")
    service.kill()
    expect(notice).to_contain_text("The service does not answer", timeout=1000 * FIRST_SECONDS)
    horizon = page.get_by_label("Horizon")
    horizon.fill("4")
    horizon.press("Enter")
    service.start()
    service.wait_until_ready()
    expect(page.locator("#forecast-title")).to_contain_text("4 bars", timeout=1000 * FIRST_SECONDS)
    wait_for_forecast(page)
    expect(notice).not_to_contain_text("does not answer", timeout=1000 * FIRST_SECONDS)
    expect(page.locator("#versions .chip-serves")).to_have_count(1)


def test_a_service_that_is_busy_says_so_and_is_asked_again(new_service: NewService, visit: Visit) -> None:
    """429: base and adapter are two requests, and this key may ask once in three seconds."""
    service = new_service(key_limits="*=0.34:1")
    page = visit(service.url, key=API_KEY, allowed={429}, waits=False)
    notice = page.locator("#notice")
    expect(notice).to_contain_text("The service is busy", timeout=1000 * FIRST_SECONDS)
    expect(notice).to_contain_text("Trying again in")
    wait_for_forecast(page)
    expect(notice).not_to_contain_text("busy")


def test_a_service_without_data_says_so_until_it_has_some(
    new_service: NewService, visit: Visit, tmp_path: Path
) -> None:
    """503: the source is empty at first."""
    market = tmp_path / "market"
    market.mkdir()
    service = new_service(snapshot=market, refresh_seconds=0.2, waits=False)
    page = visit(service.url, key=API_KEY, allowed={503}, waits=False)
    notice = page.locator("#notice")
    expect(notice).to_contain_text("The service is not ready", timeout=1000 * FIRST_SECONDS)
    expect(notice).to_contain_text("no market data")
    for file in sample_snapshot_path().iterdir():
        (market / file.name).write_bytes(file.read_bytes())
    wait_for_forecast(page)
    expect(notice).not_to_contain_text("not ready")


def test_a_refused_version_is_listed_with_its_reason(
    service: Replica, versions: tuple[str, str], visit: Visit
) -> None:
    first, second = versions
    assert isinstance(service.adapters, Path)
    weights = service.adapters / "versions" / first / "event_emb.safetensors"
    whole = weights.read_bytes()
    service.kill()  # what it has in memory would not be read again
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    service.start()
    service.wait_until_ready()
    try:
        page = visit(service.url, key=API_KEY, admin_key=ADMIN_KEY, allowed={409})
        item(page, first).get_by_role("button", name=f"Pin: {first}").click()
        alert = page.locator("#versions [role=alert]")
        expect(alert).to_contain_text("Nothing has changed: ")
        expect(alert).to_contain_text("event_emb.safetensors is not the file the manifest describes")
        expect(item(page, first)).to_contain_text("Refused: ")
        expect(item(page, first).locator(".chip-bad")).to_have_text("refused")
        shows_soon(page, second)
    finally:
        weights.write_bytes(whole)


INJECT: Final = """() => new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "window.hacked = 1";
    document.body.append(script);
})"""


def test_an_injected_inline_script_does_not_run(demo: str, visit: Visit) -> None:
    page = visit(demo, blocks=True, allowed={404})
    assert page.evaluate(INJECT).startswith("script-src")
    for markup in (
        "<img src=x onerror='window.hacked = 1'>",
        "<a id=go href='javascript:window.hacked = 1'>go</a>",
        "<iframe src='javascript:window.parent.hacked = 1'></iframe>",
    ):
        page.evaluate("markup => document.body.insertAdjacentHTML('beforeend', markup)", markup)
    page.evaluate("document.getElementById('go').click()")
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None


def test_the_panels_have_no_serious_fault_of_accessibility(
    service: Replica, visit: Visit, serious: Serious
) -> None:
    for scheme in ("light", "dark"):
        page = visit(service.url, key=API_KEY, scheme=scheme)
        page.get_by_text("Model card").click()
        assert serious(page) == []


def test_the_panels_can_be_used_with_the_keyboard(
    service: Replica, versions: tuple[str, str], visit: Visit
) -> None:
    """And the keyboard's place survives the list being drawn again."""
    first, _ = versions
    page = visit(service.url, key=API_KEY, admin_key=ADMIN_KEY)
    button = item(page, first).get_by_role("button", name=f"Pin: {first}")
    page.get_by_role("button", name="Reload").focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if button.evaluate("one => one === document.activeElement"):
            break
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    shows_soon(page, first)
    reload = page.get_by_role("button", name="Reload")
    reload.focus()
    service.admin("pin", version=None)
    expect(page.get_by_role("button", name="Follow LATEST again")).to_be_hidden()
    expect(reload).to_be_focused()

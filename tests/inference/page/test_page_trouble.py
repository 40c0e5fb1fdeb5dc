"""What a reader sees while something is wrong: in words, and gone by itself once it is right again."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from looking import PAST, table, wait_for_forecast
from playwright.sync_api import Page, expect
from replica import ADMIN_KEY, API_KEY, Replica

pytestmark = pytest.mark.ui

Visit = Callable[..., Page]
NewService = Callable[..., Replica]

OTHER_KEY = "another-key-of-the-tests"


def give(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_key_is_asked_once_and_again_when_it_is_no_longer_known(
    new_service: NewService, tmp_path: Path, visit: Visit
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"desk:{OTHER_KEY}\n", encoding="utf-8")
    service = new_service(api_keys_file=keys)
    page = visit(service.url, fragment=PAST, waits=False, allowed={401, 403})
    dialog = page.get_by_role("dialog", name="Key to forecast")
    expect(dialog).to_contain_text("This service answers those who have a key.")
    give(page, "no-such-key-at-all-1")
    expect(dialog).to_contain_text("this key is not known")
    give(page, ADMIN_KEY)
    expect(dialog).to_contain_text("expected a key of role forecast, got one of role admin.")
    give(page, OTHER_KEY)
    wait_for_forecast(page)
    assert OTHER_KEY not in page.url
    page.reload()
    wait_for_forecast(page)
    expect(dialog).to_be_hidden()

    keys.write_text("desk:a-new-key-of-the-desk\n", encoding="utf-8")
    expect(dialog).to_contain_text("this key is not known", timeout=10_000)
    give(page, API_KEY)
    page.get_by_label("Seed").fill("3")
    page.get_by_label("Seed").press("Enter")
    expect(page.locator("#forecast")).to_have_attribute("aria-busy", "true")
    wait_for_forecast(page)
    expect(page.locator("#notice")).to_be_empty()


def test_cancelled_key_says_what_to_do(service: Replica, visit: Visit) -> None:
    page = visit(service.url, waits=False, allowed={401})
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#notice")).to_contain_text("No key was given. Reload the page to enter one.")


def test_service_that_restarts_is_waited_for(new_service: NewService, visit: Visit) -> None:
    service = new_service()
    page = visit(service.url, key=API_KEY, fragment=PAST, allowed={0, 503})
    before = table(page)
    service.kill()
    notice = page.locator("#notice")
    expect(notice).to_contain_text("The service does not answer. Trying again in", timeout=10_000)
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Seed").press("Enter")
    service.start()
    service.wait_until_ready()
    expect(page.locator("#forecast")).to_have_attribute("aria-busy", "false", timeout=20_000)
    expect(notice).to_be_empty()
    after = table(page)
    assert [row.bar for row in after] == [row.bar for row in before]
    assert after != before


def test_busy_service_is_named_and_asked_again(new_service: NewService, visit: Visit) -> None:
    # one request in four seconds: of base and adapter, which go out together, one is turned away
    service = new_service(key_limits="api-1=0.25:1")
    page = visit(service.url, key=API_KEY, fragment=PAST, waits=False, allowed={429})
    expect(page.locator("#notice")).to_contain_text("The service is busy: ")
    expect(page.locator("#notice")).to_contain_text("Trying again in")
    wait_for_forecast(page)
    expect(page.locator("#notice")).to_be_empty()


def test_service_without_an_adapter_says_why_until_it_has_one(
    replica_in: Callable[..., Replica], tmp_path: Path, visit: Visit
) -> None:
    whole = replica_in(tmp_path)
    service = replace(whole, adapters=tmp_path / "not-yet")
    service.start()
    try:
        until = time.monotonic() + 30
        while not answers(service):
            assert time.monotonic() < until
        page = visit(service.url, key=API_KEY, fragment=PAST, waits=False)
        expect(page.locator("#notice")).to_contain_text("The service is not ready: no model: ")
        whole.adapters.rename(service.adapters)
        wait_for_forecast(page)
        expect(page.locator("#notice")).to_be_empty()
    finally:
        service.kill()


def answers(service: Replica) -> bool:
    try:
        return service.get("/livez").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False

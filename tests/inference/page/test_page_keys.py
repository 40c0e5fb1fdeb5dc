"""The key: asked once, kept in the tab, never in a link; what is wrong with one is said where it is typed."""

from collections.abc import Callable

import pytest
from looking import PAST, wait_for_forecast
from playwright.sync_api import Page, expect
from replica import ADMIN_KEY, API_KEY, Replica

pytestmark = pytest.mark.ui

Visit = Callable[..., Page]


def give(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_key_is_asked_once_and_what_is_wrong_with_it_is_said(service: Replica, visit: Visit) -> None:
    page = visit(service.url, fragment=PAST, waits=False, allowed={401, 403})
    dialog = page.get_by_role("dialog", name="Key to forecast")
    expect(dialog).to_contain_text("This service answers those who have a key.")
    give(page, "no-such-key-at-all-1")
    expect(dialog).to_contain_text("this key is not known")
    give(page, ADMIN_KEY)
    expect(dialog).to_contain_text("expected a key of role forecast, got one of role admin.")
    give(page, API_KEY)
    wait_for_forecast(page)
    assert API_KEY not in page.url
    page.reload()
    wait_for_forecast(page)
    expect(dialog).to_be_hidden()
    other_tab = page.context.new_page()
    other_tab.goto(page.url)
    expect(other_tab.get_by_role("dialog", name="Key to forecast")).to_be_visible()


def test_without_a_key_it_says_what_to_do(service: Replica, visit: Visit) -> None:
    page = visit(service.url, waits=False, allowed={401})
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#notice")).to_contain_text("No key was given. Reload the page to enter one.")

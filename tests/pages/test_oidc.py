"""Signing in by a provider, as people do it: one button there, one connection on the account page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tutelage.store import accounts

pytestmark = pytest.mark.browser


def test_there_and_back_and_out_again(
    browser: Browser,
    site_with_provider: Any,
    fake_provider: Any,
    violations: Callable[[Page], list[tuple[str, str]]],
) -> None:
    site = site_with_provider
    page = open_page(browser, f"{site.url}/sign-in?next=/account")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        expect(page.get_by_role("link", name="Continue with Example")).to_be_visible()
        assert violations(page) == []
    page.get_by_role("link", name="Continue with Example").click()
    expect(page).to_have_url(f"{site.url}/account")
    expect(page.get_by_role("heading", name="jane")).to_be_visible()
    expect(page.get_by_text("Your only way to sign in")).to_be_visible()
    expect(page.get_by_role("heading", name="Change password")).to_have_count(0)
    page.wait_for_load_state()  # the script of the form
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Guest")).to_be_visible()
    fake_provider.sent = {"code": None, "error": "access_denied"}
    page.goto(f"{site.url}/sign-in")
    page.get_by_role("link", name="Continue with Example").click()
    expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    page.get_by_role("link", name="Sign in").click()
    expect(page).to_have_url(f"{site.url}/sign-in")
    page.context.close()


def test_connecting_and_disconnecting(browser: Browser, site_with_provider: Any) -> None:
    site = site_with_provider
    page = open_page(browser, site.url)
    with site.store.write() as tx:
        user = accounts.create_user(tx, name="Ann", password_hash="-", role="user")
        token = accounts.open_session(tx, user.id, days=1)
    page.context.add_cookies([{"name": "tutelage", "value": token, "url": site.url}])
    page.goto(f"{site.url}/account")
    page.get_by_role("link", name="Connect Example").click()
    expect(page).to_have_url(f"{site.url}/account")
    page.wait_for_load_state()
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("link", name="Connect Example")).to_be_visible()
    page.context.close()


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_context().new_page()
    page.set_default_timeout(15_000)
    page.goto(url)
    return page

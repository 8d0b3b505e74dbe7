"""Becoming the operator, letting people in, signing in and out, choosing what is learned from and in which language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tutelage.store import accounts

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def test_the_link_makes_an_operator_who_lets_somebody_in_who_signs_in(visit: Visit, site: Any) -> None:
    with site.store.write() as tx:
        token = accounts.make_operator_link(tx)
    page = visit(f"/operator-link/{token}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("Name").fill("Grace")
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Become the operator").click()
    expect(page.get_by_role("link", name="Grace")).to_be_visible()
    page.get_by_role("link", name="Operate").click()
    page.get_by_role("link", name="People").click()
    page.get_by_label("Name", exact=True).fill("Alan")
    page.get_by_label("Role", exact=True).select_option("trainer")
    page.get_by_role("button", name="Create account").click()
    expect(page.locator("output")).to_be_visible()
    password = page.locator("output").text_content()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == password

    other = visit("/rank")
    expect(other).to_have_url(f"{site.url}/sign-in?next=/rank")
    other.get_by_label("Name").fill("Alan")
    other.get_by_label("Password").fill("not the password")
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_role("alert")).to_contain_text("wrong")
    other.get_by_label("Password").fill(password or "")
    other.get_by_role("button", name="Sign in").click()
    expect(other).to_have_url(f"{site.url}/rank")
    other.get_by_role("link", name="Alan").click()
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("link", name="Guest")).to_be_visible()


def test_consent_is_given_and_taken_back_with_one_click(visit: Visit) -> None:
    page = visit("/")
    page.get_by_role("link", name="Let it learn from your chats?").click()
    box = page.get_by_role("checkbox", name="My chats may improve the model")
    for wanted in (True, False):
        with page.expect_navigation():
            box.click()
        expect(box).to_be_checked(checked=wanted)


def test_the_language_is_the_browsers_until_another_is_chosen(visit: Visit) -> None:
    page = visit("/account", locale="zh-TW")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hant")
    with page.expect_navigation():
        page.get_by_label("語言").select_option("en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.goto("/")
    page.get_by_role("textbox", name="Your message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .body")).to_have_text("Hello there.")


def test_scripts_speak_the_language_of_the_page(visit: Visit) -> None:
    page = visit("/", locale="zh-TW")
    page.context.set_offline(True)
    page.get_by_role("textbox", name="你的訊息").fill("你好")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("無法連線到伺服器")

"""Two answers side by side, as a reader asks for them: streamed, chosen between, shown again, changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select

from tutelage.store.tables import Pick

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def ask_for_two(page: Page, text: str = "Which?") -> None:
    """By keyboard: the toggle is one step away from the words."""
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Two answers side by side")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def open_pair(page: Page) -> Locator:
    """The pair that waits for a choice, both answers there."""
    pair = page.locator(".pair[data-undecided]")
    expect(pair.locator("[data-status='complete']")).to_have_count(2)
    return pair


def test_both_stream_and_the_chosen_one_goes_on(visit: Visit, site: Any) -> None:
    site.say("One. " * 30, "Two. " * 30, "After it.", delay=0.005)
    page = visit(role="user")
    ask_for_two(page)
    expect(page.locator(".pair .streaming")).to_contain_text(["One.", "Two."])
    page.reload()
    pair = open_pair(page)
    expect(page.get_by_role("button", name="Two answers side by side")).to_have_attribute(
        "aria-pressed", "false"
    )
    expect(page.locator("#announcer")).to_have_text("Both answers are there. Which one is better?")
    second = pair.locator(".message").nth(1).get_attribute("data-message")
    pair.get_by_role("button", name="Answer 2 is better").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Show both")).to_be_focused()
    expect(page.locator(".message.assistant")).to_have_attribute("data-message", str(second))
    with site.store.read() as tx:
        row = tx.scalars(select(Pick).where(Pick.second_id == second)).one()
        assert (row.verdict, row.kind, row.consent) == ("second", "side_by_side", True)
    page.goto(page.url.partition("?")[0])
    page.get_by_role("textbox", name="Your message").fill("And then?")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_have_count(2)
    expect(page.locator(".message.assistant").first).to_have_attribute("data-message", str(second))
    expect(page.locator(".message.user").last).to_have_attribute("data-parent", str(second))


def test_a_choice_is_shown_again_changed_and_taken_back(visit: Visit, site: Any) -> None:
    site.say("One.", "Two.")
    page = visit()
    ask_for_two(page)
    open_pair(page).get_by_role("button", name="Both are equally good").click()
    expect(page.locator(".beside")).to_contain_text("both answers equally good")
    page.get_by_role("button", name="Show both").click()
    pair = page.locator(".pair")
    expect(pair.get_by_role("heading", name="Which answer is better?")).to_be_focused()
    expect(pair.get_by_role("button", name="Both are equally good")).to_have_attribute("aria-pressed", "true")
    pair.get_by_role("button", name="Answer 2 is better").click()
    expect(page.locator(".beside")).to_contain_text("You found this answer better")
    page.get_by_role("link", name="Previous version").click()
    expect(page.locator(".beside")).to_contain_text("You found the answer beside it better")
    page.get_by_role("button", name="Show both").click()
    pair.get_by_role("button", name="Answer 2 is better").click()
    expect(pair.get_by_role("button", name="Answer 2 is better")).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(page.locator(".beside")).to_contain_text("One of two answers")
    page.goto(page.url.partition("?")[0])
    open_pair(page).get_by_role("button", name="Skip").click()
    expect(page.locator(".beside")).to_contain_text("One of two answers")


def test_another_tab_follows_both_and_learns_of_the_choice(visit: Visit, site: Any) -> None:
    page = visit()
    page.get_by_role("textbox", name="Your message").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("[data-status='complete']")).to_have_count(1)
    other = page.context.new_page()
    other.goto(page.url)
    site.say("One. " * 40, "Two. " * 40, delay=0.005)
    ask_for_two(page)
    expect(page.locator(".pair .streaming").first).to_contain_text("One.")
    other.evaluate("dispatchEvent(new Event('focus'))")
    open_pair(other)
    open_pair(page).get_by_role("button", name="Answer 2 is better").click()
    expect(page.locator(".beside")).to_be_visible()
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.locator(".beside")).to_contain_text("You found this answer better")
    expect(other.locator(".pair")).to_have_count(0)


def test_stopping_stops_both_and_who_just_goes_on_takes_the_first(visit: Visit, site: Any) -> None:
    site.say("One. " * 2000, "Two. " * 2000, delay=0.01)
    page = visit(width=360, height=740)
    ask_for_two(page)
    expect(page.locator(".pair .streaming")).to_contain_text(["One.", "Two."])
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".pair [data-status='interrupted']")).to_have_count(2)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    first = page.locator(".pair").get_attribute("data-first")
    site.say("After it.")
    page.get_by_role("textbox", name="Your message").fill("And then?")
    page.keyboard.press("Enter")
    expect(page.locator("[data-status='complete']")).to_have_count(1)
    expect(page.locator(".message.user").last).to_have_attribute("data-parent", str(first))


def test_a_blocked_answer_leaves_the_other(visit: Visit, site: Any) -> None:
    site.say("Something forbidden.", "Something fine.")
    page = visit()
    ask_for_two(page)
    expect(page.locator(".message.assistant[data-status='complete']")).to_have_count(1)
    expect(page.locator(".message.assistant .body")).to_have_text("Something fine.")
    expect(page.locator(".pair")).to_have_count(0)

"""What readers say about answers and about the filter is kept, shown again, and can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from tutelage.store.tables import Rating, Report

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


def rating(site: Any, page: Page) -> Rating | None:
    message = page.locator(".message.assistant").get_attribute("data-message")
    with site.store.read() as tx:
        return tx.scalar(select(Rating).where(Rating.message_id == message))


def test_a_rating_with_reasons_and_an_ideal_answer_is_shown_again(visit: Visit, site: Any) -> None:
    page = visit()
    ask(page, "Hello")
    page.get_by_role("button", name="Bad answer").click()
    dialog = page.get_by_role("dialog", name="What was wrong with it?")
    dialog.get_by_role("checkbox", name="Not true").check()
    dialog.get_by_label("In your own words").fill("It is not so.")
    ideal = dialog.get_by_label("What would the ideal answer be?")
    expect(ideal).to_have_value("Hello there.")
    ideal.fill("Good day to you.")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your feedback is saved")).to_be_visible()
    saved = rating(site, page)
    assert saved is not None
    assert (saved.verdict, saved.reasons, saved.ideal) == ("down", ["untrue"], "Good day to you.")

    page.reload()
    expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Bad answer").click()
    expect(dialog.get_by_role("checkbox", name="Not true")).to_be_checked()
    expect(ideal).to_have_value("Good day to you.")


def test_a_thumb_counts_at_once_and_can_be_changed_and_withdrawn(visit: Visit, site: Any) -> None:
    page = visit()
    ask(page, "Hello")
    good, bad = page.get_by_role("button", name="Good answer"), page.get_by_role("button", name="Bad answer")
    good.click()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    expect(good).to_have_attribute("aria-pressed", "true")
    assert rating(site, page).verdict == "up"
    bad.click()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    expect(good).to_have_attribute("aria-pressed", "false")
    assert rating(site, page).verdict == "down"
    bad.click()
    page.get_by_role("button", name="Withdraw rating").click()
    expect(bad).to_have_attribute("aria-pressed", "false")
    assert rating(site, page) is None


def test_an_ideal_answer_that_was_not_edited_is_none(visit: Visit, site: Any) -> None:
    page = visit()
    ask(page, "Hello")
    page.get_by_role("button", name="Good answer").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your feedback is saved")).to_be_visible()
    assert rating(site, page).ideal == ""


def test_a_blocked_answer_is_hidden_and_can_be_reported(visit: Visit, site: Any) -> None:
    site.say("This is a forbidden secret sentence.")
    page = visit()
    ask(page, "Tell me")
    blocked = page.locator(".message.assistant[data-status='blocked']")
    expect(blocked).to_contain_text("The content filter has hidden this answer")
    assert "secret sentence" not in page.content()
    page.reload()
    expect(blocked).to_be_visible()
    assert "secret sentence" not in page.content()
    blocked.get_by_role("button", name="This was flagged by mistake").click()
    page.get_by_role("button", name="Send report").click()
    expect(page.get_by_text("A reviewer will look at it")).to_be_visible()
    page.goto("/account")
    reports = page.locator("section").filter(has_text="Your reports about the content filter")
    expect(reports.get_by_role("table")).to_contain_text("Not yet reviewed")


def test_what_the_filter_missed_can_be_reported_with_its_category(visit: Visit, site: Any) -> None:
    page = visit()
    ask(page, "Hello")
    page.locator(".message.assistant").get_by_role("button", name="This should have been flagged").click()
    dialog = page.get_by_role("dialog", name="Should have been flagged")
    dialog.get_by_label("Category").select_option("harassment")
    dialog.get_by_label("Anything the reviewer should know").fill("It is rude.")
    dialog.get_by_role("button", name="Send report").click()
    expect(page.get_by_text("A reviewer will look at it")).to_be_visible()
    with site.store.read() as tx:
        report = tx.scalars(select(Report).where(Report.note == "It is rude.")).one()
    assert (report.kind, report.category) == ("missed", "harassment")


def test_a_blocked_question_is_marked_and_its_writer_still_sees_it(visit: Visit) -> None:
    page = visit()
    ask(page, "A forbidden question")
    expect(page.locator(".message.user")).to_contain_text("A forbidden question")
    words, verdict = (page.locator(f".message.user {part}").bounding_box() for part in (".body", ".verdict"))
    assert words is not None
    assert verdict is not None
    assert verdict["y"] - words["y"] - words["height"] >= 6
    expect(page.locator(".message.user")).to_contain_text("The content filter has blocked this message")
    expect(page.locator(".message.assistant")).to_contain_text("There is no answer")


def test_somebody_who_may_hurt_themselves_is_shown_where_to_find_help(visit: Visit) -> None:
    page = visit()
    ask(page, "I feel hopeless")
    expect(page.locator(".message.user")).to_contain_text("findahelpline.com")
    expect(page.locator(".message.user")).not_to_contain_text("marked")
    expect(page.locator(".message.assistant .body")).to_have_text("Hello there.")

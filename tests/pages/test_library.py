"""The list of chats: finding, renaming, sharing, archiving, saving, deleting, and taking that back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tutelage.store import accounts, dialogues

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_have_count(1)


def items(page: Page) -> Locator:
    return page.locator("#dialogues .item")


def choose(page: Page, action: str) -> None:
    items(page).first.hover()
    page.get_by_role("button", name="What to do with").first.click()
    page.locator("#dialogue-menu").get_by_role("button", name=action).click()


def test_a_chat_is_renamed(visit: Visit) -> None:
    page = visit()
    ask(page, "To be renamed")
    choose(page, "Rename")
    page.get_by_role("textbox", name="Title").fill("A better name")
    page.keyboard.press("Enter")
    expect(items(page)).to_have_text("A better name")
    expect(page.locator("#title")).to_have_text("A better name")
    expect(page).to_have_title("A better name · tutelage")


def test_a_deleted_chat_comes_back_with_undo(visit: Visit) -> None:
    page = visit()
    ask(page, "To be deleted")
    choose(page, "Delete")
    expect(page.locator("#welcome")).to_be_visible()
    expect(items(page)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(items(page)).to_have_text("To be deleted")
    items(page).get_by_role("link").click()
    expect(page.locator(".message")).to_have_count(2)


def test_an_archived_chat_leaves_the_list_and_comes_back_with_undo(visit: Visit) -> None:
    page = visit()
    ask(page, "To be archived")
    page.goto("/account")
    page.get_by_role("button", name="What to do with").press("Enter")
    page.locator("#dialogue-menu").get_by_role("button", name="Archive").press("Enter")
    expect(items(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(items(page)).to_have_count(1)


@pytest.mark.parametrize("words", ["彩虹", "rainbow", "RAIN"])
def test_words_are_found_as_they_are_typed(visit: Visit, words: str) -> None:
    page = visit()
    ask(page, "What is a rainbow, 彩虹?")
    page.goto("/")
    ask(page, "Something else")
    search = page.get_by_role("searchbox", name="Search your chats")
    search.fill(words)
    expect(page.locator("#dialogues .found")).to_have_count(1)
    expect(page.locator("#announcer")).to_have_text("Found: 1")
    search.press("ArrowDown")
    expect(page.locator("#dialogues .found a")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(search).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .body")).to_contain_text("rainbow")
    search = page.get_by_role("searchbox", name="Search your chats")
    search.fill("no such words")
    expect(page.locator("#dialogues")).to_contain_text("Nothing has all these words.")
    search.fill("")
    expect(items(page)).to_have_count(2)


def test_a_shared_chat_is_read_by_anybody_until_its_link_is_taken_away(visit: Visit, site: Any) -> None:
    site.say("A **shared** answer.", "A secret that came later.")
    page = visit()
    ask(page, "To be shared")
    page.get_by_role("button", name="Share this chat").click()
    dialog = page.get_by_role("dialog", name="Share this chat")
    dialog.get_by_role("button", name="Make a link").click()
    expect(dialog.get_by_label("Link")).to_have_value(re.compile(r"/s/[\w-]{30,}$"))
    link = dialog.get_by_label("Link").input_value()
    page.keyboard.press("Escape")
    page.get_by_role("textbox", name="Your message").fill("More")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_have_count(2)

    reader = visit(link.removeprefix(site.url))
    expect(reader.locator(".message strong")).to_have_text("shared")
    expect(reader.locator(".message")).to_have_count(2)
    expect(reader.locator("form, button, script[src], textarea")).to_have_count(0)
    assert reader.context.cookies() == []
    answer = reader.reload()
    assert answer is not None
    assert answer.headers["x-robots-tag"] == "noindex, nofollow"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for method in ("post", "put", "delete", "patch"):
        assert getattr(reader.request, method)(link).status == 405

    page.get_by_role("button", name="Share this chat").click()
    dialog.get_by_role("button", name="Take the link away").click()
    expect(page.get_by_text("The link leads nowhere now.")).to_be_visible()
    answer = reader.reload()
    assert answer is not None
    assert answer.status == 404


def test_a_chat_is_saved_as_a_file(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    ask(page, "To be saved")
    for action, name, words in (
        ("Save as Markdown", "To be saved.md", "## Assistant\n\nHello there."),
        ("Save as JSON", "To be saved.json", '"content": "Hello there."'),
    ):
        with page.expect_download() as saved:
            choose(page, action)
        assert saved.value.suggested_filename == name
        saved.value.save_as(tmp_path / name)
        assert words in (tmp_path / name).read_text(encoding="utf-8")


def test_a_temporary_chat_is_nowhere_but_on_its_page(visit: Visit) -> None:
    page = visit()
    page.get_by_role("link", name="Temporary chat").click()
    expect(page.get_by_role("heading", name="Temporary chat")).to_be_visible()
    ask(page, "Between us")
    expect(items(page)).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_have_text("Temporary chat")
    page.reload()
    expect(page.locator(".message.user .body")).to_have_text("Between us")
    expect(page.locator(".topbar")).to_contain_text("Temporary chat")
    expect(page.get_by_role("button", name="Share this chat")).to_have_count(0)


def test_the_menu_is_moved_through_by_keyboard(visit: Visit) -> None:
    page = visit()
    ask(page, "Keys")
    page.get_by_role("button", name="What to do with").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="What to do with")).to_be_focused()


def test_the_list_goes_on_where_it_ends_and_stays_where_it_was(visit: Visit, site: Any) -> None:
    page = visit(role="user")
    [session] = [each["value"] for each in page.context.cookies() if each["name"] == "tutelage"]
    with site.store.write() as tx:
        owner = accounts.session_user(tx, session)
        assert owner
        for number in range(130):
            dialogues.create_dialogue(tx, owner.id, title=f"Chat {number}")
    page.reload()
    links = page.locator("#dialogues .item > a")
    expect(links).to_have_count(100)
    links.last.scroll_into_view_if_needed()
    expect(links).to_have_count(130)
    expect(page.locator("#dialogues h2")).to_have_text(["Today"])
    links.nth(70).click()
    expect(page).to_have_title("Chat 59 · tutelage")
    expect(links.nth(70)).to_be_in_viewport()
    expect(links.nth(0)).not_to_be_in_viewport()


def test_the_keyboard_stays_where_it_is_when_the_list_is_drawn_anew(visit: Visit) -> None:
    """As it is whenever an answer ends."""
    page = visit()
    ask(page, "Focus")

    def draw() -> None:
        page.locator("#dialogues > *").first.evaluate("each => each.dataset.old = true")
        page.locator("#search").dispatch_event("input")
        expect(page.locator("#dialogues [data-old]")).to_have_count(0)

    link = page.locator("#dialogues a").first
    link.focus()
    draw()
    expect(link).to_be_focused()
    page.get_by_role("button", name="What to do with").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    draw()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="What to do with")).to_be_focused()

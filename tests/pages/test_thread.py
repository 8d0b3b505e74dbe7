"""Branches, long threads, other tabs, comparisons, formulas: what happens to a thread after it was written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select

from tutelage.store import accounts, dialogues
from tutelage.store.tables import Pick
from tutelage.store.usage import ChatSettings, change_chat_settings

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant[data-status='complete']")


def long_chat(site: Any, page: Page, turns: int) -> str:
    """A chat of so many messages that belongs to the visitor of this page, who becomes somebody by it."""
    page.request.put(f"{site.url}/api/account/instructions", data={"instructions": ""})
    token = next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "tutelage")
    with site.store.write() as tx:
        owner = accounts.session_user(tx, token)
        row = dialogues.create_dialogue(tx, owner.id, title="Long")
        parent = None
        for number in range(turns):
            role, kind = ("assistant", "model") if number % 2 else ("user", "human")
            text = "A needle in the hay." if number == 20 else f"Message number {number}."
            parent = dialogues.add_message(
                tx, row.id, parent_id=parent, role=role, content=text, author_kind=kind
            ).id
        return row.id


def test_arrows_move_between_branches_by_keyboard_and_keep_the_place(visit: Visit, site: Any) -> None:
    site.say("The first.", "The second.", "After the second.")
    page = visit()
    ask(page, "Say something")
    expect(answers(page)).to_contain_text("The first.")
    page.get_by_role("button", name="Answer again").click()
    expect(answers(page)).to_contain_text("The second.")
    ask(page, "And then?")
    expect(answers(page)).to_have_count(2)
    page.get_by_role("link", name="Previous version").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(2)
    expect(answers(page)).to_contain_text("The first.")
    expect(page.get_by_role("link", name="Next version")).to_be_focused()
    assert "?message=" in page.url
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(4)
    expect(answers(page).last).to_contain_text("After the second.")
    page.go_back()
    page.go_forward()
    expect(answers(page).last).to_contain_text("After the second.")


def test_better_worse_or_as_good_is_kept_and_shown_again(visit: Visit, site: Any) -> None:
    site.say("The first.", "The second.")
    page = visit(role="user")
    ask(page, "Say something")
    expect(answers(page)).to_be_visible()
    bar = page.get_by_role("group", name="Compared with the answer before")
    expect(bar).to_have_count(0)
    page.get_by_role("button", name="Answer again").click()
    bar.get_by_role("button", name="better").click()
    expect(bar.get_by_role("button", name="better")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(bar.get_by_role("button", name="better")).to_have_attribute("aria-pressed", "true")
    bar.get_by_role("button", name="as good").click()
    expect(bar.get_by_role("button", name="better")).to_have_attribute("aria-pressed", "false")
    message = answers(page).get_attribute("data-message")
    with site.store.read() as tx:
        row = tx.scalars(select(Pick).where(Pick.second_id == message)).one()
        assert (row.verdict, row.kind, row.consent) == ("tie", "regeneration", True)
    bar.get_by_role("button", name="as good").click()
    expect(bar.get_by_role("button", name="as good")).to_have_attribute("aria-pressed", "false")
    with site.store.read() as tx:
        assert tx.scalar(select(Pick).where(Pick.second_id == message)) is None


def test_another_tab_shows_what_was_said_in_the_first_when_it_is_looked_at(visit: Visit, site: Any) -> None:
    page = visit()
    ask(page, "First")
    expect(answers(page)).to_have_count(1)
    other = page.context.new_page()
    other.goto(page.url)
    expect(answers(other)).to_have_count(1)
    site.say("A slow answer. " * 20, delay=0.004)
    ask(page, "Second")
    expect(page.locator(".streaming")).to_contain_text("A slow answer")
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.locator(".message.user")).to_have_count(2)
    expect(other.locator(".streaming")).to_contain_text("A slow answer")
    expect(answers(other)).to_have_count(2)
    expect(answers(page)).to_have_count(2)


def test_a_long_thread_comes_in_parts_from_its_end(visit: Visit, site: Any) -> None:
    page = visit("/")
    page.goto(f"/c/{long_chat(site, page, 200)}")
    messages = page.locator(".message")
    expect(messages).to_have_count(60)
    expect(messages.last).to_contain_text("Message number 199.")
    expect(messages.last).to_be_in_viewport()
    page.get_by_role("button", name="Show earlier messages").focus()
    page.keyboard.press("Enter")
    expect(messages).to_have_count(120)
    expect(page.get_by_text("Message number 140.", exact=True)).to_have_count(1)
    page.locator("#scroller").evaluate("element => { element.scrollTop = 0; }")
    expect(messages).to_have_count(180)
    page.locator("#scroller").evaluate("element => { element.scrollTop = 0; }")
    expect(messages).to_have_count(200)
    expect(page.get_by_role("button", name="Show earlier messages")).to_have_count(0)
    texts = page.locator(".message .body").all_text_contents()
    numbers = [int(found[1]) for text in texts if (found := re.search(r"number (\d+)", text))]
    assert numbers == [number for number in range(200) if number != 20]


def test_a_message_that_was_looked_for_is_shown_wherever_it_stands(visit: Visit, site: Any) -> None:
    page = visit("/")
    long_chat(site, page, 200)
    page.get_by_role("searchbox", name="Search your chats").fill("needle")
    page.locator("#dialogues .found a").click()
    wanted = page.locator(".message .body", has_text="A needle in the hay.")
    expect(wanted).to_be_in_viewport()


def test_a_thousand_messages_type_and_answer_without_lag(visit: Visit, site: Any) -> None:
    page = visit("/")
    page.goto(f"/c/{long_chat(site, page, 1000)}")
    for count in range(120, 1001, 60):
        page.locator("#scroller").evaluate("element => { element.scrollTop = 0; }")
        page.wait_for_function(f"() => document.querySelectorAll('.message').length >= {count}")
    page.get_by_role("textbox", name="Your message").focus()
    slowest = page.evaluate("""async () => {
      const area = document.getElementById('text'); const times = [];
      for (let i = 0; i < 30; i++) { const start = performance.now();
        document.execCommand('insertText', false, 'a'); area.getBoundingClientRect();
        times.push(performance.now() - start); await new Promise(requestAnimationFrame); }
      return times.sort((a, b) => a - b)[27]; }""")
    assert slowest < 50
    page.keyboard.press("Enter")
    expect(answers(page).last).to_contain_text("Hello there.")


def test_formulas_are_drawn_and_wide_ones_scroll_inside_themselves(visit: Visit, site: Any) -> None:
    site.say("So \\(x^2\\) and\n\n$$\n" + "+".join(["a_{1}"] * 80) + "\n$$\n\nend.")
    page = visit("/", width=360, height=740)
    ask(page, "Formula")
    expect(answers(page).locator("p math msup")).to_have_count(1)
    wide = answers(page).locator(".formula")
    assert wide.evaluate("element => element.scrollWidth > element.clientWidth")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_words_that_are_not_sent_survive_a_reload(visit: Visit) -> None:
    page = visit()
    page.get_by_role("textbox", name="Your message").fill("half a thought")
    page.reload()
    expect(page.get_by_role("textbox", name="Your message")).to_have_value("half a thought")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_count(1)
    page.goto("/")
    expect(page.get_by_role("textbox", name="Your message")).to_have_value("")


def test_an_edit_is_left_with_escape_and_an_input_method_does_not_send_it(visit: Visit) -> None:
    page = visit()
    ask(page, "First words")
    expect(answers(page)).to_have_count(1)
    page.locator(".message.user").hover()
    page.get_by_role("button", name="Edit and ask again").click()
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "ㄋㄧˇ", "selectionStart": 3, "selectionEnd": 3})
    page.keyboard.press("Enter")
    expect(page.locator(".edit textarea")).to_be_visible()
    keyboard.send("Input.insertText", {"text": "你"})
    page.keyboard.press("Escape")
    expect(page.locator(".edit")).to_have_count(0)
    expect(page.locator(".message.user .body")).to_have_text("First words")
    expect(page.get_by_role("button", name="Edit and ask again")).to_be_focused()


def test_the_keyboard_reaches_the_words_the_last_question_and_the_end_of_an_answer(
    visit: Visit, site: Any
) -> None:
    page = visit()
    ask(page, "First words")
    expect(answers(page)).to_have_count(1)
    page.get_by_role("searchbox").focus()
    page.keyboard.press("Control+/")
    expect(page.get_by_role("textbox", name="Your message")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".edit textarea")).to_have_value("First words")
    page.keyboard.press("Escape")
    expect(page.get_by_role("textbox", name="Your message")).to_be_focused()
    page.keyboard.press("ArrowUp")
    site.say("word " * 2000, delay=0.01)
    page.keyboard.press("Enter")
    expect(page.locator(".streaming")).to_contain_text("word")
    page.keyboard.press("Escape")
    expect(page.locator("[data-status='interrupted']")).to_be_visible()


def test_answers_are_counted_down_and_the_last_word_is_kept(visit: Visit, site: Any) -> None:
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_limit=2))
    try:
        page = visit()
        expect(page.locator("#remaining")).to_have_text("Answers left today: 2.")
        ask(page, "One")
        expect(page.locator("#remaining")).to_have_text("Answers left today: 1.")
        expect(answers(page)).to_have_count(1)
        ask(page, "Two")
        expect(answers(page)).to_have_count(2)
        ask(page, "Three")
        expect(page.get_by_role("alert")).to_contain_text("all your answers of today")
        expect(page.locator(".message.user").last).to_contain_text("Three")
        expect(page.get_by_role("alert").get_by_role("link", name="Sign in")).to_be_visible()
        page.reload()
        expect(page.get_by_role("textbox", name="Your message")).to_have_value("Three")
    finally:
        with site.store.write() as tx:
            change_chat_settings(tx, ChatSettings())

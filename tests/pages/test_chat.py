"""Chatting: nothing that was said is lost, and nothing is sent that was not meant to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]
LONG = "A long answer. " + "It has many words, one after the other. " * 10


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Your message")


def ask(page: Page, text: str) -> None:
    composer(page).fill(text)
    page.keyboard.press("Enter")


# How far a button's edges are from those of its message, beyond which nothing is painted: left and below.
ROOM = """button => {
  const [inner, outer] = [button, button.closest(".message")].map((each) => each.getBoundingClientRect());
  return [inner.left - outer.left, outer.bottom - inner.bottom];
}"""


def below(upper: Locator, lower: Locator) -> float:
    first, second = upper.bounding_box(), lower.locator(".body").bounding_box()
    assert first is not None
    assert second is not None
    return second["y"] - first["y"] - first["height"]


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant[data-status='complete']")


def test_an_answer_streams_is_rendered_and_is_there_after_a_reload(visit: Visit, site: Any) -> None:
    site.say("Use **bold**.\n\n```python\nprint(1)\n```")
    page = visit()
    ask(page, "How?")
    expect(answers(page).locator("strong")).to_have_text("bold")
    expect(answers(page).locator(".code .k, .code .nb").first).to_have_text("print")
    assert re.search(r"/c/[0-9a-f-]{36}$", page.url)
    expect(page.locator("#dialogues .item")).to_have_count(1)
    page.reload()
    expect(answers(page).locator("strong")).to_have_text("bold")
    expect(page.locator(".message.user .body")).to_have_text("How?")


def test_closed_blocks_are_rendered_while_the_rest_still_comes(visit: Visit, site: Any) -> None:
    site.say("A **first** block.\n\n## A heading\n```\n" + LONG, delay=0.005)
    page = visit()
    ask(page, "Go")
    expect(page.locator("[data-status='running'] .blocks strong")).to_have_text("first")
    expect(page.locator("[data-status='running'] .blocks h2")).to_have_text("A heading")
    expect(page.locator("[data-status='running'] .streaming")).not_to_contain_text("first")
    expect(page.locator("[data-status='running'] .streaming.code")).to_contain_text("A long answer")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("[data-status='interrupted']")).to_be_visible()


def test_a_message_and_its_code_are_copied_as_they_were_written(visit: Visit, site: Any) -> None:
    answer = "Here:\n\n```python\nprint(1)\n```"
    site.say(answer)
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "How?")
    button = answers(page).locator(".code-copy")
    button.click()
    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "print(1)"
    whole = answers(page).get_by_role("button", name="Copy", exact=True)
    whole.click()
    expect(answers(page).locator(".copied").last).to_be_visible()
    room = whole.evaluate(ROOM)
    assert min(room) >= 4, f"the button's highlight and focus ring are cut off: {room}"
    assert page.evaluate("navigator.clipboard.readText()") == answer
    expect(button).to_have_text("Copy code")


def test_without_https_a_message_is_sent_and_copied_all_the_same(visit: Visit, site: Any) -> None:
    """As on a local network: browsers keep some functions for secure contexts."""
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.add_init_script(
        "delete Crypto.prototype.randomUUID; Object.defineProperty(navigator, 'clipboard', { value: undefined })"
    )
    page.reload()
    ask(page, "How?")
    whole = answers(page).get_by_role("button", name="Copy", exact=True)
    whole.click()
    expect(answers(page).locator(".copied")).to_be_visible()
    expect(whole).to_be_focused()
    composer(page).press("ControlOrMeta+v")
    expect(composer(page)).to_have_value("Hello there.")


def test_marked_words_look_like_what_they_are_while_their_block_is_open(visit: Visit, site: Any) -> None:
    site.say("Some **strong words**, `a <b> code` and 2 ** 3, " + LONG, delay=0.005)
    page = visit()
    ask(page, "Go")
    open_block = page.locator("[data-status='running'] .streaming")
    expect(open_block.locator("strong")).to_have_text("strong words")
    expect(open_block.locator("code")).to_have_text("a <b> code")
    expect(open_block).to_contain_text("Some strong words, a <b> code and 2 ** 3, A long answer")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("[data-status='interrupted'] strong")).to_have_text("strong words")


GROWTH = """() => { window.grown = []; let last = 0;
  new MutationObserver(() => { const length = document.querySelector('.streaming')?.textContent.length ?? 0;
    if (length > last) window.grown.push(length - last); last = length; })
    .observe(document.getElementById('thread'), { subtree: true, childList: true, characterData: true }); }"""


def test_sentences_are_written_little_by_little_where_motion_is_welcome(visit: Visit, site: Any) -> None:
    site.say("\U0001f331" * 20 + " " + LONG, delay=0.01)
    page = visit()
    page.emulate_media(reduced_motion="no-preference")
    page.evaluate(GROWTH)
    ask(page, "Go")
    expect(page.locator(".streaming")).to_contain_text("one after the other. It has")
    assert "\ufffd" not in page.locator(".streaming").inner_text()
    grown = page.evaluate("window.grown")
    assert len(grown) > 20
    assert max(grown) < 20
    expect(answers(page)).to_contain_text(LONG.strip())


def test_a_reload_while_an_answer_comes_goes_on_with_it(visit: Visit, site: Any) -> None:
    site.say(LONG, delay=0.004)
    page = visit()
    ask(page, "Go")
    expect(page.locator(".streaming")).to_contain_text("A long answer")
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator(".streaming")).to_contain_text("A long answer")
    expect(answers(page)).to_contain_text(LONG.strip())


def test_stop_keeps_what_was_written(visit: Visit, site: Any) -> None:
    site.say(LONG, delay=0.01)
    page = visit()
    ask(page, "Go")
    expect(page.locator(".streaming")).to_contain_text("A long answer")
    page.get_by_role("button", name="Stop").click()
    stopped = page.locator("[data-status='interrupted']")
    expect(stopped).to_contain_text("A long answer")
    expect(stopped).to_contain_text("stopped before its end")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(composer(page)).to_be_focused()


def test_an_answer_that_was_cut_off_goes_on_in_its_place(visit: Visit, site: Any) -> None:
    long = "".join(f"This is **point {n}** of many.\n\n" for n in range(40))
    site.say(long, "- the end,\n- which was left.")
    page = visit()
    ask(page, "Tell me everything.")
    answer = page.locator(".message.assistant").last
    expect(answer).to_contain_text("reached the longest length allowed")
    points = answer.locator("strong").count()
    page.reload()
    site.say("- the end,\n- which was left.", delay=0.1)
    answer.get_by_role("button", name="Continue").click()
    expect(answer.locator(".blocks strong").nth(points - 2)).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator("#text")).to_be_focused()
    expect(answer.get_by_role("button", name="Copy")).to_be_visible()
    expect(answer).to_contain_text("which was left.")
    expect(answers(page)).to_have_count(1)
    expect(answer.locator("strong")).to_have_count(points)
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    site.say(long, "More.")
    ask(page, "And more?")
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
    ask(page, "Thank you.")
    expect(answers(page)).to_have_count(3)
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()


def test_enter_that_confirms_an_input_method_does_not_send(visit: Visit) -> None:
    page = visit()
    composer(page).focus()
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "ㄋㄧˇ", "selectionStart": 3, "selectionEnd": 3})
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(0)
    keyboard.send("Input.insertText", {"text": "你好"})
    confirming = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keyboard.send("Input.dispatchKeyEvent", confirming)
    expect(composer(page)).to_have_value(re.compile("你好"))
    expect(page.locator(".message")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .body")).to_have_text("你好")


def test_shift_and_enter_break_the_line(visit: Visit) -> None:
    page = visit()
    page.get_by_role("link", name="New chat").first.focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(composer(page)).to_have_value("one\ntwo")
    expect(page.locator(".message")).to_have_count(0)


def test_on_a_phone_enter_breaks_the_line(visit: Visit) -> None:
    page = visit(width=360, has_touch=True, is_mobile=True)
    composer(page).fill("one")
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    expect(composer(page)).to_have_value("one\ntwo")
    page.get_by_role("button", name="Send").tap()
    expect(answers(page)).to_have_count(1)


def test_another_answer_is_a_branch_and_the_first_one_stays(visit: Visit, site: Any) -> None:
    site.say("The first.", "The second.")
    page = visit()
    ask(page, "Say something")
    expect(answers(page)).to_contain_text("The first.")
    page.get_by_role("button", name="Answer again").click()
    expect(composer(page)).to_be_focused()
    expect(answers(page)).to_contain_text("The second.")
    expect(page.locator(".branches")).to_contain_text("2/2")
    page.get_by_role("link", name="Previous version").click()
    expect(answers(page)).to_contain_text("The first.")
    expect(page.locator(".branches")).to_contain_text("1/2")


def test_an_edited_question_is_a_branch(visit: Visit) -> None:
    page = visit()
    ask(page, "First words")
    expect(answers(page)).to_have_count(1)
    page.set_viewport_size({"width": 1280, "height": 290})
    page.locator(".message.user").hover()
    page.get_by_role("button", name="Edit and ask again").click()
    page.wait_for_timeout(100)
    expect(page.locator(".edit textarea")).to_be_in_viewport(ratio=1)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.locator(".edit textarea").fill("Other words")
    assert below(page.locator(".edit"), answers(page)) >= 16
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .body")).to_have_text("Other words")
    expect(composer(page)).to_be_focused()
    expect(page.locator(".message.user .branches")).to_contain_text("2/2")
    expect(answers(page)).to_have_count(1)


def test_a_failed_message_is_shown_in_the_thread_and_can_be_sent_again(visit: Visit) -> None:
    page = visit()
    page.context.set_offline(True)
    ask(page, "Are you there?")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".toast")).to_have_count(0)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_contain_text("Hello there.")
    expect(page.locator(".message.user")).to_have_count(1)


def test_an_answer_that_breaks_off_keeps_its_text_and_is_asked_for_again(visit: Visit, site: Any) -> None:
    site.say("One two three. Four five six. Seven eight nine.", delay=0.03, breaks=True)
    page = visit()
    ask(page, "Count")
    expect(page.get_by_role("alert")).to_contain_text("The model has fallen over")
    expect(page.locator("[data-status='interrupted']")).to_be_visible()
    site.say("One two three.")
    page.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_contain_text("One two three.")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".message.user")).to_have_count(1)


def test_the_scroller_follows_only_while_the_reader_is_at_the_end(visit: Visit, site: Any) -> None:
    page = visit(height=500)
    site.say("A paragraph.\n\n" * 40)
    ask(page, "First")
    expect(answers(page)).to_have_count(1)
    left = (
        "const s = document.getElementById('scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight"
    )
    at_end = f"() => {{ {left} < 60 }}"
    page.wait_for_function(at_end)
    site.say("Another paragraph.\n\n" * 30, delay=0.002)
    ask(page, "Second")
    expect(page.locator("[data-status='running'] .blocks p").first).to_be_visible()
    page.locator("#scroller").hover()
    page.mouse.wheel(0, -600)
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    expect(answers(page)).to_have_count(2)
    assert not page.evaluate(at_end)
    for key in ["PageDown"] * 9:
        composer(page).press(key)
    page.wait_for_function(at_end)
    composer(page).press("PageUp")
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    page.get_by_role("button", name="Go to the end").click()
    composer(page).press("ArrowUp")
    expect(page.locator(".edit textarea")).to_be_focused()
    expect(page.locator(".edit textarea")).to_be_in_viewport()


def test_who_asks_before_the_model_is_loaded_is_told_and_answered(
    browser: Browser, loading_site: Any
) -> None:
    site, loaded = loading_site
    page = browser.new_page(base_url=site.url)
    page.goto("/")
    ask(page, "Hello")
    expect(page.get_by_text("The model is loading.")).to_be_visible()
    loaded.set()
    expect(answers(page)).to_contain_text("Hello there.")
    page.close()


def test_a_finished_answer_is_announced(visit: Visit) -> None:
    page = visit()
    ask(page, "Hello")
    expect(page.locator("#announcer")).to_have_text("Hello there.")

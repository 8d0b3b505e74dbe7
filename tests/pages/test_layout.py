"""From a phone to a wide screen, in light and dark, every page fits and can be read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from tutelage.store import accounts, dialogues, feedback, labelling, reports, runs
from tutelage.store.tables import Dialogue

Visit = Callable[..., Page]
Violations = Callable[[Page], list[tuple[str, str]]]
PAGES = [
    "/",
    "/account",
    "/terms",
    "/?temporary=true",
    "/rank",
    "/write",
    "/operate",
    "/operate/training",
    "/operate/demonstrations",
    "/operate/agreement",
    "/operate/labelling",
    "/operate/data",
    "/operate/data/rows?stream=demonstrations&source=written",
    "/operate/reports",
    "/operate/feedback",
    "/operate/campaigns",
    "/operate/access",
    "/operate/audit",
    "/operate/people",
    "/operate/keys",
    "/sign-in",
]
WIDE = (
    "# Wide\n\n`"
    + "x" * 300
    + "`\n\n```\n"
    + "y" * 400
    + "\n```\n\n|"
    + "a very wide cell |" * 12
    + "\n|"
    + "-|" * 12
)
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const colour = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return { rgb: [r, g, b], alpha: a / 255 }; };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (element) => { for (; element; element = element.parentElement) {
    const { rgb, alpha } = colour(getComputedStyle(element).backgroundColor); if (alpha > 0.9) return rgb; }
    return colour(getComputedStyle(document.documentElement).backgroundColor).rgb; };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!words || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest('[disabled], .visually-hidden')) continue;
    const [a, b] = [light(colour(style.color).rgb), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return poor;
}"""
UNNAMED = """() => [...document.querySelectorAll('button, a[href], input, select, textarea')]
  .filter((each) => each.checkVisibility({ visibilityProperty: true }))
  .filter((each) => !(each.ariaLabel || each.ariaLabelledByElements?.length))
  .filter((each) => !(each.textContent.trim() || each.labels?.length))
  .map((each) => each.outerHTML.slice(0, 100))"""
REPEATED = """() => [...document.querySelectorAll('[id]')].map((each) => each.id)
  .filter((id, index, all) => all.indexOf(id) !== index)"""
SIDEWAYS = """() => document.documentElement.scrollWidth > innerWidth ||
  [...document.querySelectorAll('.scroll, .scroller, dialog[open]')].some((e) => e.scrollWidth > e.clientWidth)"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def open_whole(page: Page, path: str) -> None:
    """Go to a page and wait until it is drawn with all that its scripts have asked for."""
    under_way: set[Request] = set()

    def begin(request: Request) -> None:
        under_way.add(request)

    def end(request: Request) -> None:
        under_way.discard(request)

    listeners = {"request": begin, "requestfinished": end, "requestfailed": end}
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(path)
    page.evaluate(TWO_FRAMES)
    while under_way:
        page.evaluate(TWO_FRAMES)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


def fill(site: Any) -> None:
    """Something to show on each page, and all of it long."""
    words = "A rather long sentence that goes on and on, and one_very_long_word_" + "x" * 80
    site.say(words + " 1", words + " 2", words + " 3", words + " 4")
    dialogue = site.conversation(words, words)
    with site.store.write() as tx:
        accounts.create_key(tx, name=words[:60], scopes=["chat"])
        leaf, _ = dialogues.thread(tx, dialogue)[-1]
        owner = tx.get_one(Dialogue, dialogue).owner_id
        feedback.rate(tx, message_id=leaf.id, rater_id=owner, verdict="down", reasons=["untrue"], ideal=words)
        reports.report(tx, message_id=leaf.id, reporter_id=owner, kind="missed", category="hate", note=words)
        runs.update_run(tx, runs.create_run(tx, kind="improve", config={}).id, status="failed", error=words)
        turns = [{"role": role, "content": words} for role in ("user", "assistant")]
        labelling.save_demonstration(tx, author_id=owner, messages=turns, status="submitted")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_is_readable_and_names_its_controls(
    visit: Visit, site: Any, scheme: str
) -> None:
    fill(site)
    page = visit("/", role="operator", width=360, height=740, color_scheme=scheme)
    for path in PAGES:
        open_whole(page, path)
        assert not page.evaluate(SIDEWAYS), f"{path} scrolls sideways"
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate(UNNAMED) == [], path
        assert page.locator("h1, #title").count() >= 1, path
        assert page.evaluate(REPEATED) == [], path


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_answer_scrolls_inside_itself(visit: Visit, site: Any, scheme: str) -> None:
    site.say(WIDE)
    page = visit("/", width=360, height=740, color_scheme=scheme)
    page.get_by_role("textbox", name="Your message").fill("z" * 300)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .code")).to_be_visible()
    assert not page.evaluate(SIDEWAYS)
    assert page.evaluate(CONTRAST) == []
    widths = "buttons => buttons.map((each) => each.offsetWidth)"
    assert set(page.locator(".topbar .icon-button:visible").evaluate_all(widths)) == {38}
    page.get_by_role("button", name="Bad answer").click()
    assert not page.evaluate(SIDEWAYS)


@pytest.mark.browser
def test_a_chat_is_printed_whole_and_alone(visit: Visit, site: Any) -> None:
    site.say("A line of many.\n\n" * 12)
    page = visit("/", color_scheme="dark", height=300)
    page.get_by_role("textbox", name="Your message").fill("Many lines")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_be_visible()
    page.emulate_media(media="print")
    for part in (".sidebar", ".dock", ".actions"):
        expect(page.locator(part).first).to_be_hidden()
    heights = (
        "[document.documentElement.scrollHeight, document.querySelector('#thread').offsetHeight, innerHeight]"
    )
    whole, thread, window = page.evaluate(heights)
    assert whole > thread > window
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.browser
@pytest.mark.parametrize("locale", ["en-US", "zh-TW"])
def test_the_tabs_of_operators_stand_in_one_row_where_there_is_room(visit: Visit, locale: str) -> None:
    page = visit("/operate/audit", role="operator", locale=locale)
    tops = page.locator(".tabs a").evaluate_all("tabs => tabs.map((each) => each.offsetTop)")
    assert len(tops) > 10
    assert len(set(tops)) == 1
    # With a margin: fonts differ a little from machine to machine.
    widths = page.locator(".tabs a").evaluate_all("tabs => tabs.map((each) => each.offsetWidth)")
    assert sum(widths) < 0.96 * page.locator(".tabs").evaluate("row => row.clientWidth")


@pytest.mark.browser
def test_dark_and_light_follow_the_system(visit: Visit) -> None:
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = visit(color_scheme="light").evaluate(paper)
    dark = visit(color_scheme="dark").evaluate(paper)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(23, 25, 26)")


@pytest.mark.browser
def test_the_drawer_opens_takes_the_focus_and_closes_with_escape(visit: Visit) -> None:
    page = visit("/", width=360)
    sidebar = page.locator("#sidebar")
    expect(sidebar).not_to_be_visible()
    page.get_by_role("button", name="Open side bar").click()
    expect(sidebar).to_be_visible()
    expect(sidebar.get_by_role("button", name="Close side bar")).to_be_focused()
    page.keyboard.press("Escape")
    expect(sidebar).not_to_be_visible()
    expect(page.get_by_role("button", name="Open side bar")).to_be_focused()
    page.keyboard.press("Control+k")
    expect(sidebar.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(sidebar).not_to_be_visible()
    page.goto(page.url + "account")
    page.locator(".topbar").get_by_role("link", name="New chat").click()
    expect(page).to_have_title("New chat · tutelage")
    page.goto(page.url + "account")
    page.keyboard.press("Control+Shift+o")
    expect(page).to_have_title("New chat · tutelage")


@pytest.mark.browser
def test_a_closed_side_bar_stays_closed(visit: Visit) -> None:
    page = visit("/")
    page.get_by_role("button", name="Close side bar").click()
    expect(page.locator("#sidebar")).not_to_be_visible()
    page.reload()
    expect(page.locator("#sidebar")).not_to_be_visible()
    page.get_by_role("button", name="Open side bar").click()
    expect(page.locator("#sidebar")).to_be_visible()


@pytest.mark.browser
def test_the_first_page_is_small_and_its_files_are_kept_for_ever(visit: Visit, site: Any) -> None:
    page = visit("/sign-in")
    loaded: dict[str, Any] = {}
    page.on("response", lambda response: loaded.update({response.url: response}))
    open_whole(page, "/")
    total = sum(len(gzip.compress(response.body())) for response in loaded.values())
    assert total <= 60 * 1024
    files = [response for url, response in loaded.items() if "/static/" in url]
    assert len(files) >= 5
    assert all("immutable" in response.headers["cache-control"] for response in files)


@pytest.mark.browser
def test_a_long_chat_types_without_lag(visit: Visit, site: Any) -> None:
    page = visit("/", role="user")
    page.get_by_role("textbox", name="Your message").fill("Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant[data-status='complete']")
    page.evaluate("""() => { const thread = document.getElementById('thread'); const pair = [...thread.children];
      for (let i = 0; i < 500; i++) thread.append(...pair.map((each) => each.cloneNode(true))); }""")
    page.get_by_role("textbox", name="Your message").focus()
    slowest = page.evaluate("""async () => {
      const area = document.getElementById('text'); let slowest = 0;
      for (let i = 0; i < 20; i++) { const start = performance.now();
        document.execCommand('insertText', false, 'a'); area.getBoundingClientRect();
        slowest = Math.max(slowest, performance.now() - start); await new Promise(requestAnimationFrame); }
      return slowest; }""")
    assert slowest < 50


@pytest.mark.browser
@pytest.mark.parametrize(
    ("scheme", "locale", "width"), [("light", "en-US", 1280), ("dark", "zh-TW", 360)], ids=["wide", "phone"]
)
def test_axe_finds_nothing_on_any_page(
    visit: Visit, site: Any, violations: Violations, scheme: str, locale: str, width: int
) -> None:
    """Dark and light, English and Chinese, wide and narrow; the two rows cover each of them once."""
    fill(site)
    site.say("Here is **how**.\n\n```python\nx = 1\n```\n\n\\(x^2\\)\n\n| a |\n|---|\n| 1 |", "Second.")
    page = visit("/", role="operator", width=width, color_scheme=scheme, locale=locale)
    page.locator("#text").fill("How?")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_be_visible()
    page.locator("[data-action='regenerate']").click()
    expect(page.locator(".pick")).to_be_visible()
    problems = []
    for path in [page.url.removeprefix(site.url), *PAGES]:
        if not page.url.endswith(path):
            open_whole(page, path)
        problems += [(path, *each) for each in violations(page)]
    assert problems == []

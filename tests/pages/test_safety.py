"""Whatever a model or a person writes, a page runs only our own scripts and asks only our own server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]

CORPUS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>click</a>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt&colon;alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[click](vbscript:alert(1))",
    "<javascript:alert(1)>",
    '[click](https://example.invalid/"onmouseover="alert(1))',
    '[click](https://example.invalid "title" onclick="alert(1)")',
    "![leak](https://example.invalid/?stolen=secret)",
    "![leak](//example.invalid/pixel.png)",
    "![x](x' onerror='alert(1))",
    "[ref]\n\n[ref]: javascript:alert(1)",
    "```<img/src=x/onerror=alert(1)>\ncode\n```",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\ncode\n```',
    "| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |",
    "<style>@import 'https://example.invalid/x.css';</style>",
    "<math><mtext></table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<form action=https://example.invalid><button formaction=javascript:alert(1)>go</button></form>",
    "<base href=https://example.invalid><meta http-equiv=refresh content='0;url=https://example.invalid'>",
    "</template><script>alert(1)</script>",
    "\\(\\text{<script>alert(1)</script>}\\)",
    "$\\href{javascript:alert(1)}{x}$",
    "$$\n\\text{</math><img src=x onerror=alert(1)>}\n$$",
    "\\[\\style{background:url(https://example.invalid)}{x}\\]",
    "<math href=javascript:alert(1)><mtext><annotation-xml encoding='text/html'><img src=x onerror=alert(1)>",
    "<svg><foreignObject><iframe srcdoc='<script>parent.alert(1)</script>'></foreignObject></svg>",
    "<details open ontoggle=alert(1)><marquee onstart=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt; \u2028 \u0000 {{ 7 * 7 }} ${alert(1)}",
]
TELLTALES = (
    "script:not([src]):not([type='application/json']), iframe, object, embed, form[action], base, style"
)


@pytest.mark.parametrize("chunk", range(3))
def test_nothing_in_a_message_runs_or_loads(visit: Visit, site: Any, chunk: int) -> None:
    """Shown while it streams, after its end, and when the page is loaded again."""
    texts = [text.replace("\x00", "") for text in CORPUS[chunk::3]]
    site.say("\n\n".join(texts))
    page = visit()
    page.evaluate("() => { window.alert = () => { window.hit = true; }; }")
    page.get_by_role("textbox", name="Your message").fill("\n\n".join(texts))
    page.keyboard.press("Enter")
    message = page.locator(".message.assistant[data-status='complete']")
    expect(message).to_be_visible()
    for _ in range(2):
        assert page.locator(f"main :is({TELLTALES}), main img, main svg:not(.icon)").count() == 0
        assert page.locator("main a:not([href^='http']):not([href^='/']):not([href^='?'])").count() == 0
        assert page.evaluate(
            "[...document.querySelectorAll('main *')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))"
        )
        assert not page.evaluate("window.hit === true")
        page.reload()
        expect(message).to_be_visible()


def test_a_hostile_title_stays_a_title(visit: Visit) -> None:
    page = visit()
    page.get_by_role("textbox", name="Your message").fill("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    expect(page.locator("#dialogues .item")).to_contain_text("<img src=x onerror=alert(1)>")
    page.reload()
    expect(page.locator("#title")).to_contain_text("<img src=x onerror=alert(1)>")


def test_scripts_cannot_write_html_themselves(browser: Browser, site: Any) -> None:
    page = browser.new_page()
    page.goto(f"{site.url}/sign-in")
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch (error) { return true; } }"
    )
    page.close()
    assert refused


def test_a_form_is_never_sent_without_its_script(browser: Browser, site: Any) -> None:
    """Who is quicker than the script loses nothing, no words end up in an address, and the script still comes."""
    page, held = browser.new_page(base_url=site.url), list[Route]()
    page.route("**/forms.js", lambda route: held.append(route))
    page.goto("/sign-in", wait_until="commit")
    name, send = page.get_by_label("Name"), page.get_by_role("button", name="Sign in")
    name.fill("somebody")
    page.get_by_label("Password").fill("a long password")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert (page.url, name.input_value()) == (f"{site.url}/sign-in", "somebody")
    held[0].continue_()
    page.wait_for_load_state()
    send.click()
    expect(page.get_by_role("alert")).to_contain_text("Name or password is wrong")
    assert name.input_value() == "somebody"
    page.close()


def test_sign_in_goes_back_only_to_this_server(visit: Visit) -> None:
    for path in ("//example.invalid", "/\\example.invalid", "https://example.invalid", "javascript:alert(1)"):
        page = visit(f"/sign-in?next={path}")
        assert page.locator("form").get_attribute("data-then") == "/"


def test_nothing_in_a_shared_chat_in_search_or_in_instructions_runs(visit: Visit, site: Any) -> None:
    texts = "\n\n".join(text for text in CORPUS if "\x00" not in text)
    site.say(texts)
    page = visit("/account", role="user")
    page.get_by_label("What should the model know").fill(texts[:2000])
    page.locator("form", has=page.get_by_label("What should the model know")).get_by_role("button").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.goto("/")
    page.get_by_role("textbox", name="Your message").fill("findme " + texts)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant[data-status='complete']")).to_be_visible()
    page.reload()
    page.get_by_text("This chat follows your instructions").click()
    page.get_by_role("searchbox").fill("findme")
    expect(page.locator("#dialogues .found")).to_have_count(1)
    page.get_by_role("button", name="Share this chat").click()
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_label("Link")).to_be_visible()
    link = page.get_by_label("Link").input_value().removeprefix(site.url)
    for each in (page, visit(link)):
        assert each.locator(f":is({TELLTALES}):not(dialog form, .frame form)").count() == 0
        assert each.locator("main img, main svg:not(.icon), aside img").count() == 0
        assert each.evaluate(
            "[...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))"
        )

"""Markdown becomes HTML that shows what was meant and does nothing else."""

from __future__ import annotations

import re
import time
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.web import maths
from tutelage.web.markdown import ATTRIBUTES, BLOCK_TAGS, TABLE_TAGS, TEXT_TAGS, render

MARKUP = [
    "<",
    ">",
    '"',
    "'",
    "&",
    "](",
    "![",
    "```",
    "|",
    "`",
    "**",
    "# ",
    "- ",
    "    ",
    "[a]: ",
    "--",
    "html",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\text{",
    "\\frac",
    "}",
]
ATTACKS = ["javascript:", "onerror=", "<script>", "//x.invalid", "<svg/onload=", "http://e.invalid"]
PIECES = st.sampled_from([*MARKUP, *ATTACKS, "\n", "\n\n", "\t", "\u2028", "文"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**bold** and *light*", "<p><strong>bold</strong> and <em>light</em></p>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("~~gone~~", "<p><s>gone</s></p>"),
        ("3. three", '<ol start="3" dir="auto">\n<li>three</li>\n</ol>'),
        ("a < b && c", "<p>a &lt; b &amp;&amp; c</p>"),
        ("<b>raw</b>", "<p>&lt;b&gt;raw&lt;/b&gt;</p>"),
        ("", ""),
    ],
)
def test_text_is_set(text: str, expected: str) -> None:
    assert render(text) == expected


def test_code_is_coloured_by_classes_and_named() -> None:
    html = render("```python\nreturn 1 < 2\n```")
    assert '<div class="code" data-language="python"><pre tabindex="0"><code>' in html
    assert '<span class="k">return</span>' in html
    assert "&lt;" in html
    assert "style=" not in html


@pytest.mark.parametrize("fence", ["```nonsense\n<b>\n```", "```\n<b>\n```", "    <b>"])
def test_code_in_no_known_language_stays_plain(fence: str) -> None:
    assert "<code>&lt;b&gt;\n</code>" in render(fence)


def test_cells_are_aligned_without_inline_styles() -> None:
    html = render("| a | b |\n|:-:|--:|\n| 1 | 2 |")
    assert '<td align="center">1</td>\n<td align="right">2</td>' in html
    assert "style" not in html


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("![a cat](https://e.invalid/c.png)", "a cat"),
        ("![](https://e.invalid/c.png)", "https://e.invalid/c.png"),
    ],
)
def test_an_image_becomes_a_link(text: str, label: str) -> None:
    html = render(text)
    assert "<img" not in html
    assert f">{label}</a>" in html
    assert 'href="https://e.invalid/c.png"' in html


def test_a_link_opens_elsewhere_and_tells_nothing_about_this_page() -> None:
    html = render("[x](https://e.invalid)")
    assert 'target="_blank"' in html
    assert 'rel="noopener noreferrer nofollow ugc"' in html


@pytest.mark.parametrize(
    ("text", "address", "after"),
    [
        ("see https://e.invalid/a?b=1.", "https://e.invalid/a?b=1", "."),
        ("(http://localhost:8000/x)", "http://localhost:8000/x", ")"),
        ("https://e.invalid/a_(b)", "https://e.invalid/a_(b)", "</p>"),
        ("**https://e.invalid**", "https://e.invalid", "</strong>"),
        ("請見https://e.invalid。謝謝", "https://e.invalid", "。"),
    ],
)
def test_an_address_is_a_link_without_the_punctuation_after_it(text: str, address: str, after: str) -> None:
    html = render(text)
    assert f'<a href="{address}" ' in html
    assert f">{address}</a>{after}" in html


@pytest.mark.parametrize(
    "text",
    [
        "`https://e.invalid`",
        "    https://e.invalid",
        "xhttps://e.invalid",
        "https://",
        "https://you@e.invalid",
    ],
)
def test_what_is_no_address_or_hides_one_is_no_link(text: str) -> None:
    assert "<a" not in render(text)
    assert render("[https://e.invalid](https://e.invalid)").count("<a") == 1


def test_tasks_are_marked_as_open_or_done() -> None:
    assert '<li class="task">one</li>\n<li class="task done">two</li>' in render("- [ ] one\n- [x] two")
    assert "task" not in render("[ ] one\n\n- [x](y) two\n- [x]two")


def test_lists_quotations_and_tables_run_in_the_direction_of_their_words() -> None:
    html = render("- a\n\n1. b\n\n> c\n\n| d |\n|---|\n| e |")
    for tag in ("ul", "ol", "blockquote", "table"):
        assert f'<{tag} dir="auto">' in html


@pytest.mark.parametrize(
    "scheme", ["javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd"]
)
def test_a_link_with_another_scheme_is_no_link(scheme: str) -> None:
    assert "<a" not in re.sub(r'<a target[^>]*rel="[^"]*">', "", render(f"[x]({scheme})"))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=25).map("".join))
def test_only_known_tags_and_attributes_come_out(text: str) -> None:
    allowed = TEXT_TAGS | BLOCK_TAGS | TABLE_TAGS | maths.TAGS
    for tag, attributes in re.findall(r"<([a-zA-Z][^\s>/]*)((?:\s[^<>]*)?)>", render(text)):
        assert tag in allowed
        names = set(re.findall(r'\s([a-z-]+)="[^"]*"', attributes))
        assert names <= (ATTRIBUTES | maths.ATTRIBUTES).get(tag, set()) | {"class", "rel", "target"}
        for address in re.findall(r'\shref="([^"]*)"', attributes):
            assert not re.match(r"\s*(javascript|data|vbscript|file):", address, re.IGNORECASE)


def test_a_long_text_is_rendered_in_time() -> None:
    assert "<p>" in render("[" * 5000 + "\n\n" + "> " * 500 + "x\n\n" + "*a" * 5000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\(x^2\)", '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'),
        ("$y_1$", '<math display="inline"><mrow><msub><mi>y</mi><mn>1</mn></msub></mrow></math>'),
        ("\\[\n\\frac12\n\\]", '<div class="formula" tabindex="0"><math display="block">'),
        ("$$\na+b\n$$\nafter", "<p>after</p>"),
        (r"$$\begin{aligned}a&=b\\c&=d\end{aligned}$$", "<mtable><mtr><mtd><mi>a</mi></mtd>"),
    ],
)
def test_formulas_are_set(text: str, expected: str) -> None:
    assert expected in render(text)


@pytest.mark.parametrize("script", ["^{-1}", "_i", "_i^2"])
def test_a_matrix_with_an_exponent_or_index_is_one_base(script: str) -> None:
    """Browsers show `msup` with another number of parts than two as a row, with the exponent beside its base."""
    html = render(rf"\(\begin{{pmatrix}}a&b\\c&d\end{{pmatrix}}{script}\)")
    formula = ElementTree.fromstring(re.sub(r"^<p>|</p>$", "", html))
    (scripted,) = [each for each in formula.iter() if each.tag in ("msub", "msup", "msubsup")]
    assert len(scripted) == {"msub": 2, "msup": 2, "msubsup": 3}[scripted.tag]
    assert scripted[0].find("mtable") is not None


@pytest.mark.parametrize(
    "text",
    ["It is $5, or $6.", r"\$x\$", "`$x$`", "```\n$$\nx\n$$\n```", "$ x $", "a$x$b", "$$ open", r"\( open"],
)
def test_money_and_code_are_not_formulas(text: str) -> None:
    assert "<math" not in render(text)


@pytest.mark.parametrize(
    "text",
    [
        r"\(\text{<script>alert(1)</script>}\)",
        r"\(\text{</math><img src=x onerror=alert(1)>}\)",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\style{background:url(//e.invalid)}{x}$",
        r"$\text{<style><img src=x onerror=alert(1)>}$",
        r"$\class{code}{x}$",
    ],
)
def test_formulas_bring_nothing_along(text: str) -> None:
    html = render(text)
    assert "<math" in html
    for word in ("script", "img", "href", "style", "class", "alert", "onerror"):
        assert word not in html


def test_a_formula_that_cannot_be_read_is_shown_as_it_was_written() -> None:
    assert render(r"\(\left( x\)") == r"<p><code>\left( x</code></p>"
    deep = "{" * 1500
    assert deep in render(rf"\({deep}\)")


@pytest.mark.parametrize("piece", [r"\(", r"\[", "\\[ x\n", "$$", "$ ", "$x", "$$ x\n", r"\(x"])
def test_unclosed_formulas_take_no_time(piece: str) -> None:
    started = time.process_time()
    render(piece * (20_000 // len(piece)))
    assert time.process_time() - started < 2

"""Markdown to HTML that is safe to show, whoever wrote it.

Three steps, in this order: parse with raw HTML switched off, colour code and set formulas, and sanitise the finished
HTML last, so that nothing added on the way escapes the sanitiser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from tutelage.web import maths

LONGEST_HIGHLIGHT = 50_000
TEXT_TAGS = {"a", "br", "code", "del", "em", "s", "span", "strong"}
BLOCK_TAGS = {"blockquote", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
TABLE_TAGS = {"table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {
    "a": {"href", "title"},
    "blockquote": {"dir"},
    "div": {"data-language", "tabindex"},
    "ol": {"dir", "start"},
    "pre": {"tabindex"},
    "table": {"dir"},
    "td": {"align"},
    "th": {"align"},
    "ul": {"dir"},
}
_SCHEME = re.compile(r"(?<![A-Za-z0-9])https?$", re.IGNORECASE)
_ADDRESS = re.compile(r"://(?![^\s/]*@)[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?(?:[/?#][\w./?#:@!$&'()*+,;=%~-]*)?")
_AFTER = ".,;:!?'*_~"
_TASK = re.compile(r"\[([ xX])\] ")
_DIRECTED = {"blockquote_open", "bullet_list_open", "ordered_list_open"}
CODE_CLASSES = {name for name in STANDARD_TYPES.values() if name}


@lru_cache(maxsize=1024)
def render(text: str) -> str:
    """HTML of a message. Remote images become links, so that showing an answer never sends a request."""
    return nh3.clean(
        _parser().render(text),
        tags=TEXT_TAGS | BLOCK_TAGS | TABLE_TAGS | maths.TAGS,
        attributes=ATTRIBUTES | maths.ATTRIBUTES,
        allowed_classes={"span": CODE_CLASSES, "div": {"code", "formula", "table"}, "li": {"done", "task"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"])
    maths.install(parser)
    parser.inline.ruler.before("escape", "address", _address)
    parser.core.ruler.push("lists", _dress_lists)
    parser.add_render_rule("image", _image_as_link)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    parser.add_render_rule("table_open", lambda *_: '<div class="table" tabindex="0"><table dir="auto">')
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    parser.add_render_rule("td_open", _cell)
    parser.add_render_rule("th_open", _cell)
    return parser


def _address(state: StateInline, silent: bool) -> bool:
    """An address in a text is a link, without the punctuation that follows it."""
    scheme = _SCHEME.search(state.pending[-6:])
    rest = scheme and _ADDRESS.match(state.src, state.pos, state.posMax)
    if not scheme or not rest or state.linkLevel:
        return False
    address = _trimmed(scheme[0] + rest[0])
    if not silent:
        state.pending = state.pending[: -len(scheme[0])]
        state.push("link_open", "a", 1).attrs = {"href": state.md.normalizeLink(address)}
        state.push("text", "", 0).content = address
        state.push("link_close", "a", -1)
    state.pos += len(address) - len(scheme[0])
    return True


def _trimmed(address: str) -> str:
    address = address.rstrip(_AFTER)
    while address.endswith(")") and address.count(")") > address.count("("):
        address = address[:-1].rstrip(_AFTER)
    return address


def _dress_lists(state: StateCore) -> None:
    """Lists and quotations run in the direction of their words; a task that is to be done or done is marked."""
    for index, token in enumerate(state.tokens):
        if token.type in _DIRECTED:
            token.attrSet("dir", "auto")
        elif token.type == "inline" and index > 1 and state.tokens[index - 2].type == "list_item_open":
            first = token.children[0] if token.children else token
            if mark := _TASK.match(first.content):
                first.content = first.content[4:]
                state.tokens[index - 2].attrSet("class", "task" if mark[1] == " " else "task done")


def _highlight(code: str, language: str) -> str:
    if not language or len(code) > LONGEST_HIGHLIGHT:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
    code = _highlight(token.content, language)
    return f'<div class="code" data-language="{escape(language)}"><pre tabindex="0"><code>{code}</code></pre></div>\n'


def _image_as_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    source = str(token.attrs.get("src", ""))
    label = self.renderInlineAsText(token.children, options, env) or source
    return f'<a href="{escape(source)}">{escape(label)}</a>'


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """A table cell; the alignment as an attribute, because inline styles are not allowed on our pages."""
    token = tokens[index]
    style = str(token.attrs.get("style", ""))
    align = f' align="{style.removeprefix("text-align:")}"' if style else ""
    return f"<{token.tag}{align}>"

r"""Maths in Markdown: `\(…\)`, `\[…\]`, `$…$` and `$$…$$` as LaTeX become MathML.

What comes out is not safe by itself (`\text{<script>…}` passes through the converter): `web.markdown` sanitises it with
everything else, last, against the tags and attributes that are listed here. A formula that cannot be read is shown
as its source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from xml.etree.ElementTree import Element, tostring
from xml.sax.saxutils import unescape

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 4000
MOST_LINES = 30
TAGS = set(
    re.findall(
        r"\w+",
        """math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mroot mrow ms mspace msqrt mstyle msub
        msubsup msup mtable mtd mtext mtr munder munderover""",
    )
)
ATTRIBUTES = {
    "math": {"display"},
    "menclose": {"notation"},
    "mfrac": {"linethickness"},
    "mi": {"mathvariant"},
    "mo": {
        "accent",
        "fence",
        "form",
        "largeop",
        "maxsize",
        "minsize",
        "movablelimits",
        "separator",
        "stretchy",
    },
    "mover": {"accent"},
    "mspace": {"width"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtable": {"columnalign", "columnspacing", "displaystyle", "rowspacing"},
    "mtd": {"columnalign"},
    "munder": {"accentunder"},
}
_ROWS = re.compile(r"\\(begin|end)\{(aligned|align|split|gathered|gather|eqnarray)\*?\}")
_PARTS = {"msub": 2, "msup": 2, "msubsup": 3}
_BRACKETS = {r"\(": r"\)", r"\[": r"\]"}
_INLINE = re.compile(  # each piece ends where another begins, so that no text takes more than one pass
    r"""\\\( ((?:(?!\\[()]).)+) \\\)
      | \\\[ ((?:(?!\\[\[\]]).)+) \\\]
      | \$\$ ((?:(?!\$\$).)+) \$\$
      | (?<![\\\w]) \$ (?!\s) ([^$\n]+) (?<![\s\\]) \$ (?!\w)""",
    re.DOTALL | re.VERBOSE,
)


def install(parser: MarkdownIt) -> None:
    """Teach a Markdown parser formulas."""
    parser.inline.ruler.before("escape", "maths", _inline)
    parser.block.ruler.before("fence", "maths", _block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.add_render_rule("maths", _show)


@lru_cache(maxsize=512)
def mathml(source: str, *, block: bool) -> str:
    """One formula as MathML, not yet safe to show; its escaped source when it cannot be read."""
    display = "block" if block else "inline"
    source = source.strip()
    if len(source) <= LONGEST:
        try:
            formula = convert_to_element(_ROWS.sub(r"\\\1{matrix}", source), display=display)
            _group_bases(formula)
            return unescape(tostring(formula, encoding="unicode"))
        except (
            Exception
        ):  # the converter raises whatever its parser stumbles over, on what any model may write
            pass
    return f"<code>{escape(source)}</code>"


def _group_bases(formula: Element) -> None:
    """One base for each index and exponent: of a matrix in brackets the converter leaves three, which is no MathML."""
    for script in [*formula.iter()]:
        loose = len(script) - _PARTS.get(script.tag, len(script))
        if loose > 0:
            base = Element("mrow")
            base.extend(script[: loose + 1])
            script[: loose + 1] = [base]


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "\\$":
        return False
    match = _INLINE.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        token = state.push("maths", "", 0)
        token.content = next(filter(None, match.groups()))
        token.meta = {"block": match[2] is not None or match[3] is not None}
    state.pos = match.end()
    return True


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""`$$` or `\[` at the beginning of a line, up to a line that ends with its other half; no blank line between."""
    if state.is_code_block(start):
        return False
    first = state.bMarks[start] + state.tShift[start]
    opening = state.src[first : first + 2]
    closing = "$$" if opening == "$$" else _BRACKETS.get(opening) if opening == r"\[" else None
    if closing is None:
        return False
    last = start
    while last < min(end, start + MOST_LINES) and not state.isEmpty(last):
        text = state.src[first + 2 if last == start else state.bMarks[last] : state.eMarks[last]].rstrip()
        if text.endswith(closing):
            break
        last += 1
    else:
        return False
    if not silent:
        token = state.push("maths", "", 0)
        token.block = True
        token.content = state.src[first + 2 : state.eMarks[last]].rstrip().removesuffix(closing)
        token.meta = {"block": True}
        token.map = [start, last + 1]
    state.line = last + 1
    return True


def _show(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    shown = mathml(token.content, block=token.meta["block"])
    return f'<div class="formula" tabindex="0">{shown}</div>\n' if token.block else shown

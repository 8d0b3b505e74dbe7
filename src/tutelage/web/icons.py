"""Icons: strokes on a 24 by 24 grid, in the colour of the text.

The drawings stand once in each page (`templates/icons.svg`); an icon is a short reference to one of them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from markupsafe import Markup

SPRITE = Path(__file__).parent / "templates" / "icons.svg"


def icon(name: str, kind: str = "") -> Markup:
    """One icon, silent to screen readers. Raises KeyError for a name that is not there."""
    if name not in _names():
        raise KeyError(name)
    classes = f"icon {kind}".strip()
    return Markup(f'<svg class="{classes}" aria-hidden="true"><use href="#icon-{name}"/></svg>')


@cache
def _names() -> frozenset[str]:
    return frozenset(re.findall(r'id="icon-([a-z-]+)"', SPRITE.read_text(encoding="utf-8")))

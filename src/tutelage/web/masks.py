"""Masked personal data, made visible."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from tutelage.store.masking import CARD, EMAIL, KEY, PHONE

_MASKS = re.compile("|".join(map(re.escape, (CARD, EMAIL, KEY, PHONE))))


def marked(text: str) -> Markup:
    """A masked text as HTML, its masks highlighted."""
    return Markup(_MASKS.sub(lambda mask: f"<mark>{mask[0]}</mark>", str(escape(text))))

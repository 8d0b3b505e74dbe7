"""Every text on the pages goes through `t`. The English text itself is the key.

`NAME.json` beside this file maps English to one other language; a text that is missing there is shown in
English. Adding a language is adding a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

Translate = Callable[..., str]
FOLDER = Path(__file__).parent
DEFAULT = "en"


@cache
def locales() -> tuple[str, ...]:
    """Names of all languages, English first."""
    return (DEFAULT, *sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def texts(locale: str) -> Mapping[str, str]:
    """English to `locale`; empty for English itself."""
    if locale == DEFAULT:
        return {}
    loaded: dict[str, str] = json.loads((FOLDER / f"{locale}.json").read_text(encoding="utf-8"))
    return loaded


def translator(locale: str) -> Translate:
    """The function `t(text, **values)` of one language; values fill the {names} in the text."""
    catalogue = texts(locale)

    def t(text: str, **values: object) -> str:
        translated = catalogue.get(text, text)
        return translated.format(**values) if values else translated

    return t


def choose(preferred: str | None, accept_language: str) -> str:
    """The language for a reader: the one they chose, else the first of their browser's that we have."""
    if preferred in locales():
        return str(preferred)
    for tag in re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*", re.sub(r";q=[0-9.]+", "", accept_language)):
        if tag.lower().startswith("en"):
            return DEFAULT
        match = next((name for name in locales() if _reads(tag.lower(), name.lower())), None)
        if match:
            return match
    return DEFAULT


def _reads(tag: str, locale: str) -> bool:
    """Whether a browser's language tag is served by a locale: zh-TW and zh-HK read zh-Hant."""
    if tag in ("zh-tw", "zh-hk", "zh-mo"):
        tag = "zh-hant"
    return tag == locale or tag.startswith(locale + "-")

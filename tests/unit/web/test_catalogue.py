"""Every text has a translation, and nothing is translated that no page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tutelage.web
from tutelage.web import catalogue
from tutelage.web.assets import Assets
from tutelage.web.templating import HERE, texts_of_scripts

WEB = Path(tutelage.web.__file__).parent
CALL = re.compile(r"""\bt\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
OTHERS = [name for name in catalogue.locales() if name != "en"]


def shown() -> set[str]:
    """Every text that a template, a page or a script passes to `t`."""
    files = [*WEB.glob("templates/*.html"), *WEB.glob("pages/*.py"), *WEB.glob("*.py")]
    found = {literal[1:-1] for file in files for literal in CALL.findall(file.read_text(encoding="utf-8"))}
    return found | texts_of_scripts(Assets(HERE / "static"))


@pytest.mark.parametrize("locale", OTHERS)
def test_each_language_has_exactly_the_texts_that_are_shown(locale: str) -> None:
    known = set(catalogue.texts(locale))
    assert shown() - known == set()
    assert known - shown() == set()


@pytest.mark.parametrize("locale", OTHERS)
def test_a_translation_has_the_names_of_its_original(locale: str) -> None:
    for text, translation in catalogue.texts(locale).items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", translation)), text


def test_names_are_filled_in_and_a_missing_text_stays_english() -> None:
    t = catalogue.translator("en")
    assert t("{count} messages", count=3) == "3 messages"
    assert t("No such text {here}") == "No such text {here}"


@pytest.mark.parametrize(
    ("preferred", "header", "expected"),
    [
        (None, "", "en"),
        (None, "de-DE,de;q=0.9", "en"),
        (None, "zh-TW,zh;q=0.9,en;q=0.8", "zh-Hant"),
        (None, "zh-Hant-HK", "zh-Hant"),
        (None, "en-GB,zh-TW;q=0.5", "en"),
        ("en", "zh-TW", "en"),
        ("zh-Hant", "en", "zh-Hant"),
        ("xx", "en", "en"),
        (None, ";;;q=,,--", "en"),
    ],
)
def test_the_reader_chooses_before_the_browser(preferred: str | None, header: str, expected: str) -> None:
    assert catalogue.choose(preferred, header) == expected

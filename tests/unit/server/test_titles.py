from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.server.titles import title_of


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("What is a rainbow?\nIn short.", "What is a rainbow?"),
        ("Hello! How do I read a CSV file? It is big.", "How do I read a CSV file?"),
        ("Hello, who are you?", "Who are you?"),
        ("hey there iPhone", "IPhone"),
        ("你好，請問台北的天氣如何？我明天要去。", "請問台北的天氣如何？"),
        ("hi", "hi"),
        ("Hello", "Hello"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("# **Big** `plan`\n\nmore", "Big plan"),
        ("- one\n- two", "one"),
        ("Translate 3.5 km into miles", "Translate 3.5 km into miles"),
        ("word " * 30, "word word word word word word word word word word word word…"),
        ("雨" * 40, "雨" * 30 + "…"),
        ("x" * 100, "x" * 60 + "…"),
    ],
)
def test_a_title_is_what_the_first_sentence_says(text: str, title: str) -> None:
    assert title_of(text) == title


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_every_text_has_a_short_title_on_one_line(text: str) -> None:
    title = title_of(text)
    assert len(title) <= 61
    assert len(title.splitlines()) <= 1

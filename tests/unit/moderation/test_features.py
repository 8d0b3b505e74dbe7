from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.moderation.features import BITS, WINDOW, hashed, normalise, windows


def grams(text: str) -> set[int]:
    return set(hashed([text]).indices.tolist())


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hello,  World!", "hello , world !"),
        ("don't", "dont"),
        ("ＦＵＬＬ width", "full width"),
        ("zero\u200bwidth\u00ad", "zerowidth"),
        ("naïve café", "naive cafe"),
        ("h4te l0s3rs", "hate losers"),
        ("h a t e", "hate"),
        ("h.a.t.e", "hate"),
        ("haaaaate", "haate"),
        ("see https://example.org/x now", "see url now"),
        ("@bob hi", "user hi"),
        ("in 2023", "in 0"),
        ("漢語與電腦", "汉语与电脑"),
        ("snake_case", "snake case"),
        ("", ""),
    ],
)
def test_the_form_that_is_judged(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text())
def test_any_text_can_be_hashed(text: str) -> None:
    rows = hashed([text])
    assert len(rows) == 1
    assert rows.indices.max(initial=0) < 1 << BITS
    assert (np.diff(rows.indices.astype(np.int64)) > 0).all()


def test_a_lone_surrogate_can_be_hashed() -> None:
    assert len(hashed(["\ud800 bad"]).indices)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_text_is_hashed_alike_alone_and_among_others(texts: list[str]) -> None:
    together = hashed(texts)
    for row, text in enumerate(texts):
        start, end = together.starts[row], together.starts[row + 1]
        assert together.indices[start:end].tolist() == hashed([text]).indices.tolist()


def test_words_are_counted_with_their_letters_and_neighbours() -> None:
    # " ab ": 2 pairs with a space, "ab"; 2 of three letters, 1 of four; the word. One more for the pair of words.
    assert len(grams("ab")) == 3 + 2 + 1 + 1
    assert len(grams("ab cd")) == 2 * len(grams("ab")) + 1
    assert grams("ab cd") != grams("cd ab")


def test_chinese_characters_count_alone() -> None:
    assert len(grams("好")) == len(grams("x")) + 1
    assert len(grams("好人") & grams("坏人")) > len(grams("ab") & grams("cb"))


def test_rows_can_be_taken_in_any_order() -> None:
    rows = hashed(["one", "", "two three", "four"])
    taken = rows.take(np.array([2, 1, 0, 2]))
    assert taken.sizes.tolist() == rows.sizes[[2, 1, 0, 2]].tolist()
    assert taken.indices[: taken.sizes[0]].tolist() == hashed(["two three"]).indices.tolist()


@pytest.mark.parametrize("length", [0, 1, WINDOW, WINDOW + 1, 2 * WINDOW - 1, 2 * WINDOW, 5 * WINDOW + 7])
def test_windows_cover_a_text_and_end_with_it(length: int) -> None:
    text = "".join(chr(0x4E00 + place) for place in range(length))
    parts = windows(text)
    assert all(len(part) <= WINDOW for part in parts)
    assert parts[-1].endswith(text[-1:])
    assert {letter for part in parts for letter in part} == set(text)
    assert len(set(parts)) == len(parts)

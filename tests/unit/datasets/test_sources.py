"""What all sources share: places, origins, repetitions, and that no input whatever gets through as an exception."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.datasets.sources import (
    PARSERS,
    Parser,
    Problem,
    Skipped,
    alpaca,
    hh,
    messages,
    oasst,
    ranked,
    read,
    readers,
)
from tutelage.dialogue import Dialogue, Message, check_turns
from tutelage.errors import DataError

PROMPT = {"prompt": "Hi"}


def test_problems_name_file_and_line_and_the_others_are_read(write_rows: Any) -> None:
    path = write_rows(PROMPT, 3, {"messages": 4}, {"prompt": "Ho"})
    first, *problems, last = read(path, messages.parse, source="", default_source="here")
    assert [str(problem) for problem in problems] == [
        f"{path}:2: a row should be an object, not a number",
        f"{path}:3: messages should be a list, not a number",
    ]
    assert [item.messages[0].content for item in (first, last)] == ["Hi", "Ho"]


@pytest.mark.parametrize(("given_source", "origins"), [("", ["here", "row"]), ("told", ["told", "told"])])
def test_the_source_is_the_one_told_or_the_rows_or_the_default(
    write_rows: Any, given_source: str, origins: list[str]
) -> None:
    path = write_rows(PROMPT, PROMPT | {"source": "row"})
    found = list(read(path, messages.parse, source=given_source, default_source="here"))
    assert [one.source for one in found if isinstance(one, Dialogue)] == origins[: len(set(origins))]


def test_an_item_is_given_once(write_rows: Any) -> None:
    path = write_rows(PROMPT, PROMPT, {"prompt": "Ho"}, PROMPT)
    found = list(read(path, messages.parse, source="", default_source="here"))
    assert [type(one) for one in found] == [Dialogue, Skipped, Dialogue, Skipped]


def test_files_of_a_folder_are_read_in_turn(write_rows: Any) -> None:
    write_rows({"prompt": "2"}, name="b.jsonl")
    write_rows(name="empty.jsonl")
    path = write_rows({"prompt": "1"}, name="a.jsonl")
    found = list(read(path.parent, messages.parse, source="", default_source="here"))
    assert [one.messages[0].content for one in found if isinstance(one, Dialogue)] == ["1", "2"]


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
def test_no_rows_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="there are no rows"):
        list(read(path, messages.parse, source="", default_source="here"))


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
LEAF: dict[str, Any] = {"text": "a", "role": "assistant", "rank": 0, "lang": "en", "replies": []}
EXAMPLES: list[tuple[Parser, dict[str, Any]]] = [
    (messages.parse, {"messages": MESSAGES}),
    (messages.parse, {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}),
    (alpaca.parse, {"instruction": "Hi", "input": "", "output": "Ho", "history": [["1", "2"]]}),
    (alpaca.parse, {"instruction": "Hi", "instances": [{"input": "", "output": "Ho"}]}),
    (oasst.parse, {"prompt": {**LEAF, "role": "prompter", "replies": [LEAF, {**LEAF, "rank": 1}]}}),
    (hh.parse, {"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: Hm"}),
    (ranked.parse, {"prompt": MESSAGES[:1], "candidates": ["a", "b", "c"], "ranking": [[1], [0, 2]]}),
    (ranked.parse, {"prompt": "Hi", "candidates": ["a", "b"], "preferences": [{"better": 0, "worse": 1}]}),
    (ranked.parse, {"prompt": "Hi", "chosen": MESSAGES, "rejected": "Hm"}),
    (ranked.parse, {"instruction": "Hi", "output": ["a", "b"]}),
    (
        ranked.parse,
        {"question": "Hi", "passages": [["T", "s"]], "preference": [0, 1, 2, 0, 1, 2]}
        | {f"prediction {number}": f"{number}" for number in range(1, 5)},
    ),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value, as the keys that lead there."""
    inner = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [place, *(deeper for key, entry in inner for deeper in places(entry, (*place, key)))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at a place."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(copy[place[0]], place[1:], new)
    return copy


@st.composite
def spoilt_rows(draw: st.DrawFn) -> tuple[Parser, Any]:
    """A row of a known form with anything at all in one or two of its places."""
    parser, row = draw(st.sampled_from(EXAMPLES))
    for _ in range(draw(st.integers(1, 2))):
        row = replaced(row, draw(st.sampled_from(places(row))), draw(ANYTHING))
    return parser, row


@given(spoilt_rows())
def test_a_spoilt_row_gives_sound_items_or_a_reported_problem(spoilt: tuple[Parser, Any]) -> None:
    parser, row = spoilt
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps([row]))
        found = list(read(path, parser, source="", default_source="here"))
    assert found
    for one in found:
        if isinstance(one, Problem):
            assert (one.path, one.line) == (path, 1)
            assert len(one.reason) < 300
        elif not isinstance(one, Skipped):
            assert_sound(one)


def assert_sound(item: Any) -> None:
    """The item keeps what the rest of the program relies on."""
    turns: tuple[Message, ...] = item.messages if isinstance(item, Dialogue) else item.prompt
    assert check_turns(turns, last=None if isinstance(item, Dialogue) else "user") is None
    assert all(message.content.strip() for message in turns)
    texts = [message.content for message in turns] if isinstance(item, Dialogue) else list(item.candidates)
    assert all("\0" not in text and text.encode() is not None for text in texts)
    if not isinstance(item, Dialogue):
        assert item.preferences
        assert all(p.better != p.worse and p.gap >= 0 for p in item.preferences)
        assert all(0 <= i < len(item.candidates) for p in item.preferences for i in (p.better, p.worse))


@pytest.mark.parametrize(("parser", "row"), EXAMPLES)
def test_a_file_tells_who_reads_it(write_rows: Any, parser: Parser, row: dict[str, Any]) -> None:
    assert parser in [PARSERS[name] for name in readers(write_rows(row, 3))]


def test_nobody_reads_what_is_no_row(write_rows: Any, tmp_path: Path) -> None:
    assert [readers(write_rows(row)) for row in ({"a": 1}, 3)] == [[], []]
    (tmp_path / "broken.jsonl").write_text("{")
    assert readers(tmp_path / "broken.jsonl") == []


@pytest.mark.parametrize(("parser", "row"), EXAMPLES)
def test_the_examples_are_sound_as_they_are(read_rows: Any, parser: Parser, row: dict[str, Any]) -> None:
    found = read_rows(parser, row)
    assert found.items
    assert not found.problems


@given(
    st.binary(max_size=200), st.sampled_from([parser for parser, _ in EXAMPLES]), st.sampled_from(["", ".gz"])
)
def test_no_bytes_are_too_strange(content: bytes, parser: Parser, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.jsonl{suffix}"
        path.write_bytes(content)
        try:
            outcome = [type(one) for one in read(path, parser, source="", default_source="here")]
        except DataError as error:
            outcome = [error.message]
    if outcome != ["there are no rows"] and not str(outcome[0]).endswith("which is not read"):
        assert outcome == [Problem] * len(outcome)
    assert outcome

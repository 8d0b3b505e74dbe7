"""Alpaca, Dolly and self-instruct rows."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.datasets.sources import alpaca
from tutelage.dialogue import Message


def turns(*texts: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Add.", "input": "1 1\n", "output": " 2"}, turns("Add.\n\n1 1", "2")),
        ({"instruction": "Say hi.", "input": "", "output": "Hi."}, turns("Say hi.", "Hi.")),
        ({"instruction": "Add.", "context": "1 1", "response": "2"}, turns("Add.\n\n1 1", "2")),
        (
            {"instruction": "And?", "output": "So.", "history": [["One", "Two"]]},
            turns("One", "Two", "And?", "So."),
        ),
        (
            {"instruction": "Hm?", "output": "Hm.", "system": "Be brief.", "history": None},
            (Message("system", "Be brief."), *turns("Hm?", "Hm.")),
        ),
    ],
)
def test_a_row_is_one_demonstration(read_rows: Any, row: Any, expected: tuple[Message, ...]) -> None:
    (dialogue,) = read_rows(alpaca.parse, row).items
    assert dialogue.messages == expected


def test_a_seed_gives_a_demonstration_an_instance(read_rows: Any) -> None:
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": "two"}]
    found = read_rows(alpaca.parse, {"instruction": "Spell.", "instances": instances})
    assert [item.messages for item in found.items] == [
        turns("Spell.\n\n1", "one"),
        turns("Spell.\n\n2", "two"),
    ]


def test_answers_that_are_cut_or_empty_are_left_out_with_a_reason(read_rows: Any) -> None:
    found = read_rows(
        alpaca.parse,
        {"instruction": "Go on", "response": "and", "maybe_cut": True},
        {"instruction": "Go on", "response": " "},
        {"instruction": "Go on", "response": "and on", "maybe_cut": False},
    )
    assert len(found.items) == 1
    assert list(found.skipped) == ["the answer may have been cut short (maybe_cut)", "the answer is empty"]
    assert not found.problems


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Hi"}, 'there is no "output" or "response"'),
        ({"instruction": " ", "output": "Hi"}, "there is no instruction"),
        ({"instruction": "Hi", "output": 4}, "output should be text, not a number"),
        ({"instruction": 4, "output": "Hi"}, "instruction should be text, not a number"),
        (
            {"instruction": "Hi", "output": ["a", "b"]},
            "output is a list of answers; import a ranking with `tutelage import ranked`",
        ),
        ({"instruction": "Hi", "instances": []}, "there is nothing in this row"),
        ({"instruction": "Hi", "instances": ["a"]}, "an instance should be an object, not text"),
        (
            {"instruction": "Hi", "output": "a", "history": "x"},
            "history should be a list, not text",
        ),
        (
            {"instruction": "Hi", "output": "a", "history": [["x"]]},
            "exchange 1 of the history should be the user's text and the assistant's, neither of them empty",
        ),
    ],
)
def test_what_is_no_instruction_is_a_problem_in_words(read_rows: Any, row: Any, reason: str) -> None:
    found = read_rows(alpaca.parse, row)
    assert not found.items
    assert found.problems == [reason]

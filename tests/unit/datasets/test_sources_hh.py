"""Pairs of transcripts."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.datasets.sources import hh
from tutelage.dialogue import Comparison, Message

OPENING = "\n\nHuman: Tea or coffee?\n\nAssistant: Tea.\n\nHuman: Why?"
PROMPT = (Message("user", "Tea or coffee?"), Message("assistant", "Tea."), Message("user", "Why?"))


def pair(prompt: tuple[Message, ...], chosen: str, rejected: str) -> Comparison:
    return Comparison.from_ranking(prompt, [chosen, rejected], [[0], [1]], source="here")


def row(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": chosen, "rejected": rejected}


def test_the_shared_turns_are_the_prompt(read_rows: Any) -> None:
    texts = row(f"{OPENING}\n\nAssistant: It is gentle.\n", f"{OPENING}\n\nAssistant: Because.")
    assert read_rows(hh.parse, texts).items == [pair(PROMPT, "It is gentle.", "Because.")]


def test_a_reply_may_be_empty(read_rows: Any) -> None:
    texts = row(f"{OPENING}\n\nAssistant: ", f"{OPENING}\n\nAssistant: Because.")
    assert read_rows(hh.parse, texts).items == [pair(PROMPT, "", "Because.")]


def test_messages_in_a_row_by_one_speaker_become_one(read_rows: Any) -> None:
    opening = OPENING.replace("Tea.", "Tea.\n\nAssistant: Green.")
    texts = row(f"{opening}\n\nAssistant: A\n\nAssistant: B", f"{opening}\n\nAssistant: A")
    prompt = (PROMPT[0], Message("assistant", "Tea.\n\nGreen."), PROMPT[2])
    assert read_rows(hh.parse, texts).items == [pair(prompt, "A\n\nB", "A")]


def test_an_empty_message_beside_another_of_the_same_speaker_adds_nothing(read_rows: Any) -> None:
    texts = row(f"{OPENING}\n\nAssistant:\n\nAssistant: B", f"{OPENING}\n\nAssistant: A")
    assert read_rows(hh.parse, texts).items == [pair(PROMPT, "B", "A")]


def test_speakers_are_found_only_at_the_head_of_a_paragraph(read_rows: Any) -> None:
    opening = "Human: Who said 'Human: hello'?\nAssistant: is a word."
    texts = row(f"{opening}\n\nAssistant: I.", f"{opening}\n\nAssistant: You.")
    (comparison,) = read_rows(hh.parse, texts).items
    assert comparison.prompt == (Message("user", opening.removeprefix("Human: ")),)


def test_two_equal_transcripts_are_left_out(read_rows: Any) -> None:
    text = f"{OPENING}\n\nAssistant: Because."
    found = read_rows(hh.parse, row(text, text + "\n"))
    assert (found.items, found.skipped) == ([], {"chosen and rejected are the same": 1})


PARTED = "chosen and rejected part before the last reply, so they are not answers to one prompt"


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"chosen": "x"}, "chosen should begin with 'Human:'"),
        ({"chosen": [], "rejected": []}, "chosen should be text, not a list"),
        (row("So: \n\nHuman: a\n\nAssistant: b", "Human: a"), "chosen should begin with 'Human:'"),
        (row("Human: a\n\nAssistant: b", "Human: c\n\nAssistant: d"), PARTED),
        (row("Human: a\n\nAssistant: b", "Human: a"), PARTED),
        (row("Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "Human: a\n\nAssistant: b"), PARTED),
        (
            row("Human: \n\nAssistant: b", "Human: \n\nAssistant: c"),
            "a message before the last reply is empty",
        ),
        (
            row("Assistant: a\n\nHuman: b\n\nAssistant: c", "Assistant: a\n\nHuman: b\n\nAssistant: d"),
            "turn 1 should be the user's, not the assistant's",
        ),
    ],
)
def test_what_is_no_pair_is_a_problem_in_words(read_rows: Any, texts: Any, reason: str) -> None:
    found = read_rows(hh.parse, texts)
    assert (found.items, found.problems) == ([], [reason])

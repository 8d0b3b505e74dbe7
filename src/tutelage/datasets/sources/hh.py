"""Pairs of transcripts in the form of HH-RLHF: `chosen` and `rejected`, alike but for the last reply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, takewhile

from tutelage.datasets.sources import fields
from tutelage.datasets.sources.found import Item, Row, Skipped
from tutelage.dialogue import Comparison, Message, Role, check_turns
from tutelage.errors import DataError

SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def parse(row: Row) -> Iterator[Item | Skipped]:
    """One pair a row: the longest common run of turns that ends with the human's, and the two replies to it.

    A final reply may be empty: people have preferred silence to a bad answer.
    """
    chosen = turns(fields.text(row.get("chosen"), "chosen"), "chosen")
    rejected = turns(fields.text(row.get("rejected"), "rejected"), "rejected")
    prompt = _common_prompt(chosen, rejected)
    if len(chosen) != len(prompt) + 1 or len(rejected) != len(prompt) + 1:
        raise DataError(
            "chosen and rejected part before the last reply, so they are not answers to one prompt"
        )
    if any(not message.content for message in prompt):
        raise DataError("a message before the last reply is empty")
    if problem := check_turns(prompt, last="user"):
        raise DataError(problem)
    if chosen[-1] == rejected[-1]:
        yield Skipped("chosen and rejected are the same")
    else:
        yield Comparison.from_ranking(prompt, (chosen[-1].content, rejected[-1].content), [[0], [1]])


def turns(transcript: str, name: str) -> list[Message]:
    """The messages of a transcript; several in a row by one speaker become one, a blank line between them."""
    head, *pieces = SPEAKER.split(transcript)
    if head.strip() or not pieces:
        raise DataError(f"{name} should begin with 'Human:'")
    said = zip(pieces[0::2], (piece.strip() for piece in pieces[1::2]), strict=True)
    return [
        Message(SPEAKERS[speaker], "\n\n".join(text for _, text in group if text))
        for speaker, group in groupby(said, key=lambda pair: pair[0])
    ]


def _common_prompt(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    common = [
        one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    ]
    while common and common[-1].role != "user":
        common.pop()
    return common

"""Dialogues as lists of messages (OpenAI's `messages`, ShareGPT's `conversations`), and prompts, bare or answered."""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.datasets.sources import fields
from tutelage.datasets.sources.found import Item, Row
from tutelage.dialogue import Dialogue, Message
from tutelage.errors import DataError

LISTS = ("messages", "conversations", "conversation")
ANSWERS = ("completion", "response", "output", "answer")
JUDGED = ("chosen", "rejected", "candidates")


def parse(row: Row) -> Iterator[Item]:
    """One dialogue a row: a demonstration if it ends with the assistant, a prompt if with the user."""
    source = fields.optional_text(row.get("source"), "source")
    name = next((name for name in LISTS if name in row), None)
    if name:
        said = fields.with_system(row.get("system"), fields.messages(row[name], name))
        yield fields.dialogue(said, source=source)
    elif "prompt" in row:
        yield Dialogue(
            (*fields.prompt(row["prompt"], system=row.get("system")), *_answer(row)), source=source
        )
    elif "mapping" in row:
        raise DataError("a chat of ChatGPT's export; its owner takes it in on the page of their account")
    else:
        raise DataError('there is no "messages", "conversations" or "prompt"')


def _answer(row: Row) -> tuple[Message, ...]:
    """What stands beside a prompt as the answer to it, if anything does."""
    if isinstance(row.get("label"), bool) or any(name in row for name in JUDGED):
        raise DataError("the answers to this prompt were judged; it has none that is to be imitated")
    name = next((name for name in ANSWERS if row.get(name) is not None), None)
    if name is None:
        return ()
    answer = fields.reply(row[name], name).strip()
    if not answer:
        raise DataError(f"{name} is empty")
    return (Message("assistant", answer),)

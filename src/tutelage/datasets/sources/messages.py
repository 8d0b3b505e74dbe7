"""Dialogues as lists of messages: OpenAI's `messages`, ShareGPT's `conversations`, and bare prompts."""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.datasets.sources import fields
from tutelage.datasets.sources.found import Item, Row
from tutelage.dialogue import Dialogue, Message, Role
from tutelage.errors import DataError

SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}


def parse(row: Row) -> Iterator[Item]:
    """One dialogue a row: a demonstration if it ends with the assistant, a prompt if with the user."""
    source = fields.optional_text(row.get("source"), "source")
    if "messages" in row:
        yield fields.dialogue(fields.messages(row["messages"], "messages"), source=source)
    elif "conversations" in row:
        yield fields.dialogue(_conversations(row["conversations"]), source=source)
    elif "prompt" in row:
        yield Dialogue(fields.prompt(row["prompt"]), source=source)
    else:
        raise DataError('there is no "messages", "conversations" or "prompt"')


def _conversations(value: object) -> tuple[Message, ...]:
    turns = []
    for number, entry in enumerate(fields.items(value, "conversations"), start=1):
        if not isinstance(entry, dict):
            raise DataError(f"message {number} should be an object, not {fields.kind(entry)}")
        speaker = entry.get("from")
        if not isinstance(speaker, str) or speaker not in SHAREGPT_ROLES:
            raise DataError(f"message {number} is from {str(speaker)[:40]!r}, not system, human or gpt")
        turns.append(Message(SHAREGPT_ROLES[speaker], fields.text(entry.get("value"), f"message {number}")))
    return fields.tidy(turns)

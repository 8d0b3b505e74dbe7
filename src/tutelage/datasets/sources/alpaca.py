"""Instruction sets: Alpaca (with history), Dolly and self-instruct seeds."""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.datasets.sources import fields
from tutelage.datasets.sources.found import Item, Row, Skipped
from tutelage.dialogue import Message
from tutelage.errors import DataError


def parse(row: Row) -> Iterator[Item | Skipped]:
    """One demonstration a row; one for each instance of a self-instruct seed."""
    if row.get("maybe_cut") is True:
        yield Skipped("the answer may have been cut short (maybe_cut)")
    elif "instances" in row:
        for instance in fields.items(row["instances"], "instances"):
            if not isinstance(instance, dict):
                raise DataError(f"an instance should be an object, not {fields.kind(instance)}")
            yield _demonstration({**instance, "instruction": row.get("instruction")})
    else:
        yield _demonstration(row)


def prompt(row: Row) -> tuple[Message, ...]:
    """System text, history and instruction as messages; the last is the user's.

    The instruction and its input (Dolly: context) become one message, with a blank line between them.
    """
    turns = []
    if system := fields.optional_text(row.get("system"), "system").strip():
        turns.append(Message("system", system))
    for number, pair in enumerate(fields.items(row.get("history") or [], "history"), start=1):
        turns += _exchange(pair, f"exchange {number} of the history")
    return (*turns, Message("user", _request(row)))


def _demonstration(row: Row) -> Item | Skipped:
    name = "response" if "response" in row else "output"
    if name not in row:
        raise DataError('there is no "output" or "response"')
    if isinstance(row[name], list):
        raise DataError(f"{name} is a list of answers; import a ranking with `tutelage import ranked`")
    answer = fields.text(row[name], name).strip()
    question = prompt(row)
    return (
        fields.dialogue((*question, Message("assistant", answer)))
        if answer
        else Skipped("the answer is empty")
    )


def _exchange(pair: object, name: str) -> list[Message]:
    texts = [fields.text(entry, name).strip() for entry in fields.items(pair, name)]
    if len(texts) != 2 or not all(texts):
        raise DataError(f"{name} should be the user's text and the assistant's, neither of them empty")
    return [Message("user", texts[0]), Message("assistant", texts[1])]


def _request(row: Row) -> str:
    parts = [
        fields.optional_text(row.get(name), name).strip() for name in ("instruction", "input", "context")
    ]
    if not any(parts):
        raise DataError("there is no instruction")
    return "\n\n".join(part for part in parts if part)

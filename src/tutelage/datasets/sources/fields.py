"""Typed values out of a row, or a DataError that names the field."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.dialogue import Dialogue, Message, Role, check_turns
from tutelage.errors import DataError

KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "bot": "assistant",
}


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return KINDS.get(type(value), "nothing")


def text(value: object, name: str) -> str:
    """A string that every store can keep: no NUL characters, no lone surrogates. May be empty."""
    if not isinstance(value, str):
        raise DataError(f"{name} should be text, not {kind(value)}")
    if "\0" in value:
        raise DataError(f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds half a surrogate pair at character {error.start + 1}") from error
    return value


def optional_text(value: object, name: str) -> str:
    """`text`, where a missing value (null) counts as empty."""
    return "" if value is None else text(value, name)


def items(value: object, name: str) -> list[object]:
    """A list of anything."""
    if not isinstance(value, list):
        raise DataError(f"{name} should be a list, not {kind(value)}")
    return value


def content(value: object, name: str) -> str:
    """A message's text: a string, or OpenAI's list of text parts."""
    if not isinstance(value, list):
        return text(value, name)
    parts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type", "text") != "text":
            raise DataError(f"{name} has a part that is not text")
        parts.append(text(part.get("text"), name))
    return "".join(parts)


def messages(value: object, name: str) -> tuple[Message, ...]:
    """A list of messages. An empty system message counts as none, another empty one is an error."""
    return tidy(turns(value, name))


def turns(value: object, name: str) -> list[Message]:
    """A list of messages, empty ones included."""
    return [_message(entry, number) for number, entry in enumerate(items(value, name), start=1)]


def _message(entry: object, number: int) -> Message:
    """{role, content} as OpenAI writes it, or {from, value} as ShareGPT does."""
    name = f"message {number}"
    if not isinstance(entry, dict):
        raise DataError(f"{name} should be an object, not {kind(entry)}")
    role = entry.get("role", entry.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise DataError(f"{name} has the role {str(role)[:40]!r}, not system, user or assistant")
    if entry.get("tool_calls") or entry.get("function_call"):
        raise DataError(f"{name} calls a tool")
    if entry.get("weight") == 0:
        raise DataError(f"{name} has the weight 0, but every answer of a demonstration is imitated")
    return Message(ROLES[role.lower()], content(entry.get("content", entry.get("value")), name))


def tidy(said: Sequence[Message]) -> tuple[Message, ...]:
    """The messages without an empty system message; raises DataError when another one is empty."""
    silent = bool(said) and said[0].role == "system" and not said[0].content.strip()
    kept = tuple(said[1:] if silent else said)
    for number, message in enumerate(kept, start=1):
        if not message.content.strip():
            raise DataError(f"message {number} is empty")
    return kept


def dialogue(said: Sequence[Message], *, source: str = "") -> Dialogue:
    """A dialogue whose turns alternate; one that ends with the user is a prompt."""
    if problem := check_turns(said):
        raise DataError(problem)
    return Dialogue(tuple(said), source=source)


def prompt(value: object, name: str = "prompt", *, system: object = None) -> tuple[Message, ...]:
    """What comes before a completion: messages that end with the user's, or text as one such message."""
    said = tidy([Message("user", text(value, name))]) if isinstance(value, str) else messages(value, name)
    said = with_system(system, said)
    if problem := check_turns(said, last="user"):
        raise DataError(problem)
    return said


def with_system(value: object, said: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages below a system message that stands beside them, in a field of its own, if one does."""
    first = Message("system", optional_text(value, "system"))
    return (first, *said) if first.content.strip() and said[:1] != (first,) else said


def reply(value: object, name: str) -> str:
    """One answer: text, a message of the assistant's, or a list of one. May be empty."""
    if isinstance(value, str):
        return text(value, name)
    said = turns([value] if isinstance(value, dict) else value, name)
    if [message.role for message in said] != ["assistant"]:
        raise DataError(f"{name} should be one reply of the assistant's")
    return said[0].content

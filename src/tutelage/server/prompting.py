"""Which messages of a dialogue the model gets to read, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.dialogue import Message
from tutelage.engine.interface import Engine
from tutelage.errors import Conflict, ContextTooLong, Sentence
from tutelage.store import tables

LONGEST_TOKEN = 128
"""Characters of the longest tokens that vocabularies have: runs of spaces and of dashes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids that end where the assistant starts to speak, or goes on, and how many old messages had no room.

    The last `said` of them are what the assistant has said already.
    """

    token_ids: list[int]
    dropped: int = 0
    said: int = 0


def readable(path: Sequence[tables.Message]) -> list[Message]:
    """The messages of a path that a model may read: whole turns, none with blocked or missing words.

    A turn whose question or answer was blocked, or whose answer is empty, is left out as a whole, so that
    user and assistant still take turns.
    """
    kept = [Message(row.role, row.content) for row in path if row.role == "system"][:1]
    turns = [row for row in path if row.role != "system"]
    for question, answer in zip(turns[::2], turns[1::2], strict=False):
        if question.status != "blocked" and answer.status != "blocked" and answer.content:
            kept += [Message("user", question.content), Message("assistant", answer.content)]
    return kept


def fit(engine: Engine, messages: Sequence[Message], *, answer_tokens: int | None, begun: str = "") -> Prompt:
    """Render a dialogue that ends in a user message; the oldest turns that have no room are left out.

    `begun` is what the assistant has said to it already. The system message and the last message always stay. Room for
    the answer is kept, up to a quarter of the context.
    Raises ContextTooLong when even those leave no room.
    """
    refuse_endless(engine, messages[-1].content)
    head = list(messages[:1]) if messages[0].role == "system" else []
    turns = list(messages[len(head) :])
    said = engine.renderer.completion(begun)
    room = engine.context_length - min(answer_tokens or engine.context_length, engine.context_length // 4)
    room -= len(said)
    kept = _newest(engine, turns, room)
    while True:
        token_ids = engine.renderer.prompt([*head, *kept])
        if len(token_ids) <= room or len(kept) == 1:
            break
        kept = kept[2:]
    token_ids += said
    check_room(engine, token_ids)
    return Prompt(token_ids, len(turns) - len(kept), len(said))


def fit_begun(engine: Engine, messages: Sequence[Message], answer_tokens: int | None, begun: str) -> Prompt:
    """Like `fit`, for an answer that goes on. Raises Conflict when it is as long as the model can read."""
    try:
        return fit(engine, messages, answer_tokens=answer_tokens, begun=begun)
    except ContextTooLong as error:
        raise Conflict(
            "The answer is as long as the model can read.", hint="Ask for more in a new message."
        ) from error


def refuse_endless(engine: Engine, text: str) -> None:
    """Raise ContextTooLong for a text so long that there is no need to count: that may take seconds."""
    if len(text) > engine.context_length * LONGEST_TOKEN:
        raise ContextTooLong(
            Sentence(
                "this has {characters} characters, and the model reads at most {most} tokens",
                characters=len(text),
                most=engine.context_length - 1,
            ),
            param="messages",
            hint="shorten it, or send it in parts",
        )


def check_room(
    engine: Engine, token_ids: Sequence[int], *, param: str = "messages", answer: bool = True
) -> None:
    """Raise ContextTooLong unless the model can read these tokens and (with `answer`) say at least one more."""
    most = engine.context_length - answer
    if len(token_ids) > most:
        raise ContextTooLong(
            Sentence(
                "this has {tokens} tokens, and the model reads at most {most}",
                tokens=len(token_ids),
                most=most,
            ),
            param=param,
            hint="shorten it, or send it in parts",
        )


def _newest(engine: Engine, turns: list[Message], room: int) -> list[Message]:
    """The newest turns whose words alone fill the room: all that could fit, without rendering a long history."""
    first, used = len(turns) - 1, 0
    for index in range(len(turns) - 1, -1, -1):
        used += len(engine.renderer.completion(turns[index].content))
        if used > room:
            break
        first = index
    return turns[first + (len(turns) - 1 - first) % 2 :]

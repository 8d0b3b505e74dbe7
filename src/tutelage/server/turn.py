"""One turn of a dialogue: authorise, moderate, stream, moderate, persist. The only place where this happens.

An answer is a row before it is a token. Its text goes into memory as it comes and into the row about once a
second, and it is written to its end whether anybody reads it or not. Readers follow it by position: `seq` of a
delta is the number of characters up to its end, so a reader who comes back with the last `seq` it saw gets the
rest, from memory, from the row after a restart, or from a row that another process is writing.

    kind     seq                 data
    delta    characters so far   {"text"}
    verdict  characters so far   {"side": "output", "state", "categories", "scores", "policy_version", "help"}
    done     characters + 1      {"status": "complete"|"interrupted"|"blocked", "finish_reason", "model_version",
                                  "prompt_tokens", "completion_tokens", "dropped_messages"}
    error    characters + 1      {"message", "code"}: the answer broke off; it is `interrupted`

A verdict may come twice to a reader who comes back. When `done` says `blocked`, hide what was shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from tutelage import dialogue
from tutelage.engine.interface import Sampling
from tutelage.engine.pool import Engines
from tutelage.moderation.gate import Gate, Verdict
from tutelage.store import Store
from tutelage.store.tables import User

EventKind = Literal["delta", "verdict", "done", "error"]


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was accepted: both rows are on disk. A blocked question has an answer that is blocked, too."""

    dialogue_id: str
    user_message_id: str
    answer_id: str
    input_verdict: Verdict


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """What a reader of an answer learns; see the table above."""

    seq: int
    kind: EventKind
    data: dict[str, Any]


class Candidate(TypedDict):
    """One more answer to the same question, for ranking."""

    content: str
    model_version: str
    sampling: dict[str, Any]


class Turns:
    """All the turns of one server."""

    def __init__(self, store: Store, engines: Engines, gate: Gate) -> None:
        self._store = store
        self._engines = engines
        self._gate = gate

    async def send(
        self,
        user: User,
        *,
        text: str,
        dialogue_id: str | None = None,
        parent_id: str | None = None,
        idempotency_key: str | None = None,
        sampling: Sampling | None = None,
    ) -> StartedTurn:
        """Take a user's message and start the answer. Without `dialogue_id`, a new dialogue begins.

        `parent_id` is the answer that the message follows; None makes it a first message (so an edit of a message
        is sent with that message's parent). The same `idempotency_key` again gives the first turn again.
        Waits while the model is loading. Raises NotFound for a dialogue or parent that is not the user's,
        Conflict while the parent is still being written, ContextTooLong when the message alone is too long,
        RateLimited when too many of the user's answers are under way.
        """
        raise NotImplementedError

    async def regenerate(self, user: User, *, message_id: str) -> StartedTurn:
        """Start another answer to the same question: a sibling of the answer `message_id`."""
        raise NotImplementedError

    def events(self, user: User, answer_id: str, *, after: int = 0) -> AsyncIterator[TurnEvent]:
        """Follow an answer of the user's from position `after` to its end."""
        raise NotImplementedError

    async def stop(self, user: User, answer_id: str) -> None:
        """End an answer of the user's early; what was written stays. An answer that has ended is left as it is."""
        raise NotImplementedError

    async def suggest(self, user: User, messages: Sequence[dialogue.Message]) -> AsyncIterator[str]:
        """Stream one suggestion for the assistant's next turn, for a trainer who writes a dialogue."""
        raise NotImplementedError

    async def candidates(
        self, version: str, messages: Sequence[dialogue.Message], k: int
    ) -> list[Candidate]:
        """Up to `k` different answers of a version (or alias) to a path of messages, at temperature 1.

        Answers that the filter blocks are left out.
        """
        raise NotImplementedError

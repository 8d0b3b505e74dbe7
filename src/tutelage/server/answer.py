"""An answer that is being written: one writer, any number of readers, each at its own place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from tutelage.store import tables

EventKind = Literal["waiting", "delta", "verdict", "done", "error"]


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """What a reader of an answer learns; see the table in `server.turn`."""

    seq: int
    kind: EventKind
    data: dict[str, Any]


class LiveAnswer:
    """The text so far, and how it ended; one that goes on begins with a text. `scope` cancels the writing of it."""

    def __init__(self, message_id: str, owner_id: str, text: str = "") -> None:
        self.message_id = message_id
        self.owner_id = owner_id
        self.text = text
        self.scope = anyio.CancelScope()
        self._place = 0
        self._verdict: dict[str, Any] | None = None
        self._end: tuple[EventKind, dict[str, Any]] | None = None
        self._changed = asyncio.Event()

    def wait(self, place: int) -> None:
        """Tell readers where in the line the answer stands."""
        self._place = place
        self._wake()

    def add(self, text: str) -> None:
        """Give readers more text."""
        if text:
            self.text += text
            self._wake()

    def judge(self, verdict: dict[str, Any]) -> None:
        """Tell readers what the filter says of the whole."""
        self._verdict = verdict
        self._wake()

    def end(self, kind: Literal["done", "error"], data: dict[str, Any]) -> None:
        """Tell readers that this is all."""
        self._end = (kind, data)
        self._wake()

    async def read(self, after: int) -> AsyncGenerator[TurnEvent, None]:
        """Everything from position `after` to the end. A slow reader gets more at a time."""
        judged, place = False, 0
        while True:
            changed = self._changed
            if self._place != place and not self.text:
                place = self._place
                yield TurnEvent(0, "waiting", {"place": place})
            if len(self.text) > after:
                text, after = self.text[after:], len(self.text)
                yield TurnEvent(after, "delta", {"text": text})
            if self._verdict is not None and not judged:
                judged = True
                yield TurnEvent(len(self.text), "verdict", {"side": "output", **self._verdict})
            if self._end is not None:
                yield TurnEvent(len(self.text) + 1, *self._end)
                return
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def replay(row: tables.Message, after: int) -> list[TurnEvent]:
    """The events of an answer as its row has it; the last is `done` when the row has ended."""
    text = visible_text(row)
    events = []
    if len(text) > after:
        events.append(TurnEvent(len(text), "delta", {"text": text[after:]}))
    if row.status == "running":
        return events
    if row.filter_verdict is not None:
        events.append(TurnEvent(len(text), "verdict", {"side": "output", **row.filter_verdict}))
    dropped = (row.provenance or {}).get("dropped_messages", 0)
    return [*events, TurnEvent(len(text) + 1, "done", done_data(row, dropped=dropped))]


def done_data(row: tables.Message, *, dropped: int) -> dict[str, Any]:
    """What the last event says about an answer."""
    return {
        "status": row.status,
        "finish_reason": row.finish_reason,
        "model_version": row.model_version,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "dropped_messages": dropped,
    }


def visible_text(row: tables.Message) -> str:
    """What may be shown of a message: nothing of a blocked answer. A person always sees their own words."""
    return "" if row.role == "assistant" and row.status == "blocked" else row.content

"""Answers under way: each is written to its end, flushed and ended in its row, whoever reads it or goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from typing import Literal

import anyio
from sqlalchemy.orm import Session

from tutelage.engine.interface import Sampling
from tutelage.errors import Conflict, NotFound, Unavailable
from tutelage.server.answer import LiveAnswer, done_data
from tutelage.server.completion import Completion
from tutelage.server.errors import failure_of, log_failure
from tutelage.server.line import Line
from tutelage.server.prompting import Prompt
from tutelage.server.transactions import read, write
from tutelage.store import Store, dialogues
from tutelage.store.tables import Message

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0

EndStatus = Literal["complete", "interrupted", "blocked"]


class Writing:
    """All the answers that this process is writing."""

    def __init__(self, store: Store, line: Line) -> None:
        self._store = store
        self._line = line
        self._live: dict[str, LiveAnswer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def begin(
        self, live: LiveAnswer, completion: Completion, prompt: Prompt, sampling: Sampling, place: ExitStack
    ) -> None:
        """Write an answer whose row is there. `place` is closed at its end."""
        self._live[live.message_id] = live
        task = asyncio.create_task(self._run(live, completion, prompt, sampling, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def get(self, answer_id: str) -> LiveAnswer | None:
        """An answer under way here."""
        return self._live.get(answer_id)

    def __iter__(self) -> Iterator[LiveAnswer]:
        return iter(list(self._live.values()))

    async def close(self, *, grace: float) -> None:
        """Let the answers end for `grace` seconds, then interrupt them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        self._closing = True
        for live in self:
            live.scope.cancel()
        await asyncio.gather(*self._tasks)

    async def _run(
        self, live: LiveAnswer, completion: Completion, prompt: Prompt, sampling: Sampling, place: ExitStack
    ) -> None:
        """Write one answer to its end. Whatever happens, readers learn of the end and the place is given back."""
        try:
            with place:
                async with anyio.create_task_group() as beside:
                    beside.start_soon(self._beat, live)
                    await self._speak(live, completion, prompt, sampling)
                    beside.cancel_scope.cancel()
            await self._finish(live, completion, prompt)
        except Exception as error:
            await self._break_off(live, completion, prompt, _innermost(error))
        finally:
            del self._live[live.message_id]

    async def _speak(
        self, live: LiveAnswer, completion: Completion, prompt: Prompt, sampling: Sampling
    ) -> None:
        with live.scope:
            async with (
                self._line.place(live.owner_id, live.wait),
                aclosing(completion.pieces(prompt.token_ids, sampling)) as pieces,
            ):
                async for piece in pieces:
                    live.add(piece)
        live.add(await completion.finish())

    async def _beat(self, live: LiveAnswer) -> None:
        """Keep the row up to date, and show that its writer is alive. A row that has gone ends the writing."""
        told = False
        while True:
            await anyio.sleep(FLUSH_SECONDS)
            try:
                await write(
                    self._store, lambda tx: dialogues.flush_answer(tx, live.message_id, content=live.text)
                )
                told = False
            except Unavailable as error:
                if not told:
                    log.warning(
                        "%s: what has come so far waits to be written: %s", live.message_id, error.message
                    )
                told = True
            except (NotFound, Conflict):
                live.scope.cancel()
                return

    async def _finish(self, live: LiveAnswer, completion: Completion, prompt: Prompt) -> None:
        verdict = completion.verdict
        assert verdict is not None
        blocked = verdict.state == "blocked"
        status: EndStatus = (
            "blocked" if blocked else "complete" if completion.finish_reason else "interrupted"
        )
        try:
            row = await self._kept(
                live,
                lambda tx: dialogues.finish_answer(
                    tx,
                    live.message_id,
                    content=completion.text if blocked else live.text,
                    status=status,
                    finish_reason=completion.finish_reason,
                    prompt_tokens=len(prompt.token_ids) - prompt.said,
                    completion_tokens=prompt.said + len(completion.tokens),
                    filter_verdict=verdict.as_dict(),
                ),
            )
        except Conflict:  # stopped through another server, or taken for dead: it stays as it ended there
            row = await read(self._store, lambda tx: tx.get_one(Message, live.message_id))
        except NotFound as error:  # deleted, and perhaps its person too
            live.end("error", _told(error))
            return
        else:
            live.judge(verdict.as_dict())
        live.end("done", done_data(row, dropped=prompt.dropped))

    async def _kept(self, live: LiveAnswer, end: Callable[[Session], Message]) -> Message:
        """Write an end down, and try again while the disk is full or the database away: what was shown is not lost
        before the server ends."""
        told = False
        while True:
            try:
                return await write(self._store, end)
            except Unavailable as error:
                if self._closing:
                    raise
                if not told:
                    log.warning(
                        "%s: the whole answer waits to be written: %s", live.message_id, error.message
                    )
                told = True
                await anyio.sleep(FLUSH_SECONDS)

    async def _break_off(
        self, live: LiveAnswer, completion: Completion, prompt: Prompt, error: Exception
    ) -> None:
        """The model, the disk or the program has failed: keep what was shown, and tell the readers."""
        log_failure(error, request_id=live.message_id)
        try:
            await write(
                self._store,
                lambda tx: dialogues.finish_answer(
                    tx,
                    live.message_id,
                    content=live.text,
                    status="interrupted",
                    finish_reason=None,
                    completion_tokens=prompt.said + len(completion.tokens),
                ),
            )
        except Exception as second:
            log_failure(second, request_id=live.message_id)  # without beats the row will be reaped
        live.end("error", _told(error))


def _told(error: Exception) -> dict[str, str | None]:
    """What readers learn of an error."""
    failure = failure_of(error)
    return {"message": failure.said, "hint": failure.hint, "code": failure.code}


def _innermost(error: Exception) -> Exception:
    """The error inside the groups that a task group wraps around it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

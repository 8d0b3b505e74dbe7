"""One turn of a dialogue: authorise, moderate, stream, moderate, persist. The only place where this happens.

An answer is a row before it is a token. Its text goes into memory as it comes and into the row about once a
second, and it is written to its end whether anybody reads it or not. Readers follow it by position: `seq` of a
delta is the number of characters up to its end, so a reader who comes back with the last `seq` it saw gets the
rest, from memory, from the row after a restart, or from a row that another process is writing.

    kind     seq                 data
    waiting  0                   {"place"}: how many answers come before this one, itself included
    delta    characters so far   {"text"}
    verdict  characters so far   {"side": "output", "state", "categories", "scores", "policy_version", "help"}
    done     characters + 1      {"status": "complete"|"interrupted"|"blocked", "finish_reason", "model_version",
                                  "prompt_tokens", "completion_tokens", "dropped_messages"}
    error    characters + 1      {"message", "hint", "code"}: the answer broke off; it is `interrupted`

A verdict may come twice to a reader who comes back. When `done` says `blocked`, hide what was shown.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.orm import Session

from tutelage import dialogue
from tutelage.engine.interface import Engine, Sampling
from tutelage.engine.pool import Engines
from tutelage.errors import Conflict, InvalidRequest, NotFound, RateLimited, Sentence, Unavailable
from tutelage.moderation.gate import Gate
from tutelage.server import writing
from tutelage.server.acceptance import (
    Draft,
    Plan,
    Question,
    StartedTurn,
    accept,
    checked_text,
    continuation_of,
    history,
    question_of,
    started_before,
    take_up,
)
from tutelage.server.answer import LiveAnswer, TurnEvent, replay
from tutelage.server.completion import Completion
from tutelage.server.drafting import Candidate, Drafts, Suggestion
from tutelage.server.line import Line
from tutelage.server.permissions import demand
from tutelage.server.prompting import fit, fit_begun, readable
from tutelage.server.serving import lease_of, offers_two, own_lease, versions_for
from tutelage.server.transactions import read, write
from tutelage.server.writing import Writing
from tutelage.store import Store, dialogues, tables
from tutelage.store.continuing import whole_text
from tutelage.store.tables import User

__all__ = ["Candidate", "StartedTurn", "TurnEvent", "Turns"]

log = logging.getLogger(__name__)

DEAD_AFTER = timedelta(seconds=30)
ANSWERS_AT_ONCE = 4


class Turns:
    """All the turns of one server."""

    def __init__(self, store: Store, engines: Engines, gate: Gate, *, line: Line | None = None) -> None:
        self._store = store
        self._engines = engines
        self._gate = gate
        self._drafts = Drafts(engines, gate)
        self.line = line or Line()
        self._writing = Writing(store, self.line)
        self._places: Counter[str] = Counter()
        self._closed = False

    async def send(
        self,
        user: User,
        *,
        text: str,
        dialogue_id: str | None = None,
        parent_id: str | None = None,
        idempotency_key: str | None = None,
        sampling: Sampling | None = None,
        temporary: bool = False,
        answers: int | None = 1,
    ) -> StartedTurn:
        """Take a user's message and start the answer. Without `dialogue_id`, a new dialogue begins.

        A new dialogue begins with the user's instructions; a `temporary` one is in no list and trains no model.
        Of two `answers` their reader chooses one; while versions are being compared, each gives one of them. None is
        one answer, and now and then two while versions are being compared; the second one then costs nothing.

        `parent_id` is the answer that the message follows; None makes it a first message (so an edit of a message
        is sent with that message's parent). The same `idempotency_key` again gives the first turn again.
        Waits while the model is loading. Raises NotFound for a dialogue or parent that is not the user's,
        Conflict while the parent is still being written, ContextTooLong when the message alone is too long,
        RateLimited when too many of the user's answers are under way or none is left for today, AtCapacity.
        """
        text = checked_text(text)
        if idempotency_key is not None:
            known = await read(self._store, lambda tx: started_before(tx, user.id, idempotency_key))
            if known is not None:
                return known
        before = await read(self._store, lambda tx: history(tx, user.id, dialogue_id, parent_id))
        question = Question(
            text, dialogue_id, parent_id, idempotency_key, temporary=temporary, answers=answers
        )
        if dialogue_id is None:
            question = replace(question, instructions=user.instructions)
        return await self._begin(user, question, before, sampling or Sampling())

    async def regenerate(self, user: User, *, message_id: str) -> StartedTurn:
        """Start another answer to the same question: a sibling of the answer `message_id`.

        Given a question, starts one more answer to it. Raises NotFound, Conflict while the model is still
        answering there, InvalidRequest when the question was blocked.
        """
        message, before = await read(self._store, lambda tx: question_of(tx, user.id, message_id))
        if message.status == "blocked":
            raise InvalidRequest(
                "this question was blocked by the content filter",
                hint="ask in other words",
                param="message_id",
            )
        question = Question(message.content, message.dialogue_id, message.parent_id, message=message)
        return await self._begin(user, question, before, Sampling())

    async def go_on(self, user: User, *, message_id: str) -> StartedTurn:
        """Write on an answer of the user's that was cut off: the same message, by the version that began it.

        Raises NotFound, RateLimited and AtCapacity as `send`, Conflict for an answer that cannot go on.
        """
        answer, question, before = await read(
            self._store, lambda tx: continuation_of(tx, user.id, message_id)
        )
        text, sampling = whole_text(answer), Sampling()
        with ExitStack() as held:
            [place] = [held.enter_context(place) for place in self._take_places(user, 1)]
            lease = place.enter_context(await own_lease(self._engines, answer.model_version))
            messages = [*readable(before), dialogue.Message("user", question.content)]
            prompt = await run_sync(lambda: fit_begun(lease.engine, messages, sampling.max_tokens, text))
            started = await write(self._store, lambda tx: take_up(tx, user, question, answer, prompt.dropped))
            completion = Completion(lease.engine, self._gate, context=question.content, begun=text)
            live = LiveAnswer(message_id, user.id, text)
            self._writing.begin(live, completion, prompt, sampling, place.pop_all())
            return started

    async def events(self, user: User, answer_id: str, *, after: int = 0) -> AsyncIterator[TurnEvent]:
        """Follow an answer of the user's from position `after` to its end. Raises NotFound."""
        row = await self.answer(user, answer_id)
        live = self._writing.get(answer_id)
        async with aclosing(live.read(after) if live else self._follow(row, user, after)) as found:
            async for event in found:
                yield event

    async def answer(self, user: User, answer_id: str) -> tables.Message:
        """The row of one of the user's answers. Raises NotFound, InvalidRequest for other messages."""
        row = await read(self._store, lambda tx: dialogues.get_message(tx, answer_id, owner_id=user.id))
        if row.role != "assistant":
            raise InvalidRequest("this message is not an answer", hint="name the answer's id")
        return row

    async def stop(self, user: User, answer_id: str) -> None:
        """End an answer of the user's early; what was written stays. An answer that has ended is left as it is."""
        row = await self.answer(user, answer_id)
        live = self._writing.get(answer_id)
        if live is not None:
            live.scope.cancel()
        elif row.status == "running":  # its writer learns of it when it next writes to the row
            with suppress(Conflict):
                await write(self._store, lambda tx: dialogues.interrupt_answer(tx, answer_id))

    async def suggest(self, user: User, messages: Sequence[dialogue.Message]) -> Suggestion:
        """Stream one suggestion for the assistant's next turn, for a trainer who writes a dialogue.

        Raises Denied for users who are no trainers, InvalidRequest for turns out of order, ContextTooLong.
        A suggestion that the filter blocks breaks off.
        """
        demand(user, "trainer")
        return await self._drafts.suggest(messages)

    async def candidates(
        self, version: str, messages: Sequence[dialogue.Message], k: int, *, seed: int | None = None
    ) -> list[Candidate]:
        """Up to `k` different answers of a version (or alias) to a path of messages, at temperature 1.

        Answers that the filter blocks, empty ones and repetitions are left out.
        """
        return await self._drafts.candidates(version, messages, k, seed=seed)

    async def reap(self, *, older_than: timedelta = DEAD_AFTER) -> None:
        """Mark answers whose writer has died as interrupted. At the start of the only server nobody is writing:
        `older_than` is zero (see `server.presence`).

        The answers of this process show first that they live: it may have slept, with all its beats, for hours.
        """
        mine = [(live.message_id, live.text) for live in self._writing]

        def reap(tx: Session) -> int:
            for message_id, text in mine:
                with suppress(NotFound, Conflict):
                    dialogues.flush_answer(tx, message_id, content=text)
            return dialogues.reap_answers(tx, older_than=older_than)

        count = await write(self._store, reap)
        if count:
            log.warning("%d answers had been broken off and are now marked as interrupted", count)

    async def close(self, *, grace: float = 10.0) -> None:
        """Let the answers under way end for `grace` seconds, then interrupt them. New turns are refused."""
        self._closed = True
        await self._writing.close(grace=grace)

    # Starting

    async def _begin(
        self, user: User, question: Question, before: list[tables.Message], sampling: Sampling
    ) -> StartedTurn:
        """Fit, moderate, persist, and start the writing of the answers."""
        with ExitStack() as held:
            count = question.answers or (2 if await self._offers_two(user, question) else 1)
            places = [held.enter_context(place) for place in self._take_places(user, count)]
            versions = await versions_for(self._store, before, count)
            leases = [
                place.enter_context(await lease_of(self._engines, version))
                for place, version in zip(places, versions, strict=True)
            ]
            if question.answers is None and len({lease.engine.version for lease in leases}) < count:
                del places[1:], leases[1:]  # one of the two cannot be loaded
            messages = [*question.system, *readable(before), dialogue.Message("user", question.text)]
            tokens = sampling.max_tokens
            drafts = [await run_sync(partial(_draft, lease.engine, messages, tokens)) for lease in leases]
            context = before[-1].content if before else ""
            verdict = await run_sync(lambda: self._gate.check(question.text, side="input", context=context))
            plan = Plan(question, verdict, sampling, drafts)
            started, is_new = await write(self._store, lambda tx: accept(tx, user, plan))
            if is_new and verdict.state != "blocked":
                for name, place, lease, draft in zip(started.answer_ids, places, leases, drafts, strict=True):
                    completion = Completion(lease.engine, self._gate, context=question.text)
                    live = LiveAnswer(name, user.id)
                    self._writing.begin(live, completion, draft.prompt, sampling, place.pop_all())
            return started

    async def _offers_two(self, user: User, question: Question) -> bool:
        """Whether both versions of a comparison answer unasked: never where that would keep somebody waiting."""
        room = self.line.has_room(2) and self._places[user.id] + 2 <= ANSWERS_AT_ONCE
        return (
            room and not question.temporary and await offers_two(self._store, user.id, question.dialogue_id)
        )

    def _take_places(self, user: User, count: int) -> list[ExitStack]:
        """What answers hold while they are being written: each one of its user's places, later a lease too."""
        if self._closed:
            raise Unavailable("the server is shutting down", hint="try again in a moment")
        self.line.check()
        if self._places[user.id] + count > ANSWERS_AT_ONCE:
            raise RateLimited(
                Sentence("{count} of your answers may be written at a time", count=ANSWERS_AT_ONCE),
                retry_after=5,
                hint="wait for one to end, or stop it",
            )
        self._places[user.id] += count
        places = [ExitStack() for _ in range(count)]
        for place in places:
            place.callback(self._give_place_back, user.id)
        return places

    def _give_place_back(self, user_id: str) -> None:
        self._places[user_id] -= 1
        if not self._places[user_id]:
            del self._places[user_id]

    async def _follow(self, row: tables.Message, user: User, after: int) -> AsyncGenerator[TurnEvent, None]:
        """An answer that has ended, or that another process is writing, from its row."""
        while True:
            for event in replay(row, after):
                after = event.seq
                yield event
                if event.kind == "done":
                    return
            await anyio.sleep(writing.FLUSH_SECONDS)
            row = await self.answer(user, row.id)


def _draft(engine: Engine, messages: Sequence[dialogue.Message], answer_tokens: int | None) -> Draft:
    return Draft(engine.version, fit(engine, messages, answer_tokens=answer_tokens))

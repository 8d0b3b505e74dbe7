"""Answers that belong to no dialogue yet: suggestions for trainers who write, candidates for those who rank."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, TypedDict

from anyio.to_thread import run_sync

from tutelage import dialogue
from tutelage.dialogue import check_turns
from tutelage.engine.interface import Engine, Sampling
from tutelage.engine.pool import Engines
from tutelage.errors import InvalidRequest
from tutelage.moderation.gate import Gate
from tutelage.server.completion import Completion
from tutelage.server.prompting import Prompt, fit

_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An answer by a version, as text that streams."""

    version: str
    pieces: AsyncIterator[str]


class Candidate(TypedDict):
    """One more answer to the same question, for ranking."""

    content: str
    model_version: str
    sampling: dict[str, Any]


class Drafts:
    """What the models of one server would say."""

    def __init__(self, engines: Engines, gate: Gate) -> None:
        self._engines = engines
        self._gate = gate

    async def suggest(self, messages: Sequence[dialogue.Message]) -> Suggestion:
        """Stream one suggestion for the assistant's next turn. Raises InvalidRequest, ContextTooLong."""
        _check_order(messages)
        sampling = Sampling(temperature=1.0)
        engine = await self._engines.get()
        prompt = await run_sync(lambda: fit(engine, messages, answer_tokens=sampling.max_tokens))
        return Suggestion(engine.version, self._suggestion(prompt, sampling, messages[-1].content))

    async def candidates(
        self, version: str, messages: Sequence[dialogue.Message], k: int, *, seed: int | None = None
    ) -> list[Candidate]:
        """Up to `k` different answers; see `Turns.candidates`."""
        _check_order(messages)
        with await self._engines.lease(version) as lease:
            first = _random.getrandbits(62) if seed is None else seed
            samplings = [Sampling(temperature=1.0, top_p=1.0, seed=first + index) for index in range(k)]
            prompt = await run_sync(
                lambda: fit(lease.engine, messages, answer_tokens=samplings[0].max_tokens)
            )
            question = messages[-1].content
            texts = await asyncio.gather(
                *(self._whole(lease.engine, prompt, each, question) for each in samplings)
            )
            found = {text: each for text, each in zip(texts, samplings, strict=True) if text}
            return [
                Candidate(content=text, model_version=lease.engine.version, sampling=each.as_dict())
                for text, each in found.items()
            ]

    async def _suggestion(self, prompt: Prompt, sampling: Sampling, context: str) -> AsyncIterator[str]:
        with await self._engines.lease() as lease:
            completion = Completion(lease.engine, self._gate, context=context)
            async with aclosing(completion.answer(prompt.token_ids, sampling)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _whole(self, engine: Engine, prompt: Prompt, sampling: Sampling, context: str) -> str:
        """One completion, or nothing when the filter blocks it."""
        completion = Completion(engine, self._gate, context=context)
        async with aclosing(completion.answer(prompt.token_ids, sampling)) as pieces:
            text = "".join([piece async for piece in pieces])
        return "" if completion.finish_reason == "content_filter" else text


def _check_order(messages: Sequence[dialogue.Message]) -> None:
    wrong = check_turns(messages, last="user")
    if wrong is not None:
        raise InvalidRequest(wrong, param="messages")

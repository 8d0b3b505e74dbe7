"""An engine that says what it was told to say, typed like the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count

from tutelage.engine.interface import FinishReason, Sampling, Score, TokenChunk
from tutelage.errors import ContextTooLong, Sentence, Unavailable
from tutelage.rendering import Renderer


class ScriptedEngine:
    """Gives the answers in turn, over and over; a seed picks one, so the same seed gives the same answer.

    `delay` is in seconds a token, and may be changed at any time. `prompts` and `samplings` hold what was asked,
    `running` how many answers are under way.
    """

    def __init__(
        self,
        answers: Sequence[str],
        *,
        renderer: Renderer,
        delay: float = 0.0,
        version: str = "scripted",
        context_length: int = 1024,
    ) -> None:
        self.version = version
        self.renderer = renderer
        self.context_length = context_length
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.running = 0
        self.closed = self.broken = False
        self.delay = delay
        self._idle = asyncio.Event()
        self._idle.set()
        self.script(answers)

    def script(self, answers: Sequence[str]) -> None:
        """Give these answers from now on, beginning with the first."""
        self._answers = [self.renderer.completion(answer) for answer in answers]
        self._turns = count()

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        """Stream the next answer a token at a time. Raises ContextTooLong and Unavailable as engines do."""
        if self.closed:
            raise Unavailable("the engine is closing", hint="try again in a moment")
        room = self.context_length - len(prompt_ids)
        if room <= 0:
            raise ContextTooLong(
                Sentence(
                    "the prompt has {tokens} tokens, and the model reads {most}",
                    tokens=len(prompt_ids),
                    most=self.context_length,
                ),
                hint="shorten the messages",
            )
        self.prompts.append(list(prompt_ids))
        self.samplings.append(sampling)
        self._enter()
        try:
            async for chunk in self._speak(sampling, room):
                yield chunk
        finally:
            self._leave()

    async def score(self, token_ids: Sequence[int], *, top: int = 0) -> list[Score]:
        """It is sure of whatever it reads."""
        return [(0.0, ((token, 0.0),) if top else ()) for token in token_ids[1:]]

    async def close(self) -> None:
        """Take no new prompts, and wait for the answers under way."""
        self.closed = True
        await self._idle.wait()

    async def _speak(self, sampling: Sampling, room: int) -> AsyncIterator[TokenChunk]:
        turn = next(self._turns) if sampling.seed is None else sampling.seed
        answer = self._answers[turn % len(self._answers)]
        limit = min(room, len(answer) if sampling.max_tokens is None else sampling.max_tokens)
        reason: FinishReason = "length" if limit < len(answer) else "stop"
        for token in answer[:limit]:
            await asyncio.sleep(self.delay)
            if token in sampling.stop_ids:
                reason = "stop"
                break
            # It is sure of every token: no other has a probability to be named.
            top = (((token, 0.0),),) if sampling.top_logprobs else ()
            yield TokenChunk((token,), (0.0,), top_logprobs=top)
        yield TokenChunk((), (), finish_reason=reason)

    def _enter(self) -> None:
        self.running += 1
        self._idle.clear()

    def _leave(self) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

"""Tokens of one completion become text that may be shown: decoded, ended at stop strings, filtered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, cast

from anyio.to_thread import run_sync

from tutelage.engine.interface import Engine, Sampling, TokenChunk
from tutelage.moderation.gate import Gate, Verdict
from tutelage.moderation.streaming import StreamGate, piece_end
from tutelage.rendering import StreamDecoder
from tutelage.store.columns import clean

FinishReason = Literal["stop", "length", "content_filter"]


class StopStrings:
    """Finds the first of some strings in a text that comes in pieces, and holds back what may become one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What certainly stands before any stop string."""
        text = self._held + text
        at = min((i for string in self._strings if (i := text.find(string)) >= 0), default=-1)
        if at >= 0:
            self.found, self._held = True, ""
            return text[:at]
        keep = max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The rest: it did not become a stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that is a beginning of `string`, but not the whole of it."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """A token that was drawn. `start` is where its text begins; `top` holds the most probable tokens at its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    start: int


class Completion:
    """One completion under way: iterate `answer`; or `pieces`, then call `finish`, also after leaving early.

    `text` is everything the model said up to a stop string, `tokens` all that were drawn for it. `finish_reason`
    and `verdict` are known after `finish`; a completion that was left early has no finish reason unless the filter
    cut it. `begun` is what was said before, and shown: the filter reads it first, `text` begins with it.
    """

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        *,
        context: str = "",
        stop: Sequence[str] = (),
        begun: str = "",
    ) -> None:
        self._engine = engine
        self._filter = StreamGate(gate, context=context)
        self._stop = StopStrings(stop)
        self._waiting = ""
        self._decoded = 0
        self._begun = begun
        self._seen = 0  # characters that the filter still holds back, though they were shown before
        self.text = begun
        self.tokens: list[SpokenToken] = []
        self.finish_reason: FinishReason | None = None
        self.verdict: Verdict | None = None

    async def answer(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[str, None]:
        """All that may be shown, to the end. Raises what `Engine.generate` raises."""
        async with aclosing(self.pieces(prompt_ids, sampling)) as pieces:
            async for piece in pieces:
                yield piece
        rest = await self.finish()
        if rest:
            yield rest

    async def pieces(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[str, None]:
        """Text as the filter lets it go. Raises what `Engine.generate` raises."""
        if self._begun and not await run_sync(self._take_up):
            return
        chunks = cast(AsyncGenerator[TokenChunk, None], self._engine.generate(prompt_ids, sampling))
        decoder = self._engine.renderer.decoder()
        async with aclosing(chunks):
            async for chunk in chunks:
                last = chunk.finish_reason is not None
                text = self._take(chunk, decoder) + (decoder.finish() if last else "")
                released = await self._release(self._until_stop(text, last=last))
                if released:
                    yield released
                if self._filter.cut:
                    return
                if self._stop.found or last:
                    self.finish_reason = "stop" if self._stop.found else chunk.finish_reason
                    return

    async def finish(self) -> str:
        """The rest that may be shown, once the filter has seen the whole."""
        if self._begun:
            await run_sync(self._take_up)
        rest, verdict = await run_sync(self._filter.finish)
        self.verdict = verdict
        if verdict.state == "blocked":
            self.finish_reason = "content_filter"
        return self._unseen(rest)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended it."""
        return self._stop.found

    def shown(self, told: int, length: int) -> list[SpokenToken]:
        """The tokens after the first `told` whose text begins within the first `length` characters.

        At the end of an answer that no stop string ended, those that have no text of their own are among them.
        """
        whole = length == len(self.text) and self.finish_reason is not None and not self._stop.found
        return [token for token in self.tokens[told:] if whole or token.start < length]

    def _take(self, chunk: TokenChunk, decoder: StreamDecoder) -> str:
        """The text that the tokens of a chunk complete; notes where each of them begins."""
        found = ""
        tops = chunk.top_logprobs or ((),) * len(chunk.token_ids)
        for token_id, logprob, top in zip(chunk.token_ids, chunk.logprobs, tops, strict=True):
            self.tokens.append(SpokenToken(token_id, logprob, top, self._decoded))
            text: str = clean(decoder.push((token_id,)))
            self._decoded += len(text)
            found += text
        return found

    def _until_stop(self, text: str, *, last: bool) -> str:
        text = self._stop.push(clean(text))
        return text if self._stop.found or not last else text + self._stop.finish()

    async def _release(self, text: str) -> str:
        """What the filter lets go. It judges at the end of a piece, and only then takes time, so then in a thread."""
        self.text += text
        self._waiting += text
        if piece_end(self._waiting) is None:
            return self._unseen(self._filter.push(text))
        released = await run_sync(self._filter.push, text)
        self._waiting = self._waiting[len(released) :]
        return self._unseen(released)

    def _take_up(self) -> bool:
        """Have the filter read what was said before; says whether it lets that go on. In a thread: it takes time."""
        begun, self._begun = self._begun, ""
        released = self._filter.push(begun)
        self._waiting = begun[len(released) :]
        self._seen = len(self._waiting)
        return not self._filter.cut

    def _unseen(self, released: str) -> str:
        """What of it was not shown before."""
        seen = min(self._seen, len(released))
        self._seen -= seen
        return released[seen:]

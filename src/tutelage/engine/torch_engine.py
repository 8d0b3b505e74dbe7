"""The engine of this package: one thread steps one continuous batch; coroutines wait for their tokens."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from tutelage.engine.interface import Sampling, Score, TokenChunk
from tutelage.errors import ContextTooLong, InvalidRequest, Sentence, TutelageError, Unavailable
from tutelage.models.generation import Batch, Request, Token
from tutelage.models.loading import LoadedModel, load_version
from tutelage.models.own_thread import in_own_thread
from tutelage.models.scoring import score
from tutelage.registry import ModelVersion
from tutelage.rendering import Renderer

log = logging.getLogger(__name__)

SLOTS = 32
PORTION = 256  # tokens of prompts that a step reads while answers are under way
KEPT_BYTES = 1 << 28  # of finished answers: about 11,000 tokens of the built-in model
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class _Reader:
    """A coroutine that waits for the tokens of one request."""

    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue[Token | TutelageError]


class TorchEngine:
    """Serves one model version from this process. See `Engine`."""

    def __init__(self, version: str, loaded: LoadedModel, *, slots: int = SLOTS) -> None:
        self._version = version
        self._renderer = loaded.renderer
        self._model = loaded.model
        self._scoring = threading.Lock()
        stop_ids = loaded.renderer.stop_ids
        self._batch = Batch(loaded.model, stop_ids, slots=slots, portion=PORTION, kept_bytes=KEPT_BYTES)
        self._readers: dict[int, _Reader] = {}
        self._added: list[tuple[Request, _Reader]] = []
        self._left: list[_Reader] = []
        self._wake = threading.Condition()
        self._closing = self._broken = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{version}", daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        return self._version

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    @property
    def context_length(self) -> int:
        return self._batch.context_length

    @property
    def broken(self) -> bool:
        return self._broken

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        reader = _Reader(asyncio.get_running_loop(), asyncio.Queue())
        self._submit(self._request(prompt_ids, sampling), reader)
        finished = False
        try:
            while not finished:
                token = await reader.inbox.get()
                if isinstance(token, TutelageError):
                    finished = True
                    raise token
                finished = token.finish_reason is not None
                yield _chunk(token)
        finally:
            if not finished:
                self._leave(reader)

    async def score(self, token_ids: Sequence[int], *, top: int = 0) -> list[Score]:
        if len(token_ids) > self.context_length:
            raise ContextTooLong(
                Sentence(
                    "this has {tokens} tokens, and the model's context holds {most}",
                    tokens=len(token_ids),
                    most=self.context_length,
                ),
                hint="shorten it",
            )
        return await asyncio.to_thread(self._score, token_ids, top)

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._finish_scoring)

    def _score(self, token_ids: Sequence[int], top: int) -> list[Score]:
        """One at a time, beside the batch, which goes on in its own thread."""
        with self._scoring:
            if self._closing:
                raise Unavailable("this version is being taken out of service", hint="send it again")
            return in_own_thread(lambda: score(self._model, token_ids, top=top))

    def _finish_scoring(self) -> None:
        with self._scoring:
            return

    def _request(self, prompt_ids: Sequence[int], sampling: Sampling) -> Request:
        room = self.context_length - len(prompt_ids)
        wanted = room if sampling.max_tokens is None else sampling.max_tokens
        request = Request(
            prompt_ids=prompt_ids,
            max_tokens=min(room, wanted),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=_random.getrandbits(63) if sampling.seed is None else sampling.seed,
            stop_ids=sampling.stop_ids,
            logit_bias=sampling.logit_bias,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            top_logprobs=sampling.top_logprobs,
            afresh=sampling.seed is not None,
        )
        self._batch.check(request)
        if wanted < 1:
            raise InvalidRequest(
                Sentence("max_tokens is at least 1, not {wanted}", wanted=wanted), param="max_tokens"
            )
        return request

    def _submit(self, request: Request, reader: _Reader) -> None:
        with self._wake:
            if self._closing:
                raise Unavailable("this version is being taken out of service", hint="send the message again")
            self._added.append((request, reader))
            self._wake.notify()

    def _leave(self, reader: _Reader) -> None:
        with self._wake:
            self._left.append(reader)
            self._wake.notify()

    def _run(self) -> None:
        """The engine's thread: take what has come, step the batch, hand out the tokens."""
        try:
            while self._take():
                self._deliver(self._batch.step())
        except Exception as error:
            log.exception("the engine of version %s stopped", self._version)
            self._fail(error)

    def _take(self) -> bool:
        """Bring requests and leavers into the batch; sleep while there is nothing to do. False: time to end."""
        with self._wake:
            while not (self._added or self._left or self._batch.busy or self._closing):
                self._wake.wait()
            added, self._added = self._added, []
            left, self._left = self._left, []
        for request, reader in added:
            self._readers[self._batch.add(request)] = reader
        for reader in left:
            for key in [key for key, each in self._readers.items() if each is reader]:
                self._batch.cancel(key)
                del self._readers[key]
        return self._batch.busy or not self._closing

    def _deliver(self, tokens: list[Token]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Reader, Token]]] = {}
        for token in tokens:
            reader = self._readers[token.key]
            by_loop.setdefault(reader.loop, []).append((reader, token))
            if token.finish_reason:
                del self._readers[token.key]
        for loop, mail in by_loop.items():
            _post(loop, mail)

    def _fail(self, error: Exception) -> None:
        """Tell every reader, and take no more."""
        with self._wake:
            self._closing = self._broken = True
            waiting = [reader for _, reader in self._added]
            self._added = []
        told = Unavailable(
            Sentence("the model stopped working: {error}", error=type(error).__name__),
            hint="send the message again; the server's log has more",
        )
        for reader in [*self._readers.values(), *waiting]:
            _post(reader.loop, [(reader, told)])
        self._readers.clear()


def _post(loop: asyncio.AbstractEventLoop, mail: Sequence[tuple[_Reader, Token | TutelageError]]) -> None:
    """Put mail into inboxes from another thread, waking their event loop once."""

    def put() -> None:
        for reader, item in mail:
            reader.inbox.put_nowait(item)

    try:
        loop.call_soon_threadsafe(put)
    except RuntimeError:
        log.info("a reader's event loop had ended before its tokens came")


def _chunk(token: Token) -> TokenChunk:
    if token.finish_reason == "stop":
        return TokenChunk((), (), "stop")
    top = (token.top_logprobs,) if token.top_logprobs else ()
    return TokenChunk((token.token_id,), (token.logprob,), token.finish_reason, top)


def load(version: ModelVersion, home: Path) -> TorchEngine:
    """Load a published chat version: its base model with its adapter folded in.

    Raises ModelError when the base or the adapter cannot be read.
    """
    return in_own_thread(lambda: TorchEngine(version.name, load_version(version, home, for_chat=True)))

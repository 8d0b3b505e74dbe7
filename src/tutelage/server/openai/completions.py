"""`/v1/completions`: what follows a text, and how probable the text itself is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from tutelage.engine.interface import Engine, Sampling, Score
from tutelage.moderation.gate import Gate
from tutelage.server.completion import Completion
from tutelage.server.openai.completion_request import CompletionRequest
from tutelage.server.openai.merging import merged
from tutelage.server.openai.sending import Envelope, Loan, borrow, joined, new_id, reply, usage
from tutelage.server.openai.tokens import ScoredToken, text_logprobs, text_of
from tutelage.server.permissions import api_key
from tutelage.server.prompting import check_room, refuse_endless
from tutelage.server.services import services
from tutelage.store.columns import clean
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")
KIND = "text_completion"


@dataclass(frozen=True, slots=True)
class _Choice:
    """One continuation of one prompt. A blocked one is not continued."""

    prompt_ids: Sequence[int]
    prompt: str
    completion: Completion
    sampling: Sampling
    blocked: bool

    def echo(self, body: CompletionRequest) -> str:
        """The prompt, where it is to be repeated."""
        return self.prompt if body.echo else ""

    @property
    def finish_reason(self) -> str | None:
        return "content_filter" if self.blocked else self.completion.finish_reason or "length"


@dataclass(frozen=True, slots=True)
class _Job:
    """One accepted request: what is asked, and everything that answers it."""

    body: CompletionRequest
    loan: Loan
    choices: Sequence[_Choice]
    read: int
    envelope: Envelope

    @property
    def engine(self) -> Engine:
        return self.loan.lease.engine

    def usage(self) -> dict[str, int]:
        return usage(self.read, self.loan.written)


@router.post("/completions")
async def create_completion(
    request: Request, body: CompletionRequest, key: Annotated[ApiKey, Depends(api_key("chat"))]
) -> Response:
    """Continue texts."""
    body.check()
    job = await _accept(request, body)
    chunks = _chunks(job) if body.stream else None
    return await reply(request, job.loan, chunks=chunks, whole=lambda: _whole(job))


async def _accept(request: Request, body: CompletionRequest) -> _Job:
    """Check the rest, have the prompts judged, and borrow the engine."""
    lease = await borrow(request, body.model)
    try:
        prompts = await run_sync(_prompts, lease.engine, body)
        read = sum(map(len, prompts))
        request.state.allowance.reserve(read)
        gate = services(request).gate
        choices = [
            choice for ids in prompts for choice in await run_sync(_choices, lease.engine, gate, body, ids)
        ]
    except BaseException:
        lease.release()
        raise
    loan = Loan(lease, request.state.allowance, [choice.completion for choice in choices])
    return _Job(body, loan, choices, read, Envelope(new_id("cmpl"), lease.engine.version))


def _choices(engine: Engine, gate: Gate, body: CompletionRequest, prompt_ids: Sequence[int]) -> list[_Choice]:
    """The choices of one prompt. A prompt that is only scored need not be harmless: nothing is written of it."""
    text = text_of(engine.renderer, prompt_ids)
    blocked = not body.only_scores and gate.check(text, side="input").state == "blocked"
    return [
        _Choice(
            prompt_ids,
            clean(text),
            Completion(engine, gate, context=text, stop=body.stops),
            body.sampling(index, engine.renderer.vocabulary),
            blocked,
        )
        for index in range(body.choices)
    ]


def _prompts(engine: Engine, body: CompletionRequest) -> list[list[int]]:
    """Token ids of the prompts, each with room for an answer. Raises ContextTooLong, InvalidRequest."""
    for text in [body.prompt] if isinstance(body.prompt, str) else body.prompt or []:
        if isinstance(text, str):
            refuse_endless(engine, text)
    prompts = body.prompts(engine.renderer)
    for prompt_ids in prompts:
        check_room(engine, prompt_ids, param="prompt", answer=body.longest > 0)
    return prompts


async def _whole(job: _Job) -> JSONResponse:
    texts = await asyncio.gather(*(joined(_pieces(job, choice)) for choice in job.choices))
    choices = []
    for index, (choice, text) in enumerate(zip(job.choices, texts, strict=True)):
        logprobs = await _logprobs(job, choice, len(text))
        choices.append(_view(index, choice.echo(job.body) + text, logprobs, choice.finish_reason))
    return JSONResponse(job.envelope.around(KIND, choices, usage=job.usage()))


async def _pieces(job: _Job, choice: _Choice) -> AsyncGenerator[str, None]:
    """The text that follows, as it may be shown."""
    if choice.blocked or not job.body.longest:
        return
    async with aclosing(choice.completion.answer(choice.prompt_ids, choice.sampling)) as pieces:
        async for piece in pieces:
            yield piece


async def _logprobs(job: _Job, choice: _Choice, length: int) -> dict[str, Any] | None:
    """Those of a whole choice, with its prompt's where it is echoed."""
    if job.body.logprobs is None:
        return None
    spoken = [
        ScoredToken(token.token_id, token.logprob, token.top) for token in choice.completion.shown(0, length)
    ]
    if not job.body.echo:
        return text_logprobs(job.engine.renderer, spoken, offset=0)
    scored = await _scored(job, choice, [token.token_id for token in spoken])
    return text_logprobs(job.engine.renderer, scored, offset=0)


async def _scored(job: _Job, choice: _Choice, spoken: Sequence[int]) -> list[ScoredToken]:
    """The tokens of the prompt, those that were drawn, and the end token where that was drawn.

    Programs that score prompts take the last entry to be what was drawn: so there has to be one.
    """
    ended = choice.completion.finish_reason == "stop" and not choice.completion.stopped
    ids = [*choice.prompt_ids, *spoken, *([job.engine.renderer.end_id] if ended and not spoken else [])]
    scores: list[Score | None] = [None, *await job.engine.score(ids, top=max(1, job.body.alternatives))]
    return [
        ScoredToken(token, score[0] if score else None, score[1] if score else ())
        for token, score in zip(ids, scores, strict=True)
    ]


async def _chunks(job: _Job) -> AsyncGenerator[dict[str, Any], None]:
    extra = {"usage": None} if job.body.with_usage else {}
    told, length = [0] * len(job.choices), [0] * len(job.choices)

    for index, choice in enumerate(job.choices):
        if job.body.echo:
            logprobs = await _logprobs(job, choice, 0)
            yield job.envelope.around(KIND, [_view(index, choice.echo(job.body), logprobs, None)], **extra)
    async with aclosing(merged([_pieces(job, choice) for choice in job.choices])) as pieces:
        async for index, piece in pieces:
            choice = job.choices[index]
            tokens = choice.completion.shown(told[index], length[index] + len(piece or ""))
            logprobs = None
            if job.body.logprobs is not None and (piece or tokens):
                offset = length[index] + len(choice.echo(job.body))
                scored = [ScoredToken(each.token_id, each.logprob, each.top) for each in tokens]
                logprobs = text_logprobs(job.engine.renderer, scored, offset=offset)
            told[index] += len(tokens)
            length[index] += len(piece or "")
            end = None if piece is not None else choice.finish_reason
            yield job.envelope.around(KIND, [_view(index, piece or "", logprobs, end)], **extra)
    if job.body.with_usage:
        yield job.envelope.around(KIND, [], usage=job.usage())


def _view(index: int, text: str, logprobs: dict[str, Any] | None, end: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": end}

"""`/v1/chat/completions`: one or several answers to a dialogue, whole or as a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from tutelage import __version__
from tutelage.dialogue import Message
from tutelage.engine.pool import Lease
from tutelage.errors import InvalidRequest, NotFound
from tutelage.moderation.gate import Gate
from tutelage.server.completion import Completion
from tutelage.server.errors import UnknownModel, failure_of, log_failure
from tutelage.server.openai.chat_request import ChatRequest
from tutelage.server.openai.disconnect import unless_gone
from tutelage.server.openai.merging import merged
from tutelage.server.permissions import api_key
from tutelage.server.prompting import check_room, refuse_endless
from tutelage.server.services import Services, services
from tutelage.server.streaming import EventStream, sse
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")


@dataclass(frozen=True, slots=True)
class _Job:
    """One accepted request: what is asked, and the engine that is lent to it."""

    body: ChatRequest
    lease: Lease
    prompt_ids: Sequence[int]
    completions: list[Completion]
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def envelope(self, kind: str) -> dict[str, Any]:
        """What every answer and every chunk of it begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.lease.engine.version,
            "system_fingerprint": f"tutelage-{__version__}",
        }

    def usage(self) -> dict[str, int]:
        written = sum(len(completion.tokens) for completion in self.completions)
        read = len(self.prompt_ids)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@router.post("/chat/completions")
async def create_chat_completion(
    request: Request, body: ChatRequest, key: Annotated[ApiKey, Depends(api_key("chat"))]
) -> Response:
    """Answer a dialogue."""
    body.check()
    job = await _accept(services(request), body)
    if body.stream:
        return EventStream(_stream(job, request.state.request_id), release=job.lease.release)
    with job.lease:
        return await unless_gone(request, _whole(job))


async def _accept(parts: Services, body: ChatRequest) -> _Job:
    """Check the rest, have the input judged, and borrow the engine."""
    messages, stops = body.dialogue(), body.stops
    await _check_input(parts.gate, messages)
    try:
        lease = await parts.engines.lease(body.model)
    except NotFound as error:
        raise UnknownModel(error.message, hint=error.hint) from None
    try:
        for message in messages:
            refuse_endless(lease.engine, message.content)
        prompt_ids = await run_sync(lease.engine.renderer.prompt, messages)
        check_room(lease.engine, prompt_ids)
    except BaseException:
        lease.release()
        raise
    question = messages[-1].content
    completions = [
        Completion(lease.engine, parts.gate, context=question, stop=stops) for _ in range(body.choices)
    ]
    return _Job(body, lease, prompt_ids, completions)


async def _check_input(gate: Gate, messages: Sequence[Message]) -> None:
    context = messages[-2].content if len(messages) > 1 else ""
    verdict = await run_sync(lambda: gate.check(messages[-1].content, side="input", context=context))
    if verdict.state == "blocked":
        raise InvalidRequest(
            f"the content filter blocked the last message ({', '.join(verdict.categories) or 'unchecked'})",
            param="messages",
            code="content_policy_violation",
            hint="say it in other words",
        )


async def _whole(job: _Job) -> JSONResponse:
    texts = await asyncio.gather(*(_text(job, index) for index in range(len(job.completions))))
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(job, completion),
            "finish_reason": completion.finish_reason,
        }
        for index, (text, completion) in enumerate(zip(texts, job.completions, strict=True))
    ]
    return JSONResponse({**job.envelope("chat.completion"), "choices": choices, "usage": job.usage()})


async def _text(job: _Job, index: int) -> str:
    async with aclosing(_pieces(job, index)) as pieces:
        return "".join([piece async for piece in pieces])


async def _pieces(job: _Job, index: int) -> AsyncGenerator[str, None]:
    """The text of one choice as it may be shown."""
    completion = job.completions[index]
    async with aclosing(completion.pieces(job.prompt_ids, job.body.sampling(index))) as pieces:
        async for piece in pieces:
            yield piece
    rest = await completion.finish()
    if rest:
        yield rest


async def _stream(job: _Job, request_id: str) -> AsyncGenerator[bytes, None]:
    """All choices as chunks. A failure in mid-stream becomes a line with the error."""
    try:
        async with aclosing(_chunks(job)) as chunks:
            async for chunk in chunks:
                yield sse(chunk)
    except Exception as error:
        log_failure(error, request_id=request_id)
        yield sse(failure_of(error).body())
    else:
        yield sse("[DONE]")


async def _chunks(job: _Job) -> AsyncGenerator[dict[str, Any], None]:
    envelope = job.envelope("chat.completion.chunk")
    with_usage = job.body.stream_options is not None and job.body.stream_options.include_usage
    extra = {"usage": None} if with_usage else {}

    def chunk(
        index: int, delta: dict[str, Any], *, logprobs: Any = None, end: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return {**envelope, "choices": [choice], **extra}

    for index in range(len(job.completions)):
        yield chunk(index, {"role": "assistant", "content": ""})
    told = [0] * len(job.completions)
    async with aclosing(merged([_pieces(job, i) for i in range(len(job.completions))])) as pieces:
        async for index, piece in pieces:
            if piece is not None:
                logprobs = _logprobs(job, job.completions[index], start=told[index])
                told[index] = len(job.completions[index].tokens)
                yield chunk(index, {"content": piece}, logprobs=logprobs)
            else:
                yield chunk(index, {}, end=job.completions[index].finish_reason)
    if with_usage:
        yield {**envelope, "choices": [], "usage": job.usage()}


def _logprobs(job: _Job, completion: Completion, *, start: int = 0) -> dict[str, Any] | None:
    """The log-probabilities of the tokens since `start`, when they were asked for."""
    if not job.body.logprobs:
        return None
    renderer = job.lease.engine.renderer
    tokens = [(renderer.decode([token]), logprob) for token, logprob in completion.tokens[start:]]
    content = [
        {"token": text, "logprob": logprob, "bytes": _bytes(text), "top_logprobs": []}
        for text, logprob in tokens
    ]
    return {"content": content, "refusal": None}


def _bytes(text: str) -> list[int] | None:
    """The bytes of a token, or null where it is only a part of a character."""
    return None if "\ufffd" in text else list(text.encode())

"""`/v1/chat/completions`: one or several answers to a dialogue, whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from tutelage.dialogue import Message
from tutelage.engine.interface import Engine, Sampling
from tutelage.errors import InvalidRequest, ModelError
from tutelage.moderation.gate import Gate, Verdict
from tutelage.server.completion import Completion
from tutelage.server.openai.chat_request import ChatRequest
from tutelage.server.openai.merging import merged
from tutelage.server.openai.moderated import moderation
from tutelage.server.openai.sending import Envelope, Loan, borrow, joined, new_id, reply, usage
from tutelage.server.openai.tokens import chat_logprobs
from tutelage.server.permissions import api_key
from tutelage.server.prompting import check_room, refuse_endless
from tutelage.server.services import services
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")


@dataclass(frozen=True, slots=True)
class _Job:
    """One accepted request: what is asked, and everything that answers it."""

    body: ChatRequest
    gate: Gate
    asked: Verdict
    loan: Loan
    prompt_ids: Sequence[int]
    samplings: Sequence[Sampling]
    envelope: Envelope

    @property
    def completions(self) -> list[Completion]:
        return self.loan.completions

    def usage(self) -> dict[str, int]:
        return usage(len(self.prompt_ids), self.loan.written)

    def moderation(self) -> dict[str, Any]:
        """The filter's scores, for clients that asked for them."""
        if self.body.moderation is None:
            return {}
        verdicts = [completion.verdict for completion in self.completions]
        return {"moderation": moderation(self.gate, self.asked, verdicts)}

    def logprobs(self, index: int, told: int, length: int) -> tuple[dict[str, Any] | None, int]:
        """Those of the tokens that the first `length` characters hold beyond the first `told` tokens; how many."""
        if not self.body.logprobs:
            return None, told
        tokens = self.completions[index].shown(told, length)
        return chat_logprobs(self.loan.lease.engine.renderer, tokens), told + len(tokens)


@router.post("/chat/completions")
async def create_chat_completion(
    request: Request, body: ChatRequest, key: Annotated[ApiKey, Depends(api_key("chat"))]
) -> Response:
    """Answer a dialogue."""
    body.check()
    job = await _accept(request, body)
    chunks = _chunks(job) if body.stream else None
    return await reply(request, job.loan, chunks=chunks, whole=lambda: _whole(job))


async def _accept(request: Request, body: ChatRequest) -> _Job:
    """Check the rest, have the input judged, and borrow the engine."""
    messages, stops, gate = body.dialogue(), body.stops, services(request).gate
    strict = gate.strict(*body.moderation.strict_sides) if body.moderation else gate
    question, before = _question(messages)
    asked = await _judge(strict, question, before)
    lease = await borrow(request, body.model)
    engine = lease.engine
    try:
        prompt_ids = await run_sync(_render, engine, messages)
        samplings = [body.sampling(index, engine.renderer.vocabulary) for index in range(body.choices)]
        request.state.allowance.reserve(len(prompt_ids))
    except BaseException:
        lease.release()
        raise
    completions = [Completion(engine, strict, context=question, stop=stops) for _ in samplings]
    loan = Loan(lease, request.state.allowance, completions)
    tier = {"service_tier": "default"} if (body.model_extra or {}).get("service_tier") else {}
    envelope = Envelope(new_id("chatcmpl"), engine.version, tier)
    return _Job(body, gate, asked, loan, prompt_ids, samplings, envelope)


def _render(engine: Engine, messages: Sequence[Message]) -> list[int]:
    """Raises ContextTooLong, and InvalidRequest where the model's template has no place for these roles."""
    for message in messages:
        refuse_endless(engine, message.content)
    try:
        prompt_ids = engine.renderer.prompt(messages)
    except ModelError as error:
        raise InvalidRequest(error.message, param="messages", hint=error.hint) from error
    check_room(engine, prompt_ids)
    return prompt_ids


def _question(messages: Sequence[Message]) -> tuple[str, str]:
    """What is asked now: everything from the last user message on. And the message before it."""
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    start = users[-1] if users else len(messages) - 1
    before = messages[start - 1].content if start else ""
    return "\n\n".join(message.content for message in messages[start:]), before


async def _judge(gate: Gate, question: str, before: str) -> Verdict:
    verdict = await run_sync(lambda: gate.check(question, side="input", context=before))
    if verdict.state == "blocked":
        raise InvalidRequest(
            f"the content filter blocked the last message ({', '.join(verdict.categories) or 'unchecked'})",
            param="messages",
            code="content_policy_violation",
            hint="say it in other words",
        )
    return verdict


async def _whole(job: _Job) -> JSONResponse:
    texts = await asyncio.gather(*(joined(_pieces(job, index)) for index in range(len(job.completions))))
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": job.logprobs(index, 0, len(text))[0],
            "finish_reason": job.completions[index].finish_reason,
        }
        for index, text in enumerate(texts)
    ]
    body = job.envelope.around("chat.completion", choices, usage=job.usage(), **job.moderation())
    return JSONResponse(body)


def _pieces(job: _Job, index: int) -> AsyncGenerator[str, None]:
    """The text of one choice as it may be shown."""
    return job.completions[index].answer(job.prompt_ids, job.samplings[index])


async def _chunks(job: _Job) -> AsyncGenerator[dict[str, Any], None]:
    extra = {"usage": None} if job.body.with_usage else {}
    kind = "chat.completion.chunk"

    def chunk(
        index: int, delta: dict[str, Any], logprobs: Any = None, end: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return job.envelope.around(kind, [choice], **extra)

    for index in range(len(job.completions)):
        yield chunk(index, {"role": "assistant", "content": ""})
    async with aclosing(_told(job)) as found:
        async for index, piece, logprobs in found:
            if piece is not None:
                yield chunk(index, {"content": piece}, logprobs)
            else:
                yield chunk(index, {}, logprobs, job.completions[index].finish_reason)
    if job.body.moderation is not None:
        yield job.envelope.around(kind, [], **extra, **job.moderation())
    if job.body.with_usage:
        yield job.envelope.around(kind, [], usage=job.usage())


async def _told(job: _Job) -> AsyncGenerator[tuple[int, str | None, dict[str, Any] | None], None]:
    """Pieces of all choices (None: a choice's end), each with the log-probabilities of its tokens."""
    told, length = [0] * len(job.completions), [0] * len(job.completions)
    async with aclosing(merged([_pieces(job, i) for i in range(len(job.completions))])) as pieces:
        async for index, piece in pieces:
            length[index] += len(piece or "")
            logprobs, told[index] = job.logprobs(index, told[index], length[index])
            empty = logprobs is not None and not logprobs["content"]
            yield index, piece, None if empty and piece is None else logprobs

"""Chunks on their way to the client, and what stands around every answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tutelage import __version__
from tutelage.engine.pool import Lease
from tutelage.errors import NotFound
from tutelage.server.completion import Completion
from tutelage.server.errors import UnknownModel, failure_of, log_failure
from tutelage.server.limits import Allowance
from tutelage.server.openai.disconnect import unless_gone
from tutelage.server.services import services
from tutelage.server.streaming import EventStream, sse


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every answer and every chunk of it begins with."""

    id: str
    model: str
    extra: dict[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))

    def around(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"tutelage-{__version__}",
            "choices": choices,
            **self.extra,
            **more,
        }


@dataclass(frozen=True, slots=True)
class Loan:
    """The engine that is lent to a request, and what its key may use. `end` gives back the one and pays the other."""

    lease: Lease
    allowance: Allowance
    completions: list[Completion]

    def end(self) -> None:
        self.lease.release()
        self.allowance.spend(self.written)

    @property
    def written(self) -> int:
        """Tokens of all answers so far."""
        return sum(len(completion.tokens) for completion in self.completions)


async def borrow(request: Request, model: str) -> Lease:
    """The engine of a version or alias. Raises UnknownModel."""
    try:
        return await services(request).engines.lease(model)
    except NotFound as error:
        raise UnknownModel(error.message, hint=error.hint) from None


async def reply(
    request: Request,
    loan: Loan,
    *,
    chunks: AsyncGenerator[dict[str, Any], None] | None,
    whole: Callable[[], Coroutine[Any, Any, Response]],
) -> Response:
    """The answer of a job: its chunks as a stream where there are any, else the whole. What was lent comes back."""
    if chunks is not None:
        return EventStream(lines(chunks, request.state.request_id), release=loan.end)
    try:
        return await unless_gone(request, whole())
    finally:
        loan.end()


async def joined(pieces: AsyncGenerator[str, None]) -> str:
    """Pieces of a text as one."""
    async with aclosing(pieces) as each:
        return "".join([piece async for piece in each])


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(14)}"


def usage(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def lines(chunks: AsyncGenerator[dict[str, Any], None], request_id: str) -> AsyncGenerator[bytes, None]:
    """Chunks as server-sent events. A failure in mid-stream becomes a line with the error."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield sse(chunk)
    except Exception as error:
        log_failure(error, request_id=request_id)
        yield sse(failure_of(error).body())
    else:
        yield sse("[DONE]")

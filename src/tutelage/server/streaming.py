"""Server-sent events: one event as bytes, and a stream that keeps proxies and browsers awake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
B = TypeVar("B")

HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": still here\n\n"
AS_IT_COMES = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Headers of what no proxy may hold back."""
LINE_ENDS = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}
"""Ends of lines for some programs, though not for JSON, which leaves them as they are."""


def sse(data: Any, *, event: str | None = None, id: int | None = None) -> bytes:
    """One event. `data` becomes one line of JSON, for every notion of a line; text is sent as it is."""
    text = data if isinstance(data, str) else _json(data)
    head = (f"id: {id}\n" if id is not None else "") + (f"event: {event}\n" if event else "")
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(LINE_ENDS)


async def with_heartbeat(events: AsyncGenerator[T, None], beat: B) -> AsyncGenerator[T | B, None]:
    """The events, and a beat whenever `HEARTBEAT_SECONDS` pass without one."""
    async with aclosing(events) as stream:
        while True:
            upcoming = asyncio.ensure_future(anext(stream, None))
            try:
                while not (await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS))[0]:
                    yield beat
                event = await upcoming
            finally:
                await _settle(upcoming)
            if event is None:
                return
            yield event


class EventStream(StreamingResponse):
    """A response that no proxy may hold back. `release` is called when it has ended or its reader has gone."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], *, release: Callable[[], None] = lambda: None
    ) -> None:
        stream = with_heartbeat(events, HEARTBEAT)
        super().__init__(stream, media_type="text/event-stream", headers=AS_IT_COMES)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _settle(upcoming: asyncio.Future[Any]) -> None:
    """Cancel what is still awaited, and see it end: a stream that is running cannot be closed."""
    if not upcoming.done():
        upcoming.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({upcoming})

"""Server-sent events as bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tutelage.server import streaming
from tutelage.server.streaming import sse, with_heartbeat


def test_an_event_has_its_id_its_name_and_one_line_of_data() -> None:
    assert sse({"text": "a\nb ☕"}, event="delta", id=7) == (
        'id: 7\nevent: delta\ndata: {"text":"a\\nb ☕"}\n\n'.encode()
    )
    assert sse("[DONE]") == b"data: [DONE]\n\n"


def test_an_event_is_one_line_for_every_reader() -> None:
    text = "".join(chr(code) for code in range(0x3000))
    line, *rest = sse({"text": text}).decode().splitlines()
    assert rest == [""]
    assert json.loads(line.removeprefix("data: ")) == {"text": text}


def test_leaving_a_silent_stream_closes_what_feeds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.01)
    closed: list[str] = []

    async def silent() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    async def leave() -> list[Any]:
        stream = with_heartbeat(silent(), streaming.HEARTBEAT)
        found = [await anext(stream), await anext(stream)]
        await stream.aclose()
        return found

    assert asyncio.run(leave()) == [b"one", streaming.HEARTBEAT]
    assert closed == ["closed"]


def test_an_error_in_the_stream_reaches_the_reader() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise ValueError("broken")

    async def read() -> list[bytes]:
        return [item async for item in with_heartbeat(broken(), streaming.HEARTBEAT)]

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(read())

"""Several streams as one, in the order in which they speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

import anyio

T = TypeVar("T")


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T | None], None]:
    """Items with the index of their stream; None stands for a stream's end. An error in one ends them all."""
    waiting = {asyncio.ensure_future(anext(stream, None)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=waiting.__getitem__):
                index, item = waiting.pop(future), future.result()
                if item is not None:
                    waiting[asyncio.ensure_future(anext(streams[index], None))] = index
                yield index, item
    finally:
        with anyio.CancelScope(shield=True):
            for future in waiting:
                future.cancel()
            if waiting:
                await asyncio.wait(waiting)
            for stream in streams:
                await stream.aclose()

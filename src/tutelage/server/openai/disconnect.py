"""Work for a client that may leave: when it has gone, nobody needs the result."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import anyio
from fastapi import Request
from starlette.responses import Response


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response, or an empty one as soon as the client has disconnected: the work is then cancelled."""
    response = Response(status_code=499)

    async with anyio.create_task_group() as beside:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            beside.cancel_scope.cancel()

        beside.start_soon(watch)
        response = await work
        beside.cancel_scope.cancel()
    return response

"""The server as one ASGI application: `/v1` for programs, `/api` for the pages and for scripts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.middleware import Middleware

from tutelage.engine.pool import Engines
from tutelage.errors import TutelageError, Unavailable
from tutelage.moderation.gate import Gate
from tutelage.registry import Registry
from tutelage.server import accounts, api, campaigns, errors, health, library, middleware, own_data
from tutelage.server.limits import Limits, RateLimitHeaders, RateLimits
from tutelage.server.openai import chat, completions, models, moderations, rewards
from tutelage.server.passwords import SignInLimits
from tutelage.server.presence import Presence
from tutelage.server.services import Access, Services
from tutelage.server.transactions import read, write
from tutelage.server.turn import DEAD_AFTER, Turns
from tutelage.store import Store, bin, search
from tutelage.store.usage import chat_settings

if TYPE_CHECKING:
    from tutelage.server.oidc.provider import Provider

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 2.0
BACK_SECONDS = 5.0
"""When the database has been away: how long other servers have to show that their answers live."""
TIDY_SECONDS, TIDY_PAUSE = 60.0, 1.0
"""How often the text index is looked at, and how long the server rests while there is something to merge."""


def create_app(
    *,
    store: Store,
    engines: Engines,
    gate: Gate,
    registry: Registry,
    home: Path,
    access: Access | None = None,
    limits: Limits | None = None,
    providers: Mapping[str, Provider] | None = None,
) -> FastAPI:
    """The server without pages. Its parts are in `app.state.services`; see `server.services`.

    When it starts it begins to load the model; while it runs it follows promotions and marks answers whose writer
    has died; when it ends it lets open answers finish and frees the models. The store stays open: it belongs to
    the caller.
    """
    access = access or Access()
    app = FastAPI(
        title="tutelage",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        middleware=[
            Middleware(middleware.RequestId),
            Middleware(RateLimitHeaders),
            Middleware(middleware.SecurityHeaders),
            Middleware(middleware.HostCheck, hosts=access.hosts),
            Middleware(middleware.OriginCheck),
            Middleware(middleware.BodyLimit),
            Middleware(middleware.SessionCookie),
            Middleware(middleware.HeadRequests),
        ],
    )
    app.state.services = Services(
        store=store,
        engines=engines,
        gate=gate,
        registry=registry,
        home=home,
        access=access,
        turns=Turns(store, engines, gate),
        sign_in_limits=SignInLimits(),
        limits=RateLimits(limits or Limits()),
        providers=providers or {},
    )
    errors.install(app)
    own = (api, library, campaigns, accounts, own_data, health)
    for part in (chat, completions, models, moderations, rewards, *own):
        app.include_router(part.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Services = app.state.services
    presence = await _arrive(parts.turns, parts.store)
    parts.turns.line.places = (await read(parts.store, chat_settings)).answers_at_once
    beside = [
        asyncio.create_task(_reap(parts.turns, parts.store)),
        asyncio.create_task(_tidy(parts.store)),
        asyncio.create_task(_keep_warm(parts.engines)),
    ]
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
        await parts.turns.close()
        await parts.engines.close()
        for provider in parts.providers.values():
            await provider.close()
        if presence is not None:
            presence.close()


async def _arrive(turns: Turns, store: Store) -> Presence | None:
    """Mark the answers of servers that have died: where no other is at work, all that are under way. Whatever fails,
    a disk that is full perhaps, people can read."""
    presence: Presence | None = None
    with _going_on():
        if isinstance(store.place, Path):
            presence = await run_sync(Presence, store.place)
        await turns.reap(older_than=timedelta(0) if presence and presence.alone else DEAD_AFTER)
    if presence is not None:
        await run_sync(presence.share)
    return presence


async def _reap(turns: Turns, store: Store) -> None:
    """Look for answers whose writer has died, and for dialogues to be purged, as long as the server lives."""
    away = False
    while True:
        await asyncio.sleep(DEAD_AFTER.total_seconds())
        with _going_on():
            if away:
                await write(store, bin.purge)  # fails for as long as the database is away
                await asyncio.sleep(BACK_SECONDS)
            away = True
            await turns.reap()
            await write(store, bin.purge)
            away = False


async def _tidy(store: Store) -> None:
    """Keep the text index in few parts, a little at a time, as long as the server lives."""
    more = False
    while True:
        await asyncio.sleep(TIDY_PAUSE if more else TIDY_SECONDS)
        with _going_on():
            more = await write(store, search.tidy)


async def _keep_warm(engines: Engines) -> None:
    """Load what will answer before the first question, and what is promoted before the next one."""
    said = ""
    while True:
        try:
            await engines.get()
        except (TutelageError, OSError) as error:
            if str(error) != said:
                log.warning("no model can answer: %s", error)
            said = str(error)
        await asyncio.sleep(FOLLOW_SECONDS)


@contextmanager
def _going_on() -> Iterator[None]:
    """What fails beside the requests is logged, and tried again the next time: nobody would notice its end."""
    try:
        yield
    except Unavailable as error:
        log.info("put off: %s", error.message)
    except Exception as error:
        errors.log_failure(error, request_id="-")

"""The server as one ASGI application: `/v1` for programs, `/api` for the pages and for scripts."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from tutelage.engine.pool import Engines
from tutelage.moderation.gate import Gate
from tutelage.registry import Registry
from tutelage.server import errors
from tutelage.server.passwords import SignInLimits
from tutelage.server.services import Access, Services
from tutelage.server.turn import Turns
from tutelage.store import Store


def create_app(
    *,
    store: Store,
    engines: Engines,
    gate: Gate,
    registry: Registry,
    home: Path,
    access: Access | None = None,
) -> FastAPI:
    """The server without pages. Its parts are in `app.state.services`; see `server.services`."""
    app = FastAPI(title="tutelage", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = Services(
        store=store,
        engines=engines,
        gate=gate,
        registry=registry,
        home=home,
        access=access or Access(),
        turns=Turns(store, engines, gate),
        sign_in_limits=SignInLimits(),
    )
    errors.install(app)
    return app

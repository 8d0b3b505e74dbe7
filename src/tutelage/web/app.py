"""What `tutelage serve` runs: the server with its pages and static files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tutelage.engine.pool import Engines
from tutelage.moderation.gate import Gate
from tutelage.registry import Registry
from tutelage.server import app as server
from tutelage.server.errors import Failure
from tutelage.server.limits import Limits
from tutelage.server.services import Access
from tutelage.store import Store
from tutelage.web.pages import (
    account,
    admission,
    campaigns,
    chat,
    data,
    feedback,
    labelling,
    operate,
    public,
    rank,
    review,
    sign_in,
    training,
    versions,
    write,
)
from tutelage.web.templating import Pages, reader

if TYPE_CHECKING:
    from tutelage.server.oidc.provider import Provider

ROOMS = (
    *(chat, public, sign_in, account),
    *(write, rank),
    *(versions, operate, admission, review, labelling, training, data, feedback, campaigns),
)
"""For everybody, for trainers, for operators."""


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
    """The whole application: `/v1`, `/api`, the pages and what they load."""
    app = server.create_app(
        store=store,
        engines=engines,
        gate=gate,
        registry=registry,
        home=home,
        access=access,
        limits=limits,
        providers=providers,
    )
    pages = Pages(store)
    app.state.pages = pages
    app.state.error_page = error_page
    app.state.translator = pages.translator_of
    app.add_api_route("/static/{hash}/{name}", pages.assets.respond, include_in_schema=False)
    for room in ROOMS:
        app.include_router(room.router)
    return app


def error_page(request: Request, failure: Failure) -> Response:
    """What a navigation that failed shows. Who has to sign in is sent there, and back afterwards."""
    if failure.status == 401:
        return RedirectResponse(f"/sign-in?next={request.url.path}", status_code=303)
    pages: Pages = request.app.state.pages
    signing_in = request.url.path.startswith("/sign-in/")
    response = pages.bare(
        request,
        "error.html",
        user=reader(request),
        status_code=failure.status,
        failure=failure,
        signing_in=signing_in,
    )
    response.headers.update(failure.headers)
    return response

"""The chat page and the pieces of it that change while it is open.

GET /                            a new chat
GET /c/{dialogue_id}             ?message=ID shows the branch through that message
GET /fragments/messages/{id}     one message as the thread shows it
GET /fragments/dialogues         ?current=ID the list of chats in the side bar
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from tutelage.engine.pool import PoolState
from tutelage.errors import NotFound
from tutelage.moderation.categories import CATEGORIES
from tutelage.registry import Registry
from tutelage.store import dialogues, feedback
from tutelage.web import markdown
from tutelage.web.catalogue import Translate
from tutelage.web.pages.parts import Anybody, Parts, Templates
from tutelage.web.views import message_views

router = APIRouter(include_in_schema=False)


class Blocks(BaseModel):
    """A piece of an answer."""

    text: str = Field(max_length=100_000)


@router.get("/")
def new_chat(request: Request, user: Anybody, parts: Parts, pages: Templates) -> Response:
    """The empty state, with a composer."""
    t = pages.translator(request, user)
    context = _model(parts.registry, parts.engines.state())
    return pages.page(
        request,
        "chat.html",
        user=user,
        title="",
        messages=[],
        categories=CATEGORIES,
        examples=examples(t),
        limits=limits(t),
        **context,
    )


@router.get("/c/{dialogue_id}")
def chat(
    request: Request,
    dialogue_id: str,
    user: Anybody,
    parts: Parts,
    pages: Templates,
    message: str | None = None,
) -> Response:
    """One of the user's dialogues."""
    with parts.store.read() as tx:
        dialogue = dialogues.get_dialogue(tx, dialogue_id, owner_id=user.id)
        thread = dialogues.thread(tx, dialogue_id, leaf_id=message)
        ratings = feedback.ratings_for(tx, [row.id for row, _ in thread], user.id)
    return pages.page(
        request,
        "chat.html",
        user=user,
        title=dialogue.title,
        dialogue_id=dialogue_id,
        messages=message_views(thread, ratings),
        categories=CATEGORIES,
        **_model(parts.registry, parts.engines.state()),
    )


@router.get("/fragments/messages/{message_id}")
def message_fragment(
    request: Request, message_id: str, user: Anybody, parts: Parts, pages: Templates
) -> Response:
    """One message, as it stands in the thread now."""
    with parts.store.read() as tx:
        row = dialogues.get_message(tx, message_id, owner_id=user.id)
        thread = dialogues.thread(tx, row.dialogue_id, leaf_id=message_id)
        ratings = feedback.ratings_for(tx, [message_id], user.id)
    views = message_views([pair for pair in thread if pair[0].id == message_id], ratings)
    return pages.bare(request, "_message.html", user=user, message=views[0], model_ready=True)


@router.get("/fragments/dialogues")
def dialogues_fragment(request: Request, user: Anybody, pages: Templates, current: str = "") -> Response:
    """The list of chats."""
    return pages.page(request, "_dialogues.html", user=user, dialogue_id=current)


@router.post("/fragments/markdown")
def markdown_fragment(body: Blocks, user: Anybody) -> Response:
    """Markdown as answers show it."""
    return HTMLResponse(markdown.render(body.text))


def examples(t: Translate) -> list[str]:
    """Questions to begin with."""
    return [
        t("Explain how a rainbow forms, in simple words"),
        t("Give me three ideas for a birthday dinner"),
        t("How do I read a CSV file in Python?"),
    ]


def limits(t: Translate) -> list[str]:
    """What this kind of model is not good at."""
    return [
        t("May state things that are wrong, and sound sure of them"),
        t("May answer differently when a question is worded differently"),
        t("Knows little of what happened after its training"),
    ]


def _model(registry: Registry, state: PoolState) -> dict[str, Any]:
    """Which version answers, and whether it is in memory."""
    try:
        version = registry.resolve("stable").name
    except NotFound:
        version = ""
    return {"version": version, "model_ready": "stable" in state.serving}

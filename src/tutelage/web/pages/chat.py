"""The chat page and the pieces of it that change while it is open.

GET  /                           ?temporary=true a new chat
GET  /c/{dialogue_id}            ?message=ID shows the branch through that message
GET  /fragments/messages/{id}    one message as the thread shows it
GET  /fragments/pairs/{id}       an answer and the one that was given beside it
GET  /fragments/threads/{id}     ?message=ID of a branch; the part of it that comes before=ID, after=ID or since=ID
GET  /fragments/dialogues        ?current=ID&before=ID&q=WORDS the list of chats, or those with these words
POST /fragments/markdown         {text}
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from tutelage.moderation.categories import CATEGORIES
from tutelage.server.services import Services
from tutelage.store import campaigns, dialogues, search, usage
from tutelage.store.tables import User
from tutelage.web import markdown
from tutelage.web.pages.parts import Anybody, Parts, Templates
from tutelage.web.threads import EMPTY, read_pair, read_thread
from tutelage.web.welcome import current_model, welcome

router = APIRouter(include_in_schema=False)


class Blocks(BaseModel):
    """A piece of an answer."""

    text: str = Field(max_length=100_000)


@router.get("/")
def new_chat(
    request: Request, user: Anybody, parts: Parts, pages: Templates, temporary: bool = False
) -> Response:
    """The empty state, with a composer."""
    t = pages.translator(request, user)
    model = current_model(parts)
    return pages.page(
        request,
        "chat.html",
        user=user,
        title="",
        thread=EMPTY,
        temporary=temporary,
        categories=CATEGORIES,
        **_for_reader(parts, user),
        crowd=parts.turns.line.length,
        full=parts.turns.line.length >= parts.turns.line.longest,
        **welcome(t, model.version),
        **model.as_context(),
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
        thread = read_thread(tx, user, dialogue_id, leaf_id=message)
    return pages.page(
        request,
        "chat.html",
        user=user,
        title=dialogue.title,
        dialogue_id=dialogue_id,
        temporary=dialogue.temporary,
        thread=thread.end(including=message),
        categories=CATEGORIES,
        **_for_reader(parts, user),
        **current_model(parts).as_context(),
    )


@router.get("/fragments/messages/{message_id}")
def message_fragment(
    request: Request, message_id: str, user: Anybody, parts: Parts, pages: Templates
) -> Response:
    """One message, as it stands in the thread now."""
    with parts.store.read() as tx:
        row = dialogues.get_message(tx, message_id, owner_id=user.id)
        thread = read_thread(tx, user, row.dialogue_id, leaf_id=message_id)
    return pages.bare(request, "_message.html", user=user, message=thread.only(message_id), model_ready=True)


@router.get("/fragments/pairs/{answer_id}")
def pair_fragment(
    request: Request, answer_id: str, user: Anybody, parts: Parts, pages: Templates
) -> Response:
    """Two answers side by side, to choose again."""
    with parts.store.read() as tx:
        message = read_pair(tx, user, answer_id)
    return pages.bare(request, "_pair.html", user=user, message=message, model_ready=True)


@router.get("/fragments/threads/{dialogue_id}")
def thread_fragment(
    request: Request,
    dialogue_id: str,
    user: Anybody,
    parts: Parts,
    pages: Templates,
    message: str,
    before: str | None = None,
    after: str | None = None,
    since: str | None = None,
) -> Response:
    """A part of one branch. Without `before`, `after` or `since`, its end."""
    with parts.store.read() as tx:
        dialogues.get_dialogue(tx, dialogue_id, owner_id=user.id)
        thread = read_thread(tx, user, dialogue_id, leaf_id=message)
    part = thread.end()
    if before is not None:
        part = thread.before(before)
    elif after is not None or since is not None:
        part = thread.since(after or since or "", itself=since is not None)
    return pages.bare(request, "_thread.html", user=user, thread=part, model_ready=True)


@router.get("/fragments/dialogues")
def dialogues_fragment(
    request: Request,
    user: Anybody,
    parts: Parts,
    pages: Templates,
    current: str = "",
    before: str | None = None,
    q: Annotated[str, Query(max_length=search.LONGEST_QUERY)] = "",
) -> Response:
    """The list of chats (those older than `before`), or those with some words."""
    if not q.strip():
        listed = pages.side_bar(request, user, before=before)
        return pages.bare(request, "_dialogues.html", user=user, dialogue_id=current, **listed)
    with parts.store.read() as tx:
        found = search.search(tx, user.id, q)
    return pages.bare(
        request, "_found.html", user=user, found=found, most=search.MOST_FOUND, dialogue_id=current
    )


@router.post("/fragments/markdown")
def markdown_fragment(body: Blocks, user: Anybody) -> Response:
    """Markdown as answers show it."""
    return HTMLResponse(markdown.render(body.text))


def _for_reader(parts: Services, user: User) -> dict[str, Any]:
    """How many answers are left for today, and the campaign that takes feedback."""
    with parts.store.read() as tx:
        return {"remaining": usage.remaining(tx, user), "campaign": campaigns.open_campaign(tx)}

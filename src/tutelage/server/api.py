"""The chat over JSON, for the pages and for scripts. Cookie session; the owner is in every query.

    POST   /api/dialogues                    {text, answers?, idempotency_key?, temporary?} 201 started turn
    GET    /api/dialogues                    ?limit=50&before=ID&archived=false            {dialogues: [...]}
    GET    /api/dialogues/{id}               ?leaf_id=ID                                   {dialogue, messages: [...]}
    PATCH  /api/dialogues/{id}               {title?, archived?}                           {dialogue}
    DELETE /api/dialogues/{id}               can be taken back for an hour                 204
    POST   /api/dialogues/{id}/messages      {text, answers?, parent_id?, idempotency_key?} 201 started turn
    POST   /api/messages/{id}/regenerate                                                   201 started turn
    POST   /api/messages/{id}/continue       a cut-off answer goes on                      201 started turn
    GET    /api/answers/{id}/events          ?after=N or Last-Event-ID                     text/event-stream
    POST   /api/answers/{id}/stop                                                          204
    PUT    /api/messages/{id}/rating         {verdict, reasons?, note?, ideal?}            {rating}
    DELETE /api/messages/{id}/rating                                                       204
    POST   /api/messages/{id}/report         {kind, category?, note?}                      201 {report}
    GET    /api/model                                                                      {serving, loading, failed}

Searching, sharing, exporting, importing, comparing: `server.library`. Accounts (server/accounts.py; one's own data:
server/own_data.py):

    GET    /api/me                                                                         {user: {...} | null}

    POST   /api/sign-in                      {name, password}                              {user}
    POST   /api/sign-out                                                                   204
    POST   /api/operator-link                {token}                                       {user}
    PUT    /api/account                      {name, password}                              {user}  names a guest
    PUT    /api/account/password             {old, new}                                    {user}

A started turn is {dialogue_id, user_message_id, answer_id, second_answer_id, input_verdict, remaining}; `answers: 2` in
a sent message asks for two side by side, `answers: 1` for one, and the second is null. Without `answers` there are two
now and then while versions are compared. `remaining` is how many answers are left for today, null where nobody counts.

A message is {id, dialogue_id, parent_id, role, content, author_kind, status, finish_reason, model_version,
verdict, siblings: [ids], rating: {verdict, reasons, note, ideal} | null, created}. The content of a blocked answer
is empty. `parent_id` left out of a sent message means the newest leaf; null means a new first message.

Events are `id: SEQ`, `event: delta|verdict|done|error`, `data: JSON` as in server/turn.py; a comment comes every
15 s. Errors are {"error": {message, type, param, code}}.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from tutelage.server.answer import visible_text
from tutelage.server.errors import Failure, told_to
from tutelage.server.permissions import current_user, writing_user
from tutelage.server.services import services
from tutelage.server.streaming import EventStream, sse
from tutelage.server.transactions import read, write
from tutelage.server.turn import StartedTurn
from tutelage.store import bin, dialogues, feedback, reports, tables
from tutelage.store.tables import User

router = APIRouter(prefix="/api")

Me = Annotated[User, Depends(current_user)]
Writer = Annotated[User, Depends(writing_user)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FirstMessage(_Body):
    text: str
    answers: int = Field(1, ge=1, le=2)
    idempotency_key: str | None = Field(None, min_length=1, max_length=100)
    temporary: bool = False


class NextMessage(_Body):
    text: str
    answers: int = Field(1, ge=1, le=2)
    idempotency_key: str | None = Field(None, min_length=1, max_length=100)
    parent_id: str | None = None


class Change(_Body):
    title: str | None = None
    archived: bool | None = None


class RatingBody(_Body):
    verdict: Literal["up", "down"]
    reasons: list[str] = Field(default=[], max_length=10)
    note: str = Field("", max_length=10_000)
    ideal: str = Field("", max_length=100_000)


class ReportBody(_Body):
    kind: Literal["mistake", "missed"]
    category: str | None = Field(None, max_length=100)
    note: str = Field("", max_length=10_000)


@router.post("/dialogues", status_code=201)
async def start_dialogue(request: Request, body: FirstMessage, me: Writer) -> dict[str, Any]:
    """Begin a dialogue with its first message."""
    turns = services(request).turns
    turn = await turns.send(
        me,
        text=body.text,
        idempotency_key=body.idempotency_key,
        temporary=body.temporary,
        answers=_wanted(body),
    )
    return _started(turn)


@router.get("/dialogues")
async def list_dialogues(
    request: Request,
    me: Me,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=64)] = None,
    archived: bool = False,
) -> dict[str, Any]:
    """The user's dialogues, last changed first: those in use, or the archived ones."""
    rows = await read(
        services(request).store,
        lambda tx: dialogues.list_dialogues(tx, me.id, limit=limit, before=before, archived=archived),
    )
    return {"dialogues": [dialogue_view(row) for row in rows]}


@router.get("/dialogues/{dialogue_id}")
async def show_dialogue(
    request: Request, me: Me, dialogue_id: str, leaf_id: Annotated[str | None, Query(max_length=64)] = None
) -> dict[str, Any]:
    """One branch of a dialogue: the newest, or the newest through `leaf_id`."""
    return await read(services(request).store, lambda tx: thread_view(tx, me, dialogue_id, leaf_id=leaf_id))


@router.patch("/dialogues/{dialogue_id}")
async def change_dialogue(request: Request, me: Me, dialogue_id: str, body: Change) -> dict[str, Any]:
    """Give a dialogue another title, put it into the archive or take it out."""

    def change(tx: Session) -> tables.Dialogue:
        row = dialogues.get_dialogue(tx, dialogue_id, owner_id=me.id)
        if body.title is not None:
            row = dialogues.rename_dialogue(tx, dialogue_id, owner_id=me.id, title=body.title)
        if body.archived is not None:
            row = dialogues.archive_dialogue(tx, dialogue_id, owner_id=me.id, archived=body.archived)
        return row

    return {"dialogue": dialogue_view(await write(services(request).store, change))}


@router.delete("/dialogues/{dialogue_id}", status_code=204)
async def delete_dialogue(request: Request, me: Me, dialogue_id: str) -> Response:
    """Put a dialogue into the bin, from where it can be restored for an hour."""
    await write(services(request).store, lambda tx: bin.bin_dialogue(tx, dialogue_id, owner_id=me.id))
    return Response(status_code=204)


@router.post("/dialogues/{dialogue_id}/messages", status_code=201)
async def send_message(request: Request, me: Writer, dialogue_id: str, body: NextMessage) -> dict[str, Any]:
    """Continue a dialogue after `parent_id`: its newest leaf when left out, a new beginning when null."""
    parent_id = body.parent_id
    if "parent_id" not in body.model_fields_set:
        parent_id = await read(services(request).store, lambda tx: _newest_leaf(tx, me, dialogue_id))
    turn = await services(request).turns.send(
        me,
        text=body.text,
        dialogue_id=dialogue_id,
        parent_id=parent_id,
        idempotency_key=body.idempotency_key,
        answers=_wanted(body),
    )
    return _started(turn)


@router.post("/messages/{message_id}/regenerate", status_code=201)
async def regenerate(request: Request, me: Writer, message_id: str) -> dict[str, Any]:
    """Another answer to the same question."""
    return _started(await services(request).turns.regenerate(me, message_id=message_id))


@router.post("/messages/{message_id}/continue", status_code=201)
async def go_on(request: Request, me: Writer, message_id: str) -> dict[str, Any]:
    """Go on with an answer that was cut off, in the same message."""
    return _started(await services(request).turns.go_on(me, message_id=message_id))


@router.get("/answers/{answer_id}/events")
async def answer_events(
    request: Request,
    me: Me,
    answer_id: str,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str, Header(max_length=20)] = "",
) -> EventStream:
    """Follow an answer. A browser that comes back sends Last-Event-ID by itself."""
    turns = services(request).turns
    await turns.answer(me, answer_id)
    start = int(last_event_id) if last_event_id.isascii() and last_event_id.isdecimal() else after

    async def lines() -> AsyncGenerator[bytes, None]:
        async for event in turns.events(me, answer_id, after=start):
            data = _told(request, event.data) if event.kind == "error" else event.data
            yield sse(data, event=event.kind, id=event.seq)

    return EventStream(lines())


@router.post("/answers/{answer_id}/stop", status_code=204)
async def stop_answer(request: Request, me: Me, answer_id: str) -> Response:
    """End an answer early."""
    await services(request).turns.stop(me, answer_id)
    return Response(status_code=204)


@router.put("/messages/{message_id}/rating")
async def rate(request: Request, me: Writer, message_id: str, body: RatingBody) -> dict[str, Any]:
    """Judge an answer; sent again, it replaces the first judgement."""
    row = await write(
        services(request).store,
        lambda tx: feedback.rate(tx, message_id=message_id, rater_id=me.id, **body.model_dump()),
    )
    return {"rating": rating_view(row)}


@router.delete("/messages/{message_id}/rating", status_code=204)
async def withdraw_rating(request: Request, me: Me, message_id: str) -> Response:
    """Take a judgement back; nothing happens when there was none."""

    def withdraw(tx: Session) -> None:
        dialogues.get_message(tx, message_id, owner_id=me.id)
        feedback.withdraw(tx, message_id=message_id, rater_id=me.id)

    await write(services(request).store, withdraw)
    return Response(status_code=204)


@router.post("/messages/{message_id}/report", status_code=201)
async def report(request: Request, me: Writer, message_id: str, body: ReportBody) -> dict[str, Any]:
    """Say that the filter was wrong about a message."""
    row = await write(
        services(request).store,
        lambda tx: reports.report(tx, message_id=message_id, reporter_id=me.id, **body.model_dump()),
    )
    return {"report": {"id": row.id, "kind": row.kind, "category": row.category, "status": row.status}}


@router.get("/model")
async def model(request: Request, me: Me) -> JSONResponse:
    """What answers now, what is being loaded, and what could not be."""
    return JSONResponse(asdict(services(request).engines.state()))


def dialogue_view(row: tables.Dialogue) -> dict[str, Any]:
    """A dialogue as JSON, without its messages."""
    return {
        "id": row.id,
        "title": row.title,
        "temporary": row.temporary,
        "archived": row.archived,
        "created": row.created.isoformat(),
        "updated": row.updated.isoformat(),
    }


def thread_view(tx: Session, user: User, dialogue_id: str, *, leaf_id: str | None = None) -> dict[str, Any]:
    """A dialogue with one branch of its messages, each with its siblings and the user's rating."""
    dialogue = dialogues.get_dialogue(tx, dialogue_id, owner_id=user.id)
    rows = dialogues.thread(tx, dialogue_id, leaf_id=leaf_id)
    ratings = feedback.ratings_for(tx, [row.id for row, _ in rows], user.id)
    messages = [message_view(row, siblings, ratings.get(row.id)) for row, siblings in rows]
    return {"dialogue": dialogue_view(dialogue), "messages": messages}


def message_view(
    row: tables.Message, siblings: list[str], rating: tables.Rating | None = None
) -> dict[str, Any]:
    """A message as JSON for its owner."""
    return {
        "id": row.id,
        "dialogue_id": row.dialogue_id,
        "parent_id": row.parent_id,
        "role": row.role,
        "content": visible_text(row),
        "author_kind": row.author_kind,
        "status": row.status,
        "finish_reason": row.finish_reason,
        "model_version": row.model_version,
        "verdict": row.filter_verdict,
        "siblings": siblings,
        "rating": None if rating is None else rating_view(rating),
        "created": row.created.isoformat(),
    }


def rating_view(row: tables.Rating) -> dict[str, Any]:
    """A rating as JSON for its author."""
    return {"verdict": row.verdict, "reasons": row.reasons, "note": row.note, "ideal": row.ideal}


def _started(turn: StartedTurn) -> dict[str, Any]:
    return {
        "dialogue_id": turn.dialogue_id,
        "user_message_id": turn.user_message_id,
        "answer_id": turn.answer_id,
        "second_answer_id": turn.second_answer_id,
        "input_verdict": turn.input_verdict.as_dict(),
        "remaining": turn.remaining,
    }


def _wanted(body: FirstMessage | NextMessage) -> int | None:
    """How many answers were asked for; None when that is left to the server."""
    return body.answers if "answers" in body.model_fields_set else None


def _told(request: Request, broken: dict[str, Any]) -> dict[str, Any]:
    """Why an answer broke off, in its reader's language."""
    failure = told_to(request, Failure(503, broken["message"], hint=broken["hint"]))
    return {**broken, "message": failure.said, "hint": failure.hint}


def _newest_leaf(tx: Session, user: User, dialogue_id: str) -> str | None:
    dialogues.get_dialogue(tx, dialogue_id, owner_id=user.id)
    rows = dialogues.thread(tx, dialogue_id)
    return rows[-1][0].id if rows else None

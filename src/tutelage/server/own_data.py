"""One's own account over JSON: what new chats begin with, where one is signed in, taking everything along, leaving.

    PUT    /api/account/instructions         {instructions}                                {user}
    GET    /api/account/export               everything that is kept about the user        a JSON file
    DELETE /api/account                      {password?} needed where there is one         204
    GET    /api/sessions                                                                   {sessions: [...]}
    DELETE /api/sessions/{id}                                                              204
    DELETE /api/dialogues                    all of them, for good                         {deleted}
    POST   /api/invites/accept               {token, name, password}                       {user}

A session is {id, agent, created, here}. Errors as in `server.api`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.responses import Response, StreamingResponse

from tutelage.errors import InvalidRequest, NotFound
from tutelage.server import passwords
from tutelage.server.accounts import begin_session, user_view
from tutelage.server.library import download
from tutelage.server.permissions import address_of, current_user, optional_user, session_token, set_session
from tutelage.server.services import services
from tutelage.server.transactions import read, write
from tutelage.store import accounts, dialogues, identities, invites, transfer
from tutelage.store.tables import Identity, User, UserSession

router = APIRouter(prefix="/api")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Instructions(_Body):
    instructions: str = Field(max_length=10_000)


class Leaving(_Body):
    password: str = Field("", max_length=passwords.LONGEST)


class Invited(_Body):
    token: str = Field(min_length=1, max_length=200)
    name: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=passwords.LONGEST)


@router.put("/account/instructions")
async def set_instructions(
    request: Request, body: Instructions, me: User = Depends(current_user)
) -> dict[str, Any]:
    """What every new chat of the user begins with. The content filter reads it like any message."""
    parts = services(request)
    verdict = await run_sync(lambda: parts.gate.check(body.instructions, side="input"))
    if verdict.state == "blocked":
        raise InvalidRequest(
            "these instructions were blocked by the content filter",
            param="instructions",
            hint="say it in other words",
        )
    user = await write(parts.store, lambda tx: accounts.set_instructions(tx, me.id, body.instructions))
    return {"user": user_view(user)}


@router.get("/account/export")
async def export_account(request: Request, me: User = Depends(current_user)) -> StreamingResponse:
    """Everything that is kept about the user, one dialogue at a time."""
    store = services(request).store
    ids = await read(store, lambda tx: transfer.own_ids(tx, me.id))
    rest = await read(store, lambda tx: _judged_and_written(tx, me))

    async def pieces() -> AsyncIterator[str]:
        head = {"account": user_view(me), **rest}
        yield json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "dialogues": ['
        comma = ""
        for dialogue_id in ids:
            try:
                whole = await read(store, partial(_whole, dialogue_id=dialogue_id, owner_id=me.id))
            except NotFound:
                continue  # deleted while this was being written
            yield f"{comma}\n{json.dumps(whole, ensure_ascii=False)}"
            comma = ","
        yield "]}\n"

    return StreamingResponse(pieces(), media_type="application/json", headers=download("tutelage.json"))


@router.delete("/account", status_code=204)
async def delete_account(request: Request, body: Leaving, me: User = Depends(current_user)) -> Response:
    """Forget the user with all their chats. Rankings and handed-in demonstrations stay, without a name."""
    parts, known = services(request), me.password_hash
    if known is not None:
        limits = parts.sign_in_limits
        if not await limits.matches(me.id, address_of(request), body.password, known):
            raise InvalidRequest("the password is wrong", param="password")
    await write(parts.store, lambda tx: accounts.leave(tx, me.id))
    set_session(request, None)
    return Response(status_code=204)


@router.delete("/dialogues")
async def delete_dialogues(request: Request, me: User = Depends(current_user)) -> dict[str, int]:
    """Delete all of the user's dialogues for good, binned and temporary ones too."""
    count = await write(services(request).store, lambda tx: dialogues.delete_dialogues(tx, me.id))
    return {"deleted": count}


@router.get("/sessions")
async def list_sessions(request: Request, me: User = Depends(current_user)) -> dict[str, Any]:
    """Where the user is signed in, newest first."""
    token = session_token(request) or ""

    def rows(tx: Session) -> list[dict[str, Any]]:
        here = accounts.session_id(tx, token)
        return [session_view(row, here) for row in accounts.list_sessions(tx, me.id)]

    return {"sessions": await read(services(request).store, rows)}


@router.delete("/sessions/{session_id}", status_code=204)
async def close_session(request: Request, session_id: str, me: User = Depends(current_user)) -> Response:
    """Sign one of the user's browsers out; nothing happens when it was."""
    await write(services(request).store, lambda tx: accounts.close_sessions(tx, me.id, session_id=session_id))
    return Response(status_code=204)


@router.post("/invites/accept")
async def accept_invite(request: Request, body: Invited) -> dict[str, Any]:
    """Become the person an operator has invited. A guest's chats stay theirs."""
    passwords.check_new(body.password)
    parts, present = services(request), await optional_user(request)
    guest_id = present.id if present is not None and present.name is None else None
    await read(parts.store, lambda tx: invites.open_invite(tx, body.token))
    password_hash = await parts.sign_in_limits.hash(address_of(request), body.password)
    user = await begin_session(
        request,
        lambda tx: invites.accept_invite(
            tx, body.token, name=body.name, password_hash=password_hash, guest_id=guest_id
        ),
    )
    return {"user": user_view(user)}


def session_view(row: UserSession, here: str | None) -> dict[str, Any]:
    """A session as JSON for its owner."""
    return {"id": row.id, "agent": row.agent, "created": row.created.isoformat(), "here": row.id == here}


def identity_view(row: Identity) -> dict[str, Any]:
    """What another place calls a user, as JSON for themselves."""
    return {"issuer": row.issuer, "subject": row.subject, "created": row.created.isoformat()}


def _whole(tx: Session, *, dialogue_id: str, owner_id: str) -> dict[str, Any]:
    return transfer.whole_dialogue(tx, dialogue_id, owner_id=owner_id)


def _judged_and_written(tx: Session, me: User) -> dict[str, Any]:
    return {
        **transfer.judgements(tx, me.id),
        "identities": [identity_view(row) for row in identities.list_identities(tx, me.id)],
        "sessions": [session_view(row, None) for row in accounts.list_sessions(tx, me.id)],
    }

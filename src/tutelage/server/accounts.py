"""Signing in and out, and becoming an operator, over JSON. See the table in `server.api`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from tutelage.errors import Conflict, InvalidRequest, Unauthenticated
from tutelage.server import passwords
from tutelage.server.permissions import (
    SESSION_DAYS,
    address_of,
    agent_of,
    current_user,
    optional_user,
    session_token,
    set_session,
)
from tutelage.server.services import services
from tutelage.server.transactions import read, write
from tutelage.store import accounts
from tutelage.store.tables import User

router = APIRouter(prefix="/api")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SignIn(_Body):
    name: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=passwords.LONGEST)


class OperatorToken(_Body):
    token: str = Field(min_length=1, max_length=200)


class Account(_Body):
    name: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=passwords.LONGEST)


class NewPassword(_Body):
    old: str = Field(min_length=1, max_length=passwords.LONGEST)
    new: str = Field(min_length=1, max_length=passwords.LONGEST)


@router.post("/sign-in")
async def sign_in(request: Request, body: SignIn) -> dict[str, Any]:
    """Open a new session for a name and a password. Says the same whether the name or the password is wrong."""
    parts = services(request)
    user = await read(parts.store, lambda tx: accounts.find_by_name(tx, body.name))
    known = user.password_hash if user else None
    name = accounts.name_key(body.name)
    right = await parts.sign_in_limits.matches(name, address_of(request), body.password, known)
    if not right or user is None:
        raise Unauthenticated("name or password is wrong", hint="check both, and try again")
    await begin_session(request, lambda tx: user)
    return {"user": user_view(user)}


@router.post("/sign-out", status_code=204)
async def sign_out(request: Request) -> Response:
    """End this session; nothing happens when there is none."""
    token = session_token(request)
    if token is not None:
        await write(services(request).store, lambda tx: accounts.close_session(tx, token))
    set_session(request, None)
    return Response(status_code=204)


@router.post("/operator-link")
async def use_operator_link(request: Request, body: OperatorToken) -> dict[str, Any]:
    """Make whoever sends a fresh operator's link an operator: the present user, or a new one."""
    present = await optional_user(request)
    user_id = None if present is None else present.id
    user = await begin_session(request, lambda tx: accounts.use_operator_link(tx, body.token, user_id))
    return {"user": user_view(user)}


@router.put("/account")
async def name_account(request: Request, body: Account, user: User = Depends(current_user)) -> dict[str, Any]:
    """Give the present guest (or new operator) a name and a password, so that they can sign in elsewhere."""
    passwords.check_new(body.password)
    if user.name is not None:
        raise Conflict("This account has a name already.", hint="change the password instead")
    password_hash = await services(request).sign_in_limits.hash(address_of(request), body.password)
    named = await begin_session(
        request,
        lambda tx: accounts.promote_guest(tx, user.id, name=body.name, password_hash=password_hash),
    )
    return {"user": user_view(named)}


@router.put("/account/password")
async def change_password(
    request: Request, body: NewPassword, user: User = Depends(current_user)
) -> dict[str, Any]:
    """Change the password of the present user; all their other sessions end."""
    passwords.check_new(body.new)
    limits = services(request).sign_in_limits
    if not await limits.matches(user.id, address_of(request), body.old, user.password_hash):
        raise InvalidRequest("the old password is wrong", param="old")
    password_hash = await limits.hash(address_of(request), body.new)
    changed = await begin_session(request, lambda tx: accounts.set_password(tx, user.id, password_hash))
    return {"user": user_view(changed)}


@router.get("/me")
async def me(request: Request) -> dict[str, Any]:
    """Who is asking, or null."""
    user = await optional_user(request)
    return {"user": None if user is None else user_view(user)}


def user_view(user: User) -> dict[str, Any]:
    """A user as JSON for themselves."""
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "locale": user.locale,
        "consent": user.consent,
        "instructions": user.instructions,
        "created": user.created.isoformat(),
    }


async def begin_session(
    request: Request, become: Callable[[Session], User], *, days: float = SESSION_DAYS
) -> User:
    """Sign this browser in as the user that `become` gives, in one transaction: whoever uses a link up is signed in.

    A fresh session, because a token from before must not carry new rights.
    """
    old = getattr(request.state, "session", None) or session_token(request)

    def rotate(tx: Session) -> tuple[User, str]:
        user = become(tx)
        if old is not None:
            accounts.close_session(tx, old)
        return user, accounts.open_session(tx, user.id, days=days, agent=agent_of(request))

    user, token = await write(services(request).store, rotate)
    set_session(request, token)
    return user

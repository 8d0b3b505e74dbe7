"""Running the server: reports about the filter, people, keys.

GET  /operate/reports                            ?status=open
POST /operate/reports/{id}                       {decision}
GET  /operate/people
POST /operate/people                             {name, role} -> {secret}: a one-time password
PUT  /operate/people/{id}/role                   {role}
GET  /operate/keys
POST /operate/keys                               {name, scopes} -> {secret}
POST /operate/keys/{id}/revoke
"""

from __future__ import annotations

from typing import Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from tutelage.server.passwords import hash_password, make_password
from tutelage.store import accounts, audit, reports
from tutelage.store.tables import ReportStatus, UserRole
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate", include_in_schema=False)
SHOWN = 200
MEMBERS: tuple[UserRole, ...] = ("user", "trainer", "operator")


class Decision(BaseModel):
    """A word on a report."""

    decision: Literal["accepted", "declined"]


class NewPerson(BaseModel):
    """Somebody to let in."""

    name: str = Field(min_length=1, max_length=64)
    role: Literal["user", "trainer", "operator"]


class NewRole(BaseModel):
    """What somebody may do from now on."""

    role: Literal["user", "trainer", "operator"]


class NewKey(BaseModel):
    """A key for a program."""

    name: str = Field(min_length=1, max_length=64)
    scopes: list[str] = Field(max_length=len(accounts.SCOPES))


@router.get("/reports")
def list_reports(
    request: Request, user: Operator, parts: Parts, pages: Templates, status: ReportStatus = "open"
) -> Response:
    """Where readers say that the filter was wrong."""
    with parts.store.read() as tx:
        rows = reports.list_reports(tx, status=status)
    return pages.page(
        request,
        "operate_reports.html",
        user=user,
        place="operate",
        tab="reports",
        rows=rows[:SHOWN],
        status=status,
    )


@router.post("/reports/{report_id}", status_code=204)
def decide(report_id: str, body: Decision, user: Operator, parts: Parts) -> None:
    """Agree with a report or not."""
    with parts.store.write() as tx:
        reports.decide_report(tx, report_id, decision=body.decision, by=user.id)
        audit.record(tx, user.id, "decide_report", report_id, detail={"decision": body.decision})


@router.get("/people")
def people(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """Everybody with a name."""
    with parts.store.read() as tx:
        rows = accounts.list_members(tx)
        guests = accounts.count_users(tx, roles=("guest",))
    return pages.page(
        request,
        "operate_people.html",
        user=user,
        place="operate",
        tab="people",
        rows=rows,
        guests=guests,
        roles=MEMBERS,
    )


@router.post("/people", status_code=201)
async def add_person(body: NewPerson, user: Operator, parts: Parts) -> dict[str, str]:
    """Create an account. Its password is in the answer, and nowhere else."""
    password = make_password()
    password_hash = await hash_password(password)

    def create() -> None:
        with parts.store.write() as tx:
            made = accounts.create_user(tx, name=body.name, password_hash=password_hash, role=body.role)
            audit.record(tx, user.id, "make_account", made.id, detail={"role": body.role})

    await run_sync(create)
    return {"secret": password}


@router.put("/people/{user_id}/role", status_code=204)
def change_role(user_id: str, body: NewRole, user: Operator, parts: Parts) -> None:
    """Change what somebody may do."""
    with parts.store.write() as tx:
        accounts.set_role(tx, user_id, body.role)
        audit.record(tx, user.id, "change_role", user_id, detail={"role": body.role})


@router.get("/keys")
def keys(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """Keys for programs."""
    with parts.store.read() as tx:
        rows = accounts.list_keys(tx)
    return pages.page(
        request,
        "operate_keys.html",
        user=user,
        place="operate",
        tab="keys",
        rows=rows,
        scopes=accounts.SCOPES,
    )


@router.post("/keys", status_code=201)
def add_key(body: NewKey, user: Operator, parts: Parts) -> dict[str, str]:
    """Make a key. Its secret is in the answer, and nowhere else."""
    with parts.store.write() as tx:
        key, secret = accounts.create_key(tx, name=body.name, scopes=body.scopes, user_id=user.id)
        audit.record(tx, user.id, "make_key", key.id, detail={"scopes": body.scopes})
    return {"secret": secret}


@router.post("/keys/{key_id}/revoke", status_code=204)
def revoke(key_id: str, user: Operator, parts: Parts) -> None:
    """End a key for good."""
    with parts.store.write() as tx:
        accounts.revoke_key(tx, key_id)
        audit.record(tx, user.id, "revoke_key", key_id)

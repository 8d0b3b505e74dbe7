"""Who may come in, and how much they may ask for.

GET    /operate/access          limits, guests, terms, open invitations
PUT    /operate/access          {guests, guest_limit, user_limit, guest_storage, answers_at_once, terms}
POST   /operate/invites         {role} -> {secret}: the path of a link that lets one person in
DELETE /operate/invites/{id}
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, field_validator

from tutelage.store import audit, invites
from tutelage.store.usage import ChatSettings, change_chat_settings, chat_settings
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate", include_in_schema=False)
MOST = 1_000_000


class Settings(BaseModel):
    """A form: numbers come as text, and an empty one is no limit."""

    guests: bool
    guest_limit: int | None = Field(None, ge=0, le=MOST)
    user_limit: int | None = Field(None, ge=0, le=MOST)
    guest_storage: int | None = Field(ChatSettings().guest_storage, ge=1, le=MOST)
    answers_at_once: int = Field(ge=1, le=1000)
    terms: str = Field("", max_length=20_000)

    @field_validator("guest_limit", "user_limit", "guest_storage", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "" else value


class NewInvite(BaseModel):
    """Somebody to let in."""

    role: Literal["user", "trainer", "operator"]


@router.get("/access")
def access(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """The settings as they are."""
    with parts.store.read() as tx:
        settings, waiting = chat_settings(tx), invites.list_invites(tx)
    return pages.page(
        request,
        "operate_access.html",
        user=user,
        place="operate",
        tab="access",
        settings=settings,
        invites=waiting,
        guests_possible=parts.access.guests,
    )


@router.put("/access", status_code=204)
def change(body: Settings, user: Operator, parts: Parts) -> None:
    """Set them anew; they hold from the next message on."""
    settings = ChatSettings(**body.model_dump())
    with parts.store.write() as tx:
        before = chat_settings(tx)
        change_chat_settings(tx, settings)
        changed = [
            name for name in ChatSettings.__slots__ if getattr(before, name) != getattr(settings, name)
        ]
        audit.record(tx, user.id, "change_access", detail={"changed": changed})
    parts.turns.line.places = settings.answers_at_once


@router.post("/invites", status_code=201)
def invite(body: NewInvite, user: Operator, parts: Parts) -> dict[str, str]:
    """Make a link for one person. It is in the answer, and nowhere else."""
    with parts.store.write() as tx:
        made, token = invites.create_invite(tx, role=body.role, by=user.id)
        audit.record(tx, user.id, "invite", made.id, detail={"role": body.role})
    return {"secret": f"/invite/{token}"}


@router.delete("/invites/{invite_id}", status_code=204)
def revoke(invite_id: str, user: Operator, parts: Parts) -> None:
    """Take an invitation back."""
    with parts.store.write() as tx:
        invites.revoke_invite(tx, invite_id)
        audit.record(tx, user.id, "revoke_invite", invite_id)

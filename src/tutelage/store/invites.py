"""Links that let one new person in, made by operators."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Denied, NotFound
from tutelage.store.accounts import create_user, promote_guest, token_hash
from tutelage.store.ids import now
from tutelage.store.tables import Invite, User, UserRole

INVITE_LIFE = timedelta(days=7)


def create_invite(tx: Session, *, role: UserRole, by: str) -> tuple[Invite, str]:
    """An invite and its token, which is shown once."""
    token = secrets.token_urlsafe(32)
    invite = Invite(token_hash=token_hash(token), role=role, created_by=by, expires=now() + INVITE_LIFE)
    tx.add(invite)
    tx.flush()
    return invite, token


def open_invite(tx: Session, token: str) -> Invite:
    """The invite of a token. Raises Denied when it was used or revoked, is too old, or was made up."""
    invite = tx.get(Invite, token_hash(token))
    if invite is None or invite.used is not None or invite.expires <= now():
        raise Denied("This invitation is not valid any more.", hint="Ask for a new one.")
    return invite


def accept_invite(
    tx: Session, token: str, *, name: str, password_hash: str | None, guest_id: str | None
) -> User:
    """Make a new person of the invited role; a guest's chats stay theirs. Raises Denied, Conflict for a taken name."""
    invite = open_invite(tx, token)
    if guest_id is None:
        user = create_user(tx, name=name, password_hash=password_hash, role=invite.role)
    else:
        user = promote_guest(tx, guest_id, name=name, password_hash=password_hash)
        user.role = invite.role
    invite.used, invite.used_by = now(), user.id
    tx.flush()
    return user


def list_invites(tx: Session) -> Sequence[Invite]:
    """Those that can still be used, newest first."""
    waiting = select(Invite).where(Invite.used.is_(None), Invite.expires > now())
    return tx.scalars(waiting.order_by(Invite.id.desc())).all()


def revoke_invite(tx: Session, invite_id: str) -> None:
    """Take an invite back. Raises NotFound."""
    invite = tx.scalar(select(Invite).where(Invite.id == invite_id))
    if invite is None:
        raise NotFound("There is no such invitation.")
    tx.delete(invite)
    tx.flush()

"""People who are signed in elsewhere: which account an issuer's subject belongs to.

Issuer and subject together are the only thing that is trusted to name a person. Names and addresses of mail can be
changed, and given to somebody else; an account is never found by them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import count

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Denied, NotFound
from tutelage.store.accounts import create_user, find_by_name, get_user, is_visible, promote_guest
from tutelage.store.invites import accept_invite
from tutelage.store.tables import Identity, User

LONGEST_NAME = 64


def identity_user(tx: Session, issuer: str, subject: str) -> User | None:
    """Whose account this is."""
    found = tx.get(Identity, (issuer, subject))
    return None if found is None else get_user(tx, found.user_id)


def admit(
    tx: Session,
    issuer: str,
    subject: str,
    *,
    names: Iterable[str],
    newcomers: bool,
    invite: str = "",
    guest_id: str | None = None,
) -> User:
    """The user of an identity; one that is seen for the first time becomes a new user, if they may.

    They may where `newcomers` are welcome, as users, or by an invitation, in its role. A guest's chats stay theirs. The
    first of `names` that is one becomes their name, with a number when it is taken. Raises Denied.
    """
    known = identity_user(tx, issuer, subject)
    if known is not None:
        return known
    name = free_name(tx, names)
    if invite:
        user = accept_invite(tx, invite, name=name, password_hash=None, guest_id=guest_id)
    elif not newcomers:
        raise Denied(
            "Nobody here has this account yet.",
            hint="Ask an operator for an invitation, or sign in by your password and connect it on your account page.",
        )
    elif guest_id is not None:
        user = promote_guest(tx, guest_id, name=name, password_hash=None)
    else:
        user = create_user(tx, name=name, password_hash=None, role="user")
    tx.add(Identity(issuer=issuer, subject=subject, user_id=user.id))
    tx.flush()
    return user


def connect(tx: Session, issuer: str, subject: str, user_id: str) -> None:
    """Let a user sign in by this identity from now on. Raises Conflict when it is somebody else's."""
    known = identity_user(tx, issuer, subject)
    if known is None:
        tx.add(Identity(issuer=issuer, subject=subject, user_id=user_id))
        tx.flush()
    elif known.id != user_id:
        raise Conflict(
            "Another account here signs in by this one.", hint="Sign in by it, or delete that account."
        )


def disconnect(tx: Session, identity_id: str, user_id: str) -> None:
    """Take an identity off its user. Raises NotFound; Conflict when they could not sign in any more."""
    mine = list_identities(tx, user_id)
    found = next((row for row in mine if row.id == identity_id), None)
    if found is None:
        raise NotFound("There is no such connection.")
    if len(mine) == 1 and get_user(tx, user_id).password_hash is None:
        raise Conflict(
            "This is your only way to sign in.", hint="Delete your account instead, if you mean to leave."
        )
    tx.delete(found)
    tx.flush()


def list_identities(tx: Session, user_id: str) -> Sequence[Identity]:
    """How a user can sign in elsewhere, oldest first."""
    return tx.scalars(select(Identity).where(Identity.user_id == user_id).order_by(Identity.id)).all()


def operator_can_sign_in(tx: Session, issuers: Sequence[str]) -> bool:
    """Whether some operator has a password, or is known to one of these issuers (of providers that are set up)."""
    elsewhere = select(Identity.user_id).where(Identity.issuer.in_(issuers))
    way = User.password_hash.is_not(None) | User.id.in_(elsewhere)
    return tx.scalar(select(User.id).where(User.role == "operator", way).limit(1)) is not None


def free_name(tx: Session, names: Iterable[str]) -> str:
    """The first that is a name, as it is kept; with the first number from 2 on that nobody has, when it is taken."""
    name = next(filter(None, map(_visible, names)), "user")
    ends = (f"-{number}" if number > 1 else "" for number in count(1))
    tried = (name[: LONGEST_NAME - len(end)] + end for end in ends)
    return next(each for each in tried if find_by_name(tx, each) is None)


def _visible(name: str) -> str:
    """A name without what cannot be seen, and not too long; empty when nothing is left."""
    plain = unicodedata.normalize("NFKC", name)
    return "".join(filter(is_visible, plain)).strip()[:LONGEST_NAME].strip()

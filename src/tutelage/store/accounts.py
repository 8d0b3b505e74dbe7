"""Who may come in: people, their sessions, operators' links, and keys for programs.

Tokens and keys are random, shown once, and kept as SHA-256: they carry 256 bits of chance, so a slow
password hash would add nothing. Passwords are hashed by the caller.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from typing import get_args

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Denied, InvalidRequest, NotFound, Sentence
from tutelage.store import audit, privacy
from tutelage.store.columns import clean
from tutelage.store.ids import new_id, now
from tutelage.store.tables import (
    ApiKey,
    Demonstration,
    Dialogue,
    Lease,
    OperatorLink,
    Pick,
    Rating,
    User,
    UserRole,
    UserSession,
)

LINK_LIFE = timedelta(hours=1)
LONGEST_INSTRUCTIONS = 2000
LONGEST_AGENT = 200
SCOPES = ("chat", "moderations", "rewards")
"""What a key may be used for."""
_KEY_PREFIX = "tut-"
_BLANK = re.compile(r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0e\U000e0100-\U000e01ef]")
"""Draws nothing: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt without what is in category C
anyway and the selector of emoji; and the empty cell of Braille."""


def create_guest(tx: Session, *, locale: str = "", consent: bool = False) -> User:
    """A person without a name."""
    return _add_user(tx, User(role="guest", locale=locale, consent=consent))


def passing_guest() -> User:
    """A guest who is no row, for a request that is to leave nothing behind."""
    return User(id=new_id(), role="guest", locale="", consent=False, instructions="", created=now())


def create_user(
    tx: Session,
    *,
    name: str,
    password_hash: str | None,
    role: UserRole,
    locale: str = "",
    consent: bool = False,
) -> User:
    """A person with a name; without a password they sign in elsewhere.

    Raises Conflict when the name is taken, whatever its case.
    """
    name = _free_name(tx, name)
    user = User(name=name, name_key=name_key(name), password_hash=password_hash, role=role)
    user.locale, user.consent = locale, consent
    return _add_user(tx, user)


def promote_guest(
    tx: Session, user_id: str, *, name: str, password_hash: str | None, role: UserRole = "user"
) -> User:
    """Give a guest a name and, unless they sign in elsewhere, a password; their chats stay theirs.

    Raises Conflict as `create_user`.
    """
    user = get_user(tx, user_id)
    if user.name is not None:
        raise Conflict("This account has a name already.")
    user.name = _free_name(tx, name)
    user.name_key = name_key(user.name)
    user.password_hash = password_hash
    user.role = role if user.role == "guest" else user.role
    return user


def find_by_name(tx: Session, name: str) -> User | None:
    """The user of this name, whatever its case."""
    return tx.scalar(select(User).where(User.name_key == name_key(name)))


def name_key(name: str) -> str:
    """What names of one person have in common: neither case, width nor blanks around it tell two apart."""
    return _normal(name).casefold()


def get_user(tx: Session, user_id: str) -> User:
    """Raises NotFound."""
    user = tx.get(User, user_id)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def list_members(tx: Session) -> Sequence[User]:
    """Everybody but guests, newest first."""
    return tx.scalars(select(User).where(User.role != "guest").order_by(User.id.desc())).all()


def count_users(tx: Session, *, roles: Sequence[UserRole] = get_args(UserRole)) -> int:
    """How many people there are, guests included; or only those of some roles."""
    return tx.scalar(select(func.count()).select_from(User).where(User.role.in_(roles))) or 0


def set_role(tx: Session, user_id: str, role: UserRole) -> User:
    """Whoever stops being a trainer lets go of the tasks they hold; what they have sent stays.

    Raises NotFound; Conflict for the last operator, who cannot step down.
    """
    user = get_user(tx, user_id)
    if user.role == "operator" and role != "operator":
        others = select(func.count()).where(User.role == "operator", User.id != user_id)
        if not tx.scalar(others):
            raise Conflict("This is the last operator.", hint="Make somebody else an operator first.")
    if role not in ("trainer", "operator"):
        held = (Lease.annotator_id == user_id) & (Lease.status == "held")
        tx.execute(update(Lease).where(held).values(status="released"))
    user.role = role
    return user


def set_locale(tx: Session, user_id: str, locale: str) -> User:
    """Raises NotFound."""
    user = get_user(tx, user_id)
    user.locale = locale
    return user


def set_instructions(tx: Session, user_id: str, instructions: str) -> User:
    """What every new chat of the person begins with. Raises NotFound, InvalidRequest when it is too long."""
    user = get_user(tx, user_id)
    if len(instructions.strip()) > LONGEST_INSTRUCTIONS:
        message = Sentence("Instructions have at most {most} characters.", most=LONGEST_INSTRUCTIONS)
        raise InvalidRequest(message, param="instructions")
    user.instructions = instructions.strip()
    return user


def set_password(tx: Session, user_id: str, password_hash: str) -> User:
    """Also ends all sessions of the user. Raises NotFound."""
    user = get_user(tx, user_id)
    user.password_hash = password_hash
    close_sessions(tx, user_id)
    return user


def replace_password(tx: Session, name: str, password_hash: str) -> User:
    """Give somebody who has forgotten it a new password, in the name of whoever runs the machine; the log says so.

    Also ends all sessions of the user. Raises NotFound.
    """
    user = find_by_name(tx, name)
    if user is None:
        hint = "`tutelage people list` shows who there is."
        raise NotFound(Sentence("There is nobody with the name “{name}”.", name=name), hint=hint)
    audit.record(tx, None, "reset_password", user.id, detail={"by": "command line"})
    return set_password(tx, user.id, password_hash)


def set_consent(tx: Session, user_id: str, consent: bool) -> User:
    """Whether the person's chats may improve the model: those of the past and those to come.

    Temporary and binned dialogues never may. Raises NotFound.
    """
    user = get_user(tx, user_id)
    user.consent = consent
    mine = (Dialogue.owner_id == user_id) & Dialogue.temporary.is_(False) & Dialogue.binned.is_(None)
    tx.execute(update(Dialogue).where(mine).values(consent=consent))
    tx.execute(update(Rating).where(Rating.rater_id == user_id).values(consent=consent))
    tx.execute(update(Pick).where(Pick.rater_id == user_id).values(consent=consent))
    return user


def delete_user(tx: Session, user_id: str) -> None:
    """Forget a person with all their chats, drafts and sessions; tasks they hold go to others.

    The rankings and demonstrations they handed in for training stay, without a name; what was sent back to them goes.
    Raises NotFound.
    """
    user = get_user(tx, user_id)
    privacy.bury(tx, Dialogue.owner_id == user_id)
    begun = (Demonstration.author_id == user_id) & Demonstration.status.in_(("draft", "sent_back"))
    tx.execute(delete(Demonstration).where(begun))
    tx.delete(user)
    tx.flush()


def leave(tx: Session, user_id: str) -> None:
    """Forget a person at their own wish. Raises NotFound; Conflict for the last operator, who cannot go."""
    if get_user(tx, user_id).role == "operator":
        set_role(tx, user_id, "user")
    delete_user(tx, user_id)


def open_session(tx: Session, user_id: str, *, days: float, agent: str = "") -> str:
    """Sign a browser in, which calls itself `agent`. Returns its token, which is shown once."""
    token = secrets.token_urlsafe(32)
    get_user(tx, user_id)
    tx.execute(delete(UserSession).where(UserSession.expires <= now()))
    session = UserSession(token_hash=token_hash(token), user_id=user_id, expires=now() + timedelta(days=days))
    session.agent = agent[:LONGEST_AGENT]
    tx.add(session)
    tx.flush()
    return token


def session_user(tx: Session, token: str) -> User | None:
    """Who is signed in by this token, if its session is open and has not expired."""
    query = select(User).join(UserSession, UserSession.user_id == User.id)
    return tx.scalar(query.where(UserSession.token_hash == token_hash(token), UserSession.expires > now()))


def list_sessions(tx: Session, user_id: str) -> Sequence[UserSession]:
    """The open sessions of a user, newest first."""
    mine = select(UserSession).where(UserSession.user_id == user_id, UserSession.expires > now())
    return tx.scalars(mine.order_by(UserSession.id.desc())).all()


def session_id(tx: Session, token: str) -> str | None:
    """The id of the session that this token opens."""
    return tx.scalar(select(UserSession.id).where(UserSession.token_hash == token_hash(token)))


def close_session(tx: Session, token: str) -> None:
    """Sign a browser out; nothing happens when it was not signed in."""
    tx.execute(delete(UserSession).where(UserSession.token_hash == token_hash(token)))


def close_sessions(tx: Session, user_id: str, *, session_id: str | None = None) -> None:
    """Sign out one of a user's browsers, or all of them."""
    mine = delete(UserSession).where(UserSession.user_id == user_id)
    tx.execute(mine if session_id is None else mine.where(UserSession.id == session_id))


def make_operator_link(tx: Session) -> str:
    """A token that makes whoever uses it first an operator. It lives for one hour."""
    token = secrets.token_urlsafe(32)
    tx.add(OperatorLink(token_hash=token_hash(token), expires=now() + LINK_LIFE))
    tx.flush()
    return token


def use_operator_link(tx: Session, token: str, user_id: str | None) -> User:
    """Make this user (or a new guest) an operator. Raises Denied when the link is used, old or made up."""
    link = tx.get(OperatorLink, token_hash(token))
    if link is None or link.used is not None or link.expires <= now():
        raise Denied("This link is not valid any more.", hint="Restart `tutelage serve` to get a new one.")
    link.used = now()
    user = create_guest(tx) if user_id is None else get_user(tx, user_id)
    user.role = "operator"
    tx.flush()
    return user


def create_key(
    tx: Session, *, name: str, scopes: Sequence[str], user_id: str | None = None
) -> tuple[ApiKey, str]:
    """A key for programs and its secret (`tut-…`), which is shown once. Raises InvalidRequest, NotFound."""
    if not scopes or not set(scopes) <= set(SCOPES):
        hint = Sentence("Use {scopes}, or one of them.", scopes=" and ".join(SCOPES))
        raise InvalidRequest("A key needs scopes that exist.", param="scopes", hint=hint)
    if user_id is not None:
        get_user(tx, user_id)
    secret = _KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name=_checked_name(name), prefix=secret[:10], secret_hash=token_hash(secret))
    key.scopes, key.user_id = sorted(set(scopes)), user_id
    tx.add(key)
    tx.flush()
    return key, secret


def key_by_secret(tx: Session, secret: str) -> ApiKey | None:
    """The key with this secret, unless it was revoked."""
    return tx.scalar(select(ApiKey).where(ApiKey.secret_hash == token_hash(secret), ApiKey.revoked.is_(None)))


def list_keys(tx: Session, *, user_id: str | None = None) -> Sequence[ApiKey]:
    """All keys, or a user's; newest first, revoked ones included."""
    query = select(ApiKey).order_by(ApiKey.id.desc())
    return tx.scalars(query if user_id is None else query.where(ApiKey.user_id == user_id)).all()


def revoke_key(tx: Session, key_id: str, *, user_id: str | None = None) -> ApiKey:
    """End a key for good. With `user_id`, only that user's. Raises NotFound."""
    key = tx.get(ApiKey, key_id)
    if key is None or (user_id is not None and key.user_id != user_id):
        raise NotFound("There is no such key.", hint="`tutelage keys list` shows them.")
    key.revoked = key.revoked or now()
    tx.flush()
    return key


def _add_user(tx: Session, user: User) -> User:
    tx.add(user)
    tx.flush()
    return user


def _free_name(tx: Session, name: str) -> str:
    name = _checked_name(name)
    if find_by_name(tx, name) is not None:
        raise Conflict(Sentence("The name “{name}” is taken.", name=name), hint="Choose another.")
    return name


def _checked_name(name: str) -> str:
    name = _normal(name)
    if not 1 <= len(name) <= 64 or not all(map(is_visible, name)):
        raise InvalidRequest("A name has 1 to 64 visible characters.", param="name")
    return name


def is_visible(letter: str) -> bool:
    """Whether a letter shows in a name. Two names must not differ in what nobody sees."""
    return unicodedata.category(letter)[0] != "C" and not _BLANK.match(letter)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFKC", str(clean(name))).strip()


def token_hash(token: str) -> str:
    """How a token or a key is kept."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()

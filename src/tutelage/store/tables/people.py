"""Who may come in."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Mapped, mapped_column

from tutelage.store.columns import Text
from tutelage.store.ids import new_id, now
from tutelage.store.tables.base import Base, link_to_user

UserRole = Literal["guest", "user", "trainer", "operator"]


class User(Base):
    """A person. A guest has no name, and who signs in elsewhere no password.

    `consent` is "my chats may improve the model", `instructions` are what every new chat of theirs begins with.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str | None]
    name_key: Mapped[str | None] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    role: Mapped[UserRole] = mapped_column(Text)
    locale: Mapped[str] = mapped_column(default="")
    consent: Mapped[bool] = mapped_column(default=False)
    instructions: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime] = mapped_column(default=now)


class UserSession(Base):
    """A signed-in browser. Only the SHA-256 of its token is kept; `agent` is what the browser calls itself."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    user_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    agent: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]


class Identity(Base):
    """Somebody as a sign-in provider knows them: the issuer's address and what it calls them. See `identities`."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    user_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    created: Mapped[datetime] = mapped_column(default=now)


class OperatorLink(Base):
    """A link that makes whoever opens it first an operator."""

    __tablename__ = "operator_links"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]
    used: Mapped[datetime | None]


class ApiKey(Base):
    """A key for programs. `prefix` is the part shown in lists; only the SHA-256 of the whole is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    user_id: Mapped[str | None] = mapped_column(link_to_user(), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    revoked: Mapped[datetime | None]


class Invite(Base):
    """A link that lets one new person in, with a role. Only the SHA-256 of its token is kept."""

    __tablename__ = "invites"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    role: Mapped[UserRole] = mapped_column(Text)
    created_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    used_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]
    used: Mapped[datetime | None]


class Usage(Base):
    """How many answers a person has asked for on one day (UTC, YYYY-MM-DD)."""

    __tablename__ = "usage"

    user_id: Mapped[str] = mapped_column(link_to_user(), primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)
    answers: Mapped[int] = mapped_column(default=0)

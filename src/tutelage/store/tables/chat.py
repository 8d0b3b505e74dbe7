"""What was said, and what its readers think of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.dialogue import Role
from tutelage.store.columns import Text
from tutelage.store.ids import new_id, new_lot, now
from tutelage.store.tables.base import Base, link_to_user

AuthorKind = Literal["human", "model", "imported"]
MessageStatus = Literal["running", "complete", "interrupted", "blocked"]
RatingVerdict = Literal["up", "down"]
ReportKind = Literal["mistake", "missed"]
ReportStatus = Literal["open", "accepted", "declined"]
PickKind = Literal["regeneration", "side_by_side", "experiment"]
PickVerdict = Literal["first", "second", "tie", "both_bad"]

SQLITE_ALONE = {"sqlite_alone": True}
"""For tables that PostgreSQL can do without."""


class Dialogue(Base):
    """A conversation: a tree of messages with one owner, or one that came from a file (then with no owner).

    `origin` is `chat` or `imported`; `source` names the importer. A dialogue with `demonstration` set is
    worth imitating turn by turn. A `temporary` one is never shown in lists, labelled or exported. `lot` is a random
    number, by which a random dialogue is found without reading all. A `binned` one does not exist for anybody; until
    it is purged its owner can take that back. A search in titles reads their index alone.
    """

    __tablename__ = "dialogues"
    __table_args__ = (
        UniqueConstraint("source", "content_hash"),
        Index(None, "owner_id", "updated", "id", "title", "temporary", "binned"),
        Index(None, "origin", "consent", "temporary", "lot"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str | None] = mapped_column(link_to_user())
    title: Mapped[str] = mapped_column(default="")
    origin: Mapped[str] = mapped_column(default="chat")
    source: Mapped[str] = mapped_column(default="")
    author: Mapped[str | None]
    demonstration: Mapped[bool] = mapped_column(default=False)
    temporary: Mapped[bool] = mapped_column(default=False)
    consent: Mapped[bool] = mapped_column(default=False)
    content_hash: Mapped[str | None]
    lot: Mapped[int] = mapped_column(BigInteger, default=new_lot)
    archived: Mapped[bool] = mapped_column(default=False)
    binned: Mapped[datetime | None] = mapped_column(index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class Message(Base):
    """One turn in a dialogue's tree; siblings are edits of a question or other answers to it.

    `provenance` says how a text came to be (suggestions shown, edits, custom instructions in force, …). On PostgreSQL
    the trigrams of whole messages are indexed for `search`; SQLite has `search_texts` for it.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("dialogue_id", "idempotency_key"),
        Index(None, "dialogue_id", "id"),
        Index(
            "ix_messages_content",
            "content",
            postgresql_using="gin",
            postgresql_ops={"content": "gin_trgm_ops"},
            postgresql_where=text("status <> 'running'"),
        ).ddl_if(dialect="postgresql"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role] = mapped_column(Text)
    content: Mapped[str]
    author_kind: Mapped[AuthorKind] = mapped_column(Text)
    author_id: Mapped[str | None] = mapped_column(link_to_user(keep=True), index=True)
    status: Mapped[MessageStatus] = mapped_column(Text, default="complete", index=True)
    finish_reason: Mapped[str | None]
    model_version: Mapped[str | None]
    sampling: Mapped[dict[str, Any] | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    provenance: Mapped[dict[str, Any] | None]
    filter_verdict: Mapped[dict[str, Any] | None]
    policy_version: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    beat_at: Mapped[datetime | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Rating(Base):
    """A thumb on a model's answer by its reader; `ideal` is what the answer should have been (a correction).

    `path` is the conversation as it stood when it was judged: message rows as dicts, root first.
    """

    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("message_id", "rater_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    rater_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    verdict: Mapped[RatingVerdict] = mapped_column(Text)
    reasons: Mapped[list[str]] = mapped_column(default=list)
    note: Mapped[str] = mapped_column(default="")
    ideal: Mapped[str] = mapped_column(default="")
    path: Mapped[list[dict[str, Any]]]
    model_version: Mapped[str | None]
    consent: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class Report(Base):
    """A reader says that the content filter was wrong about a message.

    `mistake`: it was flagged and should not have been; `missed`: it should have been flagged. `content` and
    `filter_verdict` are as they were: reporting a message lets the operators read that message.
    """

    __tablename__ = "moderation_reports"
    __table_args__ = (UniqueConstraint("message_id", "reporter_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    reporter_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    kind: Mapped[ReportKind] = mapped_column(Text)
    category: Mapped[str | None]
    note: Mapped[str] = mapped_column(default="")
    role: Mapped[Role] = mapped_column(Text)
    content: Mapped[str]
    filter_verdict: Mapped[dict[str, Any] | None]
    status: Mapped[ReportStatus] = mapped_column(Text, default="open", index=True)
    decided_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    decided: Mapped[datetime | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Pick(Base):
    """Which of two answers to one question their reader prefers. `first` and `second` are in the order shown."""

    __tablename__ = "picks"
    __table_args__ = (UniqueConstraint("first_id", "second_id", "rater_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    first_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    second_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    rater_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    kind: Mapped[PickKind] = mapped_column(Text)
    verdict: Mapped[PickVerdict] = mapped_column(Text)
    consent: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class Share(Base):
    """A copy of one branch that anybody who knows the token may read. It does not change with the dialogue.

    `messages` is a list of {role, content}.
    """

    __tablename__ = "shares"

    token: Mapped[str] = mapped_column(primary_key=True)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"), unique=True)
    title: Mapped[str]
    messages: Mapped[list[dict[str, Any]]]
    created: Mapped[datetime] = mapped_column(default=now)


class SearchOwner(Base):
    """A person's number in the text index: their messages are known under `number` << 32 and up."""

    __tablename__ = "search_owners"
    __table_args__ = {"info": SQLITE_ALONE}  # noqa: RUF012 - read by SQLAlchemy as it stands

    number: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(link_to_user(), unique=True)


class SearchRow(Base):
    """The number under which the text index (`search_texts`, kept by triggers) knows a message."""

    __tablename__ = "search_rows"
    __table_args__ = {"info": SQLITE_ALONE}  # noqa: RUF012 - read by SQLAlchemy as it stands

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)

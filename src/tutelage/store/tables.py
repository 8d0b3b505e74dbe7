"""Every table, one class each: the data model.

    users ─┬─ sessions, operator_links, api_keys            who may come in
           ├─ dialogues ── messages (a tree by parent_id)   what was said, by whom, by which version
           │                 ├─ ratings                     thumbs and corrections, with the path they judged
           │                 ├─ moderation_reports          where the content filter was wrong
           │                 └─ labelling_tasks ─┬─ candidates
           │                                     ├─ leases  one per annotator who ever saw the task
           │                                     └─ rankings
           └─ demonstrations                                dialogues whose both sides a person wrote
    comparisons                                             judged completions that came from files
    snapshots                                               immutable exports that models train on
    tombstones                                              ids of rows that were deleted
    run_requests ─► runs                                    what the worker should do, and what was done

Every row that can train a model says who wrote it (`owner_id`, `author_id`, `rater_id`, `annotator_id`, or
`author` for people known only to an imported file), which version spoke (`model_version`), and whether its
author consented (`consent`). A dialogue's `consent` covers all that was said in it; a ranking and a written
demonstration exist to train models, and are used only while the dialogue they stand on allows it.

Deleting a dialogue deletes everything that hangs on it; deleting a user deletes their dialogues, and leaves
their rankings and demonstrations without a name.

Ids are UUIDv7 as text, so sorting by id is sorting by time. Times are UTC. Rows are used after their session
is closed: there are no relationships, hence nothing is ever loaded behind a reader's back.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tutelage.dialogue import Role
from tutelage.store.columns import Json, Text, Time, clean
from tutelage.store.ids import new_id, now

UserRole = Literal["guest", "user", "trainer", "operator"]
AuthorKind = Literal["human", "model", "imported"]
MessageStatus = Literal["running", "complete", "interrupted", "blocked"]
RatingVerdict = Literal["up", "down"]
DemonstrationStatus = Literal["draft", "submitted", "accepted", "sent_back"]
LeaseStatus = Literal["held", "done", "released"]
ReportKind = Literal["mistake", "missed"]
ReportStatus = Literal["open", "accepted", "declined"]
RunStatus = Literal["queued", "running", "done", "failed", "stopped"]
RequestStatus = Literal["pending", "taken", "done", "failed", "cancelled"]


class Base(DeclarativeBase):
    """Common to all rows: what is set on a row is cleaned at once, so memory and database agree."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as it stands
        str: Text,
        datetime: Time,
        dict[str, Any]: Json,
        list[str]: Json,
        list[list[str]]: Json,
        list[dict[str, Any]]: Json,
    }

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, clean(value))


def _user(*, keep: bool = False) -> Any:
    return ForeignKey("users.id", ondelete="SET NULL" if keep else "CASCADE")


class User(Base):
    """A person. A guest has no name and no password; `consent` is "my chats may improve the model"."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str | None]
    name_key: Mapped[str | None] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    role: Mapped[UserRole] = mapped_column(Text)
    locale: Mapped[str] = mapped_column(default="")
    consent: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)


class UserSession(Base):
    """A signed-in browser. Only the SHA-256 of its token is kept."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    user_id: Mapped[str] = mapped_column(_user(), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]


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
    user_id: Mapped[str | None] = mapped_column(_user(), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    revoked: Mapped[datetime | None]


class Dialogue(Base):
    """A conversation: a tree of messages with one owner, or one that came from a file (then with no owner).

    `origin` is `chat` or `imported`; `source` names the importer. A dialogue with `demonstration` set is
    worth imitating turn by turn. A `temporary` one is never shown in lists, labelled or exported.
    """

    __tablename__ = "dialogues"
    __table_args__ = (UniqueConstraint("source", "content_hash"), Index(None, "owner_id", "id"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str | None] = mapped_column(_user())
    title: Mapped[str] = mapped_column(default="")
    origin: Mapped[str] = mapped_column(default="chat")
    source: Mapped[str] = mapped_column(default="")
    author: Mapped[str | None]
    demonstration: Mapped[bool] = mapped_column(default=False)
    temporary: Mapped[bool] = mapped_column(default=False)
    consent: Mapped[bool] = mapped_column(default=False)
    content_hash: Mapped[str | None]
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class Message(Base):
    """One turn in a dialogue's tree; siblings are edits of a question or other answers to it.

    `provenance` says how a text came to be (suggestions shown, edits, custom instructions in force, …).
    """

    __tablename__ = "messages"
    __table_args__ = (UniqueConstraint("dialogue_id", "idempotency_key"), Index(None, "dialogue_id", "id"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role] = mapped_column(Text)
    content: Mapped[str]
    author_kind: Mapped[AuthorKind] = mapped_column(Text)
    author_id: Mapped[str | None] = mapped_column(_user(keep=True), index=True)
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
    rater_id: Mapped[str] = mapped_column(_user(), index=True)
    verdict: Mapped[RatingVerdict] = mapped_column(Text)
    reasons: Mapped[list[str]] = mapped_column(default=list)
    note: Mapped[str] = mapped_column(default="")
    ideal: Mapped[str] = mapped_column(default="")
    path: Mapped[list[dict[str, Any]]]
    model_version: Mapped[str | None]
    consent: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class Demonstration(Base):
    """A dialogue a person wrote from both sides, or a better ending to the path of `message_id`.

    `messages` is a list of {role, content, provenance}.
    """

    __tablename__ = "demonstrations"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    author_id: Mapped[str | None] = mapped_column(_user(keep=True), index=True)
    message_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    messages: Mapped[list[dict[str, Any]]]
    status: Mapped[DemonstrationStatus] = mapped_column(Text, index=True)
    consent: Mapped[bool] = mapped_column(default=True)
    reviewer_id: Mapped[str | None] = mapped_column(_user(keep=True))
    review_note: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class LabellingTask(Base):
    """A model-written message to be ranked among other answers to the same prompt by `overlap` people."""

    __tablename__ = "labelling_tasks"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    k: Mapped[int]
    overlap: Mapped[int] = mapped_column(default=1)
    created: Mapped[datetime] = mapped_column(default=now)


class Candidate(Base):
    """One answer to rank. `position` is the shuffled order in which annotators see it."""

    __tablename__ = "candidates"
    __table_args__ = (UniqueConstraint("task_id", "position"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"))
    position: Mapped[int]
    content: Mapped[str]
    model_version: Mapped[str | None]
    sampling: Mapped[dict[str, Any] | None]
    original: Mapped[bool] = mapped_column(default=False)


class Lease(Base):
    """One annotator's hold on a task. It is kept after it ends: nobody is given a task twice."""

    __tablename__ = "leases"
    __table_args__ = (UniqueConstraint("task_id", "annotator_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"))
    annotator_id: Mapped[str] = mapped_column(_user(), index=True)
    status: Mapped[LeaseStatus] = mapped_column(Text, default="held")
    expires: Mapped[datetime]
    reason: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime] = mapped_column(default=now)


class Ranking(Base):
    """How one annotator ordered the candidates: groups of candidate ids, best first; a group is a tie."""

    __tablename__ = "rankings"
    __table_args__ = (UniqueConstraint("task_id", "annotator_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"))
    annotator_id: Mapped[str | None] = mapped_column(_user(keep=True), index=True)
    groups: Mapped[list[list[str]]]
    unrankable: Mapped[list[str]] = mapped_column(default=list)
    all_bad: Mapped[bool] = mapped_column(default=False)
    note: Mapped[str] = mapped_column(default="")
    consent: Mapped[bool] = mapped_column(default=True)
    created: Mapped[datetime] = mapped_column(default=now)


class ComparisonRow(Base):
    """Judged completions of one prompt that came from a file; see `tutelage.dialogue.Comparison`."""

    __tablename__ = "comparisons"
    __table_args__ = (UniqueConstraint("source", "content_hash"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(default="imported")
    source: Mapped[str] = mapped_column(default="")
    author: Mapped[str | None]
    prompt: Mapped[list[dict[str, Any]]]
    candidates: Mapped[list[str]]
    preferences: Mapped[list[dict[str, Any]]]
    consent: Mapped[bool] = mapped_column(default=True)
    content_hash: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)


class Report(Base):
    """A reader says that the content filter was wrong about a message.

    `mistake`: it was flagged and should not have been; `missed`: it should have been flagged. `content` and
    `filter_verdict` are as they were: reporting a message lets the operators read that message.
    """

    __tablename__ = "moderation_reports"
    __table_args__ = (UniqueConstraint("message_id", "reporter_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    reporter_id: Mapped[str] = mapped_column(_user(), index=True)
    kind: Mapped[ReportKind] = mapped_column(Text)
    category: Mapped[str | None]
    note: Mapped[str] = mapped_column(default="")
    role: Mapped[Role] = mapped_column(Text)
    content: Mapped[str]
    filter_verdict: Mapped[dict[str, Any] | None]
    status: Mapped[ReportStatus] = mapped_column(Text, default="open", index=True)
    decided_by: Mapped[str | None] = mapped_column(_user(keep=True))
    decided: Mapped[datetime | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Run(Base):
    """One training run or one round of improvement. `metrics` holds last values or points to a file."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(index=True)
    status: Mapped[RunStatus] = mapped_column(Text, default="queued")
    config: Mapped[dict[str, Any]]
    parents: Mapped[list[str]] = mapped_column(default=list)
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class RunRequest(Base):
    """Something the worker should do; taken under a lease, so that a dead worker's request comes back."""

    __tablename__ = "run_requests"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    config: Mapped[dict[str, Any]]
    requested_by: Mapped[str | None] = mapped_column(_user(keep=True))
    status: Mapped[RequestStatus] = mapped_column(Text, default="pending", index=True)
    worker: Mapped[str | None]
    lease_expires: Mapped[datetime | None]
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    error: Mapped[str | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Tombstone(Base):
    """The id of a row that was deleted by its owner."""

    __tablename__ = "tombstones"

    id: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)


class SnapshotRow(Base):
    """An exported folder that models train on, by the hash of its content."""

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    hash: Mapped[str] = mapped_column(unique=True)
    path: Mapped[str]
    counts: Mapped[dict[str, Any]]
    sources: Mapped[list[str] | None]
    created: Mapped[datetime] = mapped_column(default=now)

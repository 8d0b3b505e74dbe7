"""What the worker does, what models learn from, and what may not be used any more."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.store.columns import Text, Words
from tutelage.store.ids import new_id, now
from tutelage.store.tables.base import Base, link_to_user

RunStatus = Literal["queued", "running", "done", "failed", "stopped"]
RequestStatus = Literal["pending", "taken", "done", "failed", "cancelled"]
ExperimentStatus = Literal["running", "decided", "stopped"]
AuditAction = Literal[
    "start_round",
    "stop_round",
    "resume_round",
    "promote_version",
    "roll_back",
    "promotion_failed",
    "start_experiment",
    "end_experiment",
    "plan_campaign",
    "change_campaign",
    "move_campaign_end",
    "close_campaign",
    "delete_campaign",
    "draw_winners",
    "export_entries",
    "change_access",
    "invite",
    "revoke_invite",
    "make_account",
    "reset_password",
    "change_role",
    "make_key",
    "revoke_key",
    "decide_report",
    "read_feedback",
    "read_data",
]


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
    error: Mapped[str | None] = mapped_column(Words)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class RunRequest(Base):
    """Something the worker should do; taken under a lease, so that a dead worker's request comes back."""

    __tablename__ = "run_requests"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    config: Mapped[dict[str, Any]]
    requested_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    status: Mapped[RequestStatus] = mapped_column(Text, default="pending", index=True)
    worker: Mapped[str | None]
    lease_expires: Mapped[datetime | None]
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    error: Mapped[str | None] = mapped_column(Words)
    attempts: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(default=now)


class Worker(Base):
    """A process that takes requests; `seen` is when it last showed itself. One that ends takes its row away."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen: Mapped[datetime] = mapped_column(default=now)


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


class Experiment(Base):
    """Two versions in the chat at once: a share of new conversations is answered by the treatment."""

    __tablename__ = "experiments"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    control: Mapped[str]
    treatment: Mapped[str]
    share: Mapped[float]
    status: Mapped[ExperimentStatus] = mapped_column(Text, default="running", index=True)
    started_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    result: Mapped[dict[str, Any] | None]
    created: Mapped[datetime] = mapped_column(default=now)
    ended: Mapped[datetime | None]


class Setting(Base):
    """What operators have set, by name; what is not here is as the program says."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
    updated: Mapped[datetime] = mapped_column(default=now)


class AuditEntry(Base):
    """What somebody with power did: who, what, and to which row. Pages tell `action` in their reader's language."""

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    actor_id: Mapped[str | None] = mapped_column(link_to_user(keep=True), index=True)
    action: Mapped[AuditAction] = mapped_column(Text, index=True)
    subject: Mapped[str] = mapped_column(default="")
    detail: Mapped[dict[str, Any] | None]
    created: Mapped[datetime] = mapped_column(default=now)

"""What trainers do."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.store.columns import Text
from tutelage.store.ids import new_id, now
from tutelage.store.tables.base import Base, link_to_user

DemonstrationStatus = Literal["draft", "submitted", "accepted", "sent_back"]
LeaseStatus = Literal["held", "done", "released"]


class Demonstration(Base):
    """A dialogue a person wrote from both sides, or a better ending to the path of `message_id`.

    `messages` is a list of {role, content, provenance}. `topic` is what the writer was asked to show, `guidelines`
    the version they wrote by, `flag` why somebody should look at it first. `handed_in` is the text as its author
    left it, where the reviewer has changed it.
    """

    __tablename__ = "demonstrations"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    author_id: Mapped[str | None] = mapped_column(link_to_user(keep=True), index=True)
    message_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    messages: Mapped[list[dict[str, Any]]]
    status: Mapped[DemonstrationStatus] = mapped_column(Text, index=True)
    consent: Mapped[bool] = mapped_column(default=True)
    reviewer_id: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    review_note: Mapped[str] = mapped_column(default="")
    topic: Mapped[str] = mapped_column(default="")
    guidelines: Mapped[int | None]
    flag: Mapped[str] = mapped_column(default="")
    handed_in: Mapped[list[dict[str, Any]] | None]
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class LabellingTask(Base):
    """A model-written message to be ranked among other answers to the same prompt by `overlap` people.

    `remaining` is how many of them have not ranked it yet. With `gold`, the right order as groups of candidate
    ids, everybody is given the task once, to see how reliable they are.
    """

    __tablename__ = "labelling_tasks"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    k: Mapped[int]
    overlap: Mapped[int] = mapped_column(default=1)
    remaining: Mapped[int] = mapped_column(default=1, index=True)
    gold: Mapped[list[list[str]] | None]
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
    annotator_id: Mapped[str] = mapped_column(link_to_user(), index=True)
    status: Mapped[LeaseStatus] = mapped_column(Text, default="held")
    expires: Mapped[datetime]
    reason: Mapped[str] = mapped_column(default="")
    flagged: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)


class Ranking(Base):
    """How one annotator ordered the candidates: groups of candidate ids, best first; a group is a tie.

    `as_it_came` says that the shuffled order was sent unchanged. An `adjudication` settles what annotators
    disagreed on: it stands for all rankings of its task.
    """

    __tablename__ = "rankings"
    __table_args__ = (UniqueConstraint("task_id", "annotator_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"))
    annotator_id: Mapped[str | None] = mapped_column(link_to_user(keep=True), index=True)
    groups: Mapped[list[list[str]]]
    unrankable: Mapped[list[str]] = mapped_column(default=list)
    all_bad: Mapped[bool] = mapped_column(default=False)
    as_it_came: Mapped[bool] = mapped_column(default=False)
    adjudication: Mapped[bool] = mapped_column(default=False)
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


class WritingPrompt(Base):
    """A first message to begin a dialogue from. `uses` is how often one was handed in that began with it."""

    __tablename__ = "writing_prompts"
    __table_args__ = (UniqueConstraint("topic", "content_hash"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    topic: Mapped[str]
    content: Mapped[str]
    content_hash: Mapped[str]
    uses: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(default=now)


class Guidelines(Base):
    """What trainers go by, in Markdown. A change is a new version; `place` is `write` or `rank`."""

    __tablename__ = "guidelines"
    __table_args__ = (UniqueConstraint("place", "version"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    place: Mapped[str]
    version: Mapped[int]
    content: Mapped[str]
    author_id: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    created: Mapped[datetime] = mapped_column(default=now)

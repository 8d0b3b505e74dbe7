"""Contests for feedback: while one is open, readers may enter what they said about an answer, and winners are drawn."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.store.columns import Text
from tutelage.store.ids import new_id, now
from tutelage.store.tables.base import Base, link_to_user

CampaignWeight = Literal["person", "entry"]


class Campaign(Base):
    """A call for feedback between two moments, with rules in Markdown and a note about the prize.

    `weight` says what is drawn from: people, each once, or entries, so that more of them are more likely to win.
    `seed` is random, made before the first entry and shown after the draw; until then only its SHA-256 is.
    """

    __tablename__ = "campaigns"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    title: Mapped[str]
    rules: Mapped[str]
    prize: Mapped[str] = mapped_column(default="")
    weight: Mapped[CampaignWeight] = mapped_column(Text)
    opens: Mapped[datetime]
    closes: Mapped[datetime]
    seed: Mapped[str]
    created_by: Mapped[str | None] = mapped_column(link_to_user(keep=True))
    created: Mapped[datetime] = mapped_column(default=now)


class CampaignEntry(Base):
    """A rating that its author has entered. It lets operators read that rating, and goes with it."""

    __tablename__ = "campaign_entries"
    __table_args__ = (UniqueConstraint("campaign_id", "rating_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    rating_id: Mapped[str] = mapped_column(ForeignKey("ratings.id", ondelete="CASCADE"), index=True)
    created: Mapped[datetime] = mapped_column(default=now)


class CampaignWinner(Base):
    """Who was drawn, in which place (from 1), and by which hash (see `tutelage.store.campaigns.draws`)."""

    __tablename__ = "campaign_winners"
    __table_args__ = (UniqueConstraint("campaign_id", "winner_id"),)

    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    winner_id: Mapped[str | None] = mapped_column(link_to_user(keep=True), index=True)
    lot: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)

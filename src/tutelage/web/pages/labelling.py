"""How trainers work here: what they rank, what they write about, what they go by.

GET  /operate/labelling
PUT  /operate/labelling               {candidates, overlap, gold_share, versions, one weight a topic}
POST /operate/labelling/guidelines    {place, content}
POST /operate/labelling/prompts       {topic, prompts: one a line}
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from tutelage.store import labelling
from tutelage.store.labelling import TOPICS, LabellingSettings
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/labelling", include_in_schema=False)
Weight = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)


class NewSettings(BaseModel):
    """What an operator may set. `gold_percent` is in percent, `versions` are separated by commas."""

    candidates: int
    overlap: int
    gold_percent: float = Field(ge=0, le=50, allow_inf_nan=False)
    versions: str = Field(max_length=400)
    free: float = Weight
    follow_up: float = Weight
    false_premise: float = Weight
    ambiguous: float = Weight
    refuse: float = Weight

    def settings(self) -> LabellingSettings:
        """The same as the store keeps it."""
        return LabellingSettings(
            candidates=self.candidates,
            overlap=self.overlap,
            gold_share=self.gold_percent / 100,
            versions=tuple(name.strip() for name in self.versions.split(",") if name.strip()),
            topics={topic: getattr(self, topic) for topic in TOPICS},
        )


class NewGuidelines(BaseModel):
    """Markdown for trainers; empty brings back what the page says by itself."""

    place: Literal["write", "rank"]
    content: str = Field(max_length=50_000)


class NewPrompts(BaseModel):
    """First messages for a topic, one a line."""

    topic: str
    prompts: str = Field(max_length=1_000_000)


@router.get("")
def page(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """The settings as they are."""
    with parts.store.read() as tx:
        settings = labelling.labelling_settings(tx)
        histories = {place: labelling.guidelines_history(tx, place) for place in ("write", "rank")}
        counts = labelling.count_writing_prompts(tx)
    return pages.page(
        request,
        "operate_labelling.html",
        user=user,
        place="operate",
        tab="labelling",
        settings=settings,
        histories=histories,
        counts=counts,
        topics=TOPICS,
    )


@router.put("", status_code=204)
def change(body: NewSettings, user: Operator, parts: Parts) -> None:
    """Tasks that are made from now on follow the new settings."""
    with parts.store.write() as tx:
        labelling.change_labelling_settings(tx, body.settings())


@router.post("/guidelines", status_code=204)
def write_guidelines(body: NewGuidelines, user: Operator, parts: Parts) -> None:
    """A new version of what trainers go by."""
    with parts.store.write() as tx:
        labelling.change_guidelines(tx, body.place, body.content, by=user.id)


@router.post("/prompts", status_code=204)
def add_prompts(body: NewPrompts, user: Operator, parts: Parts) -> None:
    """More to begin from."""
    with parts.store.write() as tx:
        labelling.add_writing_prompts(tx, body.topic, body.prompts.splitlines())

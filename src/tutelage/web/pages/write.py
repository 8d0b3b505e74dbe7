"""Writing a dialogue from both sides, with the model's suggestions at the assistant's turns.

    GET    /write              ?draft=ID opens a draft
    GET    /write/start        ?topic=NAME -> {topic, prompt, content}: what to write about, and a first message
    PUT    /write/draft        {id?, messages, topic, prompt?, flag} -> {id}
    DELETE /write/draft/{id}
    POST   /write/submit       {id?, messages, topic, prompt?, flag}
    POST   /write/suggest      {messages} -> one suggestion, as text that streams

A message is {role, content, suggestions: [texts shown], taken: the one it began from, version: of the model that made
it, seconds}. What is stored says where the text came from: human, suggested, or edited, and how much was changed.
"""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from markupsafe import Markup
from pydantic import BaseModel, Field

from tutelage.dialogue import Message
from tutelage.errors import NotFound
from tutelage.registry import Registry
from tutelage.store import labelling
from tutelage.store.labelling import TOPICS, Brief
from tutelage.web import markdown
from tutelage.web.pages.parts import Parts, Templates, Trainer

router = APIRouter(prefix="/write", include_in_schema=False)
MAX_TEXT = 32_000
MAX_TURNS = 100
WrittenText = Annotated[str, Field(max_length=MAX_TEXT)]


class Turn(BaseModel):
    """One message of a dialogue that is being written."""

    role: Literal["user", "assistant"]
    content: WrittenText
    suggestions: list[WrittenText] = Field(default=[], max_length=20)
    taken: WrittenText | None = None
    version: str | None = Field(default=None, max_length=64)
    seconds: float = Field(default=0, ge=0, le=86_400, allow_inf_nan=False)


class Written(BaseModel):
    """A dialogue that is being written; `id` once it was saved. `prompt` is the first message it began from.

    `flag` is what a reviewer should know about it.
    """

    id: str | None = None
    messages: list[Turn] = Field(max_length=MAX_TURNS)
    topic: Literal["", "free", "follow_up", "false_premise", "ambiguous", "refuse"] = ""
    prompt: str | None = None
    flag: str = Field(default="", max_length=500)


@router.get("")
def write(
    request: Request, user: Trainer, parts: Parts, pages: Templates, draft: str | None = None
) -> Response:
    """An empty dialogue, or a draft."""
    with parts.store.read() as tx:
        drafts = labelling.drafts(tx, user.id)
        opened = None if draft is None else labelling.get_demonstration(tx, draft, author_id=user.id)
        guidelines = labelling.current_guidelines(tx, "write")
        start = labelling.draw_start(tx, random.Random())
    turns = [] if opened is None else [_turn(message) for message in opened.messages]
    note = "" if opened is None else opened.review_note
    titled = [
        (row.id, next((m["content"] for m in row.messages if m["content"].strip()), "")) for row in drafts
    ]
    return pages.page(
        request,
        "write.html",
        user=user,
        place="write",
        drafts=titled,
        draft_id=draft,
        turns=turns,
        note=note,
        topics=TOPICS,
        start=start if opened is None else labelling.Start(opened.topic or "free"),
        flag="" if opened is None else opened.flag,
        guidelines=None if guidelines is None else Markup(markdown.render(guidelines.content)),
        guidelines_version=None if guidelines is None else guidelines.version,
    )


@router.get("/start")
def start(
    user: Trainer,
    parts: Parts,
    topic: Literal["free", "follow_up", "false_premise", "ambiguous", "refuse"] | None = None,
) -> dict[str, Any]:
    """Something else to write about: a topic by the operators' mix or the one asked for, and a first message."""
    with parts.store.read() as tx:
        found = labelling.draw_start(tx, random.Random(), topic=topic)
    return {"topic": found.topic, "prompt": found.prompt_id, "content": found.content}


@router.put("/draft")
def save_draft(body: Written, user: Trainer, parts: Parts) -> dict[str, str]:
    """Save what there is, whole or not."""
    return {"id": _save(body, user.id, parts, "draft")}


@router.delete("/draft/{draft_id}", status_code=204)
def delete_draft(draft_id: str, user: Trainer, parts: Parts) -> None:
    """Throw a draft away."""
    with parts.store.write() as tx:
        labelling.delete_draft(tx, draft_id, author_id=user.id)


@router.post("/submit", status_code=204)
def submit(body: Written, user: Trainer, parts: Parts) -> None:
    """Hand a whole dialogue in. An operator's own is accepted at once."""
    _save(body, user.id, parts, "accepted" if user.role == "operator" else "submitted")


@router.post("/suggest")
async def suggest(body: Written, user: Trainer, parts: Parts) -> StreamingResponse:
    """What the model would say next; the head names its version."""
    messages = [Message(turn.role, turn.content) for turn in body.messages]
    found = await parts.turns.suggest(user, messages)
    head = {"x-model-version": found.version}
    return StreamingResponse(found.pieces, media_type="text/plain; charset=utf-8", headers=head)


def _save(
    body: Written, author_id: str, parts: Parts, status: Literal["draft", "submitted", "accepted"]
) -> str:
    stable = _version(parts.registry)
    messages = [
        {
            "role": turn.role,
            "content": turn.content.strip() if status != "draft" else turn.content,
            "provenance": labelling.provenance(turn.content, turn.suggestions, turn.taken)
            | {
                "seconds": round(turn.seconds),
                "model_version": (turn.version or stable) if turn.suggestions else None,
            },
        }
        for turn in body.messages
    ]
    with parts.store.write() as tx:
        guidelines = labelling.current_guidelines(tx, "write")
        row = labelling.save_demonstration(
            tx,
            author_id=author_id,
            messages=messages,
            status=status,
            demonstration_id=body.id,
            brief=Brief(
                topic=body.topic,
                guidelines=None if guidelines is None else guidelines.version,
                flag=body.flag.strip(),
            ),
        )
        if body.prompt is not None and status != "draft":
            labelling.note_use(tx, body.prompt)
        return row.id


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    """A stored message as the page's script wants it."""
    kept = message.get("provenance") or {}
    return {
        "role": message["role"],
        "content": message["content"],
        "suggestions": kept.get("suggestions", []),
        "taken": kept.get("taken"),
        "version": kept.get("model_version"),
        "seconds": kept.get("seconds", 0),
    }


def _version(registry: Registry) -> str | None:
    try:
        return registry.resolve("stable").name
    except NotFound:
        return None

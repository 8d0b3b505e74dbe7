"""What people do with their dialogues beside talking, over JSON. The owner is in every query.

    GET    /api/search                       ?q=WORDS                                      {found: [...]}
    POST   /api/dialogues/{id}/restore       takes a deletion back, for an hour            {dialogue}
    GET    /api/dialogues/{id}/share                                                       {share | null}
    PUT    /api/dialogues/{id}/share         {leaf_id?} makes or renews the copy           {share}
    DELETE /api/dialogues/{id}/share                                                       204
    GET    /api/dialogues/{id}/export        ?format=markdown|json&leaf_id=ID              a file
    POST   /api/import                       {conversations: [...]} of a ChatGPT export    {imported, known, empty}
    PUT    /api/picks/{first_id}/{second_id} {verdict: first|second|tie|both_bad}          {pick}
    DELETE /api/picks/{first_id}/{second_id}                                               204

`found` holds {dialogue, message_id | null, excerpt}; a share is {path, created}. Errors as in `server.api`.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from tutelage.server.api import dialogue_view
from tutelage.server.chatgpt import Conversation, read_conversation
from tutelage.server.permissions import current_user, writing_user
from tutelage.server.services import services
from tutelage.server.titles import title_of
from tutelage.server.transactions import read, write
from tutelage.store import bin, picks, search, shares, transfer
from tutelage.store.tables import Share, User
from tutelage.store.transfer import Turn

router = APIRouter(prefix="/api")

Me = Annotated[User, Depends(current_user)]
Writer = Annotated[User, Depends(writing_user)]
MOST_CONVERSATIONS = 500
CHATGPT = "chatgpt"
SPEAKERS = {"user": "User", "assistant": "Assistant"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Leaf(_Body):
    leaf_id: str | None = Field(None, max_length=64)


class Conversations(_Body):
    conversations: list[Any] = Field(max_length=MOST_CONVERSATIONS)


class PickBody(_Body):
    verdict: Literal["first", "second", "tie", "both_bad"]


@router.get("/search")
async def find(
    request: Request, me: Me, q: Annotated[str, Query(max_length=search.LONGEST_QUERY)] = ""
) -> dict[str, Any]:
    """The user's dialogues with these words."""
    hits = await read(services(request).store, lambda tx: search.search(tx, me.id, q))
    return {
        "found": [
            {"dialogue": dialogue_view(hit.dialogue), "message_id": hit.message_id, "excerpt": hit.excerpt}
            for hit in hits
        ]
    }


@router.post("/dialogues/{dialogue_id}/restore")
async def restore_dialogue(request: Request, me: Me, dialogue_id: str) -> dict[str, Any]:
    """Take a deletion back."""
    row = await write(
        services(request).store, lambda tx: bin.restore_dialogue(tx, dialogue_id, owner_id=me.id)
    )
    return {"dialogue": dialogue_view(row)}


@router.get("/dialogues/{dialogue_id}/share")
async def show_share(request: Request, me: Me, dialogue_id: str) -> dict[str, Any]:
    """How a dialogue is shared now."""
    row = await read(services(request).store, lambda tx: shares.share_of(tx, dialogue_id, owner_id=me.id))
    return {"share": None if row is None else share_view(row)}


@router.put("/dialogues/{dialogue_id}/share")
async def share_dialogue(request: Request, me: Writer, dialogue_id: str, body: Leaf) -> dict[str, Any]:
    """Let anybody with the link read a copy of one branch."""
    row = await write(
        services(request).store,
        lambda tx: shares.share(tx, dialogue_id, owner_id=me.id, leaf_id=body.leaf_id),
    )
    return {"share": share_view(row)}


@router.delete("/dialogues/{dialogue_id}/share", status_code=204)
async def unshare_dialogue(request: Request, me: Me, dialogue_id: str) -> Response:
    """Take the link away."""
    await write(services(request).store, lambda tx: shares.unshare(tx, dialogue_id, owner_id=me.id))
    return Response(status_code=204)


@router.get("/dialogues/{dialogue_id}/export")
async def export_dialogue(
    request: Request,
    me: Me,
    dialogue_id: str,
    format: Literal["markdown", "json"] = "markdown",
    leaf_id: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """A dialogue as a file: one branch as Markdown, or all of them as JSON."""

    def text(tx: Session) -> tuple[str, str]:
        whole = transfer.whole_dialogue(tx, dialogue_id, owner_id=me.id)
        if format == "json":
            return whole["title"], json.dumps(whole, ensure_ascii=False, indent=2)
        written = transfer.as_markdown(tx, dialogue_id, owner_id=me.id, names=SPEAKERS, leaf_id=leaf_id)
        return whole["title"], written

    title, content = await read(services(request).store, text)
    kind, ending = ("application/json", "json") if format == "json" else ("text/markdown", "md")
    return Response(content, media_type=kind, headers=download(f"{title[:60]}.{ending}"))


@router.post("/import")
async def import_conversations(request: Request, me: Writer, body: Conversations) -> dict[str, int]:
    """Conversations of a ChatGPT export, each once however often it is sent."""
    found = await run_sync(lambda: [read_conversation(record) for record in body.conversations])
    counts = {"imported": 0, "known": 0, "empty": found.count(None)}
    for conversation in filter(None, found):
        new = await write(services(request).store, partial(_store, me=me, conversation=conversation))
        counts["imported" if new else "known"] += 1
    return counts


@router.put("/picks/{first_id}/{second_id}")
async def pick(request: Request, me: Me, first_id: str, second_id: str, body: PickBody) -> dict[str, Any]:
    """Say which of two answers to one question is better; sent again, it replaces the first choice."""
    row = await write(
        services(request).store,
        lambda tx: picks.pick(
            tx, first_id=first_id, second_id=second_id, rater_id=me.id, verdict=body.verdict
        ),
    )
    return {"pick": {"first_id": row.first_id, "second_id": row.second_id, "verdict": row.verdict}}


@router.delete("/picks/{first_id}/{second_id}", status_code=204)
async def withdraw_pick(request: Request, me: Me, first_id: str, second_id: str) -> Response:
    """Take a choice back; nothing happens when there was none."""

    def withdraw(tx: Session) -> None:
        picks.own_answers(tx, first_id, second_id, me.id)
        picks.withdraw_pick(tx, first_id=first_id, second_id=second_id, rater_id=me.id)

    await write(services(request).store, withdraw)
    return Response(status_code=204)


def share_view(row: Share) -> dict[str, Any]:
    """A share as JSON for its owner."""
    return {"path": f"/s/{row.token}", "created": row.created.isoformat()}


def download(name: str) -> dict[str, str]:
    """The headers of a file to be saved under a name, whatever letters it has."""
    plain = re.sub(r"[^A-Za-z0-9._ -]+", "", name).strip(" .-") or "chat"
    safe = "".join(letter for letter in name if letter.isprintable() and letter not in '/\\:*?"<>|') or plain
    encoded = "".join(f"%{byte:02X}" for byte in safe.encode("utf-8", "replace"))
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"}


def _store(tx: Session, *, me: User, conversation: Conversation) -> bool:
    turns: list[Turn] = [(node.parent, node.role, node.content, node.model) for node in conversation.nodes]
    made = transfer.import_tree(
        tx,
        me.id,
        key=conversation.key,
        title=conversation.title or title_of(turns[0][2]),
        turns=turns,
        created=conversation.created,
        source=CHATGPT,
    )
    return made is not None

"""Taking part in a contest for feedback over JSON.

    GET    /api/campaign                                     the one that is open            {campaign: {...} | null}
    PUT    /api/messages/{id}/entries/{campaign_id}          enter one's rating of an answer {entry}
    DELETE /api/messages/{id}/entries/{campaign_id}          take it back, at any time       204

A campaign is {id, title, prize, weight, opens, closes, path}; `path` is the page with its rules. An entry is {id,
campaign_id, message_id, created}. Errors as in `server.api`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tutelage.server.permissions import current_user
from tutelage.server.services import services
from tutelage.server.transactions import read, write
from tutelage.store import campaigns
from tutelage.store.campaigns import entries
from tutelage.store.tables import Campaign, User

router = APIRouter(prefix="/api")

Me = Annotated[User, Depends(current_user)]


@router.get("/campaign")
async def campaign(request: Request) -> dict[str, Any]:
    """The campaign that takes entries now."""
    found = await read(services(request).store, campaigns.open_campaign)
    return {"campaign": None if found is None else campaign_view(found)}


@router.put("/messages/{message_id}/entries/{campaign_id}")
async def enter(request: Request, me: Me, message_id: str, campaign_id: str) -> dict[str, Any]:
    """Let operators read a rating of one's own, and take part in the draw."""
    row = await write(
        services(request).store,
        lambda tx: entries.enter(tx, campaign_id=campaign_id, message_id=message_id, user_id=me.id),
    )
    created = row.created.isoformat()
    return {"entry": {"id": row.id, "campaign_id": campaign_id, "message_id": message_id, "created": created}}


@router.delete("/messages/{message_id}/entries/{campaign_id}", status_code=204)
async def take_back(request: Request, me: Me, message_id: str, campaign_id: str) -> Response:
    """End an entry; nothing happens when there was none."""
    await write(
        services(request).store,
        lambda tx: entries.take_back(tx, campaign_id=campaign_id, message_id=message_id, user_id=me.id),
    )
    return Response(status_code=204)


def campaign_view(row: Campaign) -> dict[str, Any]:
    """A campaign as JSON for everybody."""
    return {
        "id": row.id,
        "title": row.title,
        "prize": row.prize,
        "weight": row.weight,
        "opens": row.opens.isoformat(),
        "closes": row.closes.isoformat(),
        "path": f"/campaigns/{row.id}",
    }

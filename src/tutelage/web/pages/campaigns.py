"""Contests for feedback: what operators plan, read, take out and draw. The page for everybody is in `public`.

GET    /operate/campaigns                  all of them, and a form for the next one
POST   /operate/campaigns                  {title, rules, prize, weight, opens, closes}; moments in UTC
GET    /operate/campaigns/{id}             ?after=ENTRY one with its entries
PUT    /operate/campaigns/{id}             as above, before it opens
PUT    /operate/campaigns/{id}/end         {closes}
POST   /operate/campaigns/{id}/close       end it now
DELETE /operate/campaigns/{id}             while nobody has entered it
POST   /operate/campaigns/{id}/draw        {count}
GET    /operate/campaigns/{id}/entries     ?format=csv|jsonl all entries as a file
"""

from __future__ import annotations

from datetime import UTC
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field, NaiveDatetime

from tutelage.server.library import download
from tutelage.store import audit, campaigns
from tutelage.store.campaigns import Call, draws, entries
from tutelage.store.ids import now
from tutelage.web import entry_files
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/campaigns", include_in_schema=False)
SHOWN = 100


class Form(BaseModel):
    """A campaign as its form sends it."""

    title: str
    rules: str
    prize: str = ""
    weight: Literal["person", "entry"] = "person"
    opens: NaiveDatetime
    closes: NaiveDatetime

    def call(self) -> Call:
        moments = {name: getattr(self, name).replace(tzinfo=UTC) for name in ("opens", "closes")}
        return Call(**self.model_dump() | moments)


class End(BaseModel):
    """Another end."""

    closes: NaiveDatetime


class Draw(BaseModel):
    """How many are drawn."""

    count: int = Field(ge=1, le=draws.MOST_WINNERS)


@router.get("")
def list_campaigns(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """What was, is and will be."""
    with parts.store.read() as tx:
        rows = [
            (row, campaigns.state(row), *entries.count_entries(tx, row.id))
            for row in campaigns.list_campaigns(tx)
        ]
    return pages.page(
        request,
        "operate_campaigns.html",
        user=user,
        place="operate",
        tab="campaigns",
        rows=rows,
        today=now(),
        limits=campaigns,
    )


@router.post("", status_code=201)
def plan(body: Form, user: Operator, parts: Parts) -> dict[str, str]:
    """A new campaign."""
    with parts.store.write() as tx:
        made = campaigns.plan_campaign(tx, body.call(), by=user.id)
        audit.record(tx, user.id, "plan_campaign", made.id)
    return {"id": made.id}


@router.get("/{campaign_id}")
def show_campaign(
    request: Request,
    campaign_id: str,
    user: Operator,
    parts: Parts,
    pages: Templates,
    after: str | None = None,
) -> Response:
    """A campaign with what may be done about it now, and its entries without words."""
    with parts.store.read() as tx:
        campaign = campaigns.get_campaign(tx, campaign_id)
        rows = entries.list_entries(tx, campaign_id, limit=SHOWN + 1, after=after)
        count, people = entries.count_entries(tx, campaign_id)
        winners = draws.list_winners(tx, campaign_id)
    return pages.page(
        request,
        "operate_campaign.html",
        user=user,
        place="operate",
        tab="campaigns",
        campaign=campaign,
        state=campaigns.state(campaign),
        seal=campaigns.seal(campaign),
        rows=rows[:SHOWN],
        more=rows[SHOWN - 1].entry.id if len(rows) > SHOWN else None,
        count=count,
        people=people,
        winners=winners,
        limits=campaigns,
        most_winners=draws.MOST_WINNERS,
    )


@router.put("/{campaign_id}", status_code=204)
def change(campaign_id: str, body: Form, user: Operator, parts: Parts) -> None:
    """Write it anew."""
    with parts.store.write() as tx:
        campaigns.change_campaign(tx, campaign_id, body.call())
        audit.record(tx, user.id, "change_campaign", campaign_id)


@router.put("/{campaign_id}/end", status_code=204)
def move_end(campaign_id: str, body: End, user: Operator, parts: Parts) -> None:
    """Let it go on for longer, or end sooner."""
    with parts.store.write() as tx:
        campaign = campaigns.move_end(tx, campaign_id, body.closes.replace(tzinfo=UTC))
        audit.record(
            tx,
            user.id,
            "move_campaign_end",
            campaign_id,
            detail={"to": f"{campaign.closes:%Y-%m-%d %H:%M}"},
        )


@router.post("/{campaign_id}/close", status_code=204)
def close(campaign_id: str, user: Operator, parts: Parts) -> None:
    """End it now."""
    with parts.store.write() as tx:
        campaigns.move_end(tx, campaign_id, now())
        audit.record(tx, user.id, "close_campaign", campaign_id)


@router.delete("/{campaign_id}", status_code=204)
def delete(campaign_id: str, user: Operator, parts: Parts) -> None:
    """Take it back."""
    with parts.store.write() as tx:
        campaigns.delete_campaign(tx, campaign_id)
        audit.record(tx, user.id, "delete_campaign", campaign_id)


@router.post("/{campaign_id}/draw", status_code=204)
def draw(campaign_id: str, body: Draw, user: Operator, parts: Parts) -> None:
    """Draw the next winners. Who they are follows from the entries and the seed."""
    with parts.store.write() as tx:
        drawn = draws.draw(tx, campaign_id, body.count)
        count, people = entries.count_entries(tx, campaign_id)
        detail = {"asked": body.count, "drawn": len(drawn), "entries": count, "people": people}
        audit.record(tx, user.id, "draw_winners", campaign_id, detail=detail)


@router.get("/{campaign_id}/entries")
def export(
    campaign_id: str, user: Operator, parts: Parts, format: Literal["csv", "jsonl"] = "csv"
) -> StreamingResponse:
    """What entries share, as a file for a spreadsheet or a program."""
    with parts.store.write() as tx:
        campaign = campaigns.get_campaign(tx, campaign_id)
        audit.record(tx, user.id, "export_entries", campaign_id, detail={"format": format})
    rows = entry_files.rows(parts.store, campaign)
    kind = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    content = entry_files.as_csv(rows) if format == "csv" else entry_files.as_jsonl(rows)
    return StreamingResponse(content, media_type=kind, headers=download(f"{campaign.title[:60]}.{format}"))

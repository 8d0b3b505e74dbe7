"""What readers think of each version, and the audit log.

GET  /operate/feedback             ?version=v2&reason=untrue counts by week, version and reason, and single ratings
POST /operate/feedback/{id}/words  the conversation that a rating judges; each reading is written down
GET  /operate/audit                what operators did and read
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from tutelage.store import audit, feedback, opinions
from tutelage.store.opinions import Tally
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate", include_in_schema=False)
SHOWN = 200
BAR, GAP, HEIGHT = 14, 4, 48


@router.get("/feedback")
def list_feedback(
    request: Request,
    user: Operator,
    parts: Parts,
    pages: Templates,
    version: str | None = None,
    reason: str | None = None,
) -> Response:
    """Counts of all ratings, and each of them without words."""
    with parts.store.read() as tx:
        tallies = opinions.tallies(tx)
        rows = opinions.list_opinions(tx, version=version, reason=reason, limit=SHOWN)
    return pages.page(
        request,
        "operate_feedback.html",
        user=user,
        place="operate",
        tab="feedback",
        tallies=[(tally, bars(tally)) for tally in tallies],
        rows=rows,
        version=version,
        reason=reason if reason in feedback.REASONS else None,
    )


@router.post("/feedback/{rating_id}/words")
def words(request: Request, rating_id: str, user: Operator, parts: Parts, pages: Templates) -> Response:
    """What was said, as it stood when it was judged."""
    with parts.store.write() as tx:
        reading = opinions.read_opinion(tx, rating_id, reader_id=user.id)
    return pages.bare(request, "_words.html", user=user, reading=reading)


@router.get("/audit")
def show_audit(
    request: Request, user: Operator, parts: Parts, pages: Templates, before: str | None = None
) -> Response:
    """The log, newest first."""
    with parts.store.read() as tx:
        rows = audit.list_entries(tx, limit=SHOWN, before=before)
    more = rows[-1][0].id if len(rows) == SHOWN else None
    return pages.page(
        request, "operate_audit.html", user=user, place="operate", tab="audit", rows=rows, more=more
    )


def bars(tally: Tally) -> Markup:
    """Thumbs by week as a small drawing: up above the line, down below, the weeks from left to right."""
    most = max((max(pair) for pair in tally.weeks.values()), default=0) or 1
    drawn = "".join(_bar(place, pair, most) for place, pair in enumerate(tally.weeks.values()))
    width = len(tally.weeks) * (BAR + GAP)
    line = f'<path class="axis" d="M0 {HEIGHT}H{width}"/>'
    return Markup(
        f'<svg class="bars" viewBox="0 0 {width} {2 * HEIGHT}" aria-hidden="true">{drawn}{line}</svg>'
    )


def _bar(place: int, pair: tuple[int, int], most: int) -> str:
    x, (up, down) = place * (BAR + GAP), (round(HEIGHT * count / most) for count in pair)
    above = f'<rect class="up" x="{x}" y="{HEIGHT - up}" width="{BAR}" height="{up}"/>'
    return above + f'<rect class="down" x="{x}" y="{HEIGHT}" width="{BAR}" height="{down}"/>'

"""What would be learnt from now, and what not, with the reason.

GET /operate/data
GET /operate/data/rows    ?stream=NAME&source=NAME: the newest of these as they would be learnt from
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.store import audit, export
from tutelage.store.export.outlook import outlook
from tutelage.web.masks import marked
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/data", include_in_schema=False)
SHOWN = 50
STREAMS: Mapping[str, Callable[..., Iterator[Dialogue] | Iterator[Comparison]]] = {
    "demonstrations": export.demonstrations,
    "comparisons": export.comparisons,
    "prompts": export.prompts,
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer of a comparison, and by their numbers the ones it is better than and as good as."""

    text: str
    better_than: list[int]
    as_good_as: list[int]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a snapshot, to be looked at."""

    messages: tuple[Message, ...]
    candidates: list[Candidate]


@router.get("")
def data(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """Counts by source and by reason, and the snapshots taken so far."""
    with parts.store.read() as tx:
        found = outlook(tx)
        snapshots = export.list_snapshots(tx)
    return pages.page(
        request, "operate_data.html", user=user, place="operate", tab="data", found=found, snapshots=snapshots
    )


@router.get("/rows")
def rows(
    request: Request,
    user: Operator,
    parts: Parts,
    pages: Templates,
    stream: Literal["demonstrations", "comparisons", "prompts"],
    source: str,
) -> Response:
    """What one source gives to one stream, masked as in a snapshot. The reading is written into the log."""
    with parts.store.read() as tx:
        newest = deque[Dialogue | Comparison](STREAMS[stream](tx, sources=[source]), maxlen=SHOWN)
    with parts.store.write() as tx:
        audit.record(tx, user.id, "read_data", stream, detail={"source": source})
    return pages.page(
        request,
        "operate_data_rows.html",
        user=user,
        place="operate",
        tab="data",
        stream=stream,
        source=source,
        rows=[row_of(each) for each in reversed(newest)],
        marked=marked,
    )


def row_of(item: Dialogue | Comparison) -> Row:
    """A dialogue or a comparison as the page shows it."""
    if isinstance(item, Dialogue):
        return Row(item.messages, [])
    pairs = item.preferences
    tied = [(pair.better, pair.worse) for pair in pairs if pair.tie]
    tied += [(worse, better) for better, worse in tied]
    won = [(pair.better, pair.worse) for pair in pairs if not pair.tie]
    return Row(
        item.prompt,
        [
            Candidate(text, *(sorted(b + 1 for a, b in order if a == index) for order in (won, tied)))
            for index, text in enumerate(item.candidates)
        ],
    )

"""What would be learnt from now, and what not, with the reason.

GET /operate/data
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tutelage.store import export
from tutelage.store.export.outlook import outlook
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/data", include_in_schema=False)


@router.get("")
def data(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """Counts by source and by reason, and the snapshots taken so far."""
    with parts.store.read() as tx:
        found = outlook(tx)
        snapshots = export.list_snapshots(tx)
    return pages.page(
        request, "operate_data.html", user=user, place="operate", tab="data", found=found, snapshots=snapshots
    )

"""Whether this server works, for load balancers and supervisors.

GET /health  {status: "ok"}, or an error with status 503 when the database does not answer
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import text

from tutelage.server.services import services
from tutelage.server.transactions import read

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Says ok when the database can be read. Asks no model: answers wait for a model that is still loading."""
    await read(services(request).store, lambda tx: tx.execute(text("SELECT 1")))
    return {"status": "ok"}

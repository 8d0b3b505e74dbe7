"""Where the content filter was wrong, as its readers see it, and what the operators decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store.dialogues import get_message
from tutelage.store.ids import now
from tutelage.store.tables import Report, ReportKind, ReportStatus


def report(
    tx: Session,
    *,
    message_id: str,
    reporter_id: str,
    kind: ReportKind,
    category: str | None = None,
    note: str = "",
) -> Report:
    """`mistake`: flagged and should not have been; `missed`: should have been flagged.

    Sent again before it is decided, it replaces the first. Raises NotFound for a message that is not in the
    reporter's dialogues, InvalidRequest for an unknown kind, Conflict when the report was decided already.
    """
    if kind not in get_args(ReportKind):
        raise InvalidRequest("A report is a `mistake` or a `missed`.", param="kind")
    message = get_message(tx, message_id, owner_id=reporter_id)
    mine = (Report.message_id == message_id) & (Report.reporter_id == reporter_id)
    row = tx.scalar(select(Report).where(mine)) or Report(message_id=message_id, reporter_id=reporter_id)
    if row.status not in (None, "open"):
        raise Conflict("Your report on this message has been decided.")
    row.kind, row.category, row.note = kind, category, note
    row.role, row.content, row.filter_verdict = message.role, message.content, message.filter_verdict
    tx.add(row)
    tx.flush()
    return row


def list_reports(tx: Session, *, status: ReportStatus | None = None) -> Sequence[Report]:
    """All reports, or those of one status; newest first."""
    query = select(Report).order_by(Report.id.desc())
    return tx.scalars(query if status is None else query.where(Report.status == status)).all()


def my_reports(tx: Session, reporter_id: str) -> Sequence[Report]:
    """What a person reported, with the outcome; newest first."""
    query = select(Report).where(Report.reporter_id == reporter_id)
    return tx.scalars(query.order_by(Report.id.desc())).all()


def decide_report(
    tx: Session, report_id: str, *, decision: Literal["accepted", "declined"], by: str
) -> Report:
    """An operator's word on a report; the last one counts. Raises NotFound, InvalidRequest."""
    row = tx.get(Report, report_id)
    if row is None:
        raise NotFound("There is no such report.")
    if decision not in ("accepted", "declined"):
        raise InvalidRequest("A report is `accepted` or `declined`.", param="decision")
    row.status, row.decided_by, row.decided = decision, by, now()
    tx.flush()
    return row

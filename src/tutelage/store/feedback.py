"""What readers think of an answer: a thumb, the reasons, and what the ideal answer would have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, Sentence
from tutelage.store import privacy
from tutelage.store.dialogues import get_message, path
from tutelage.store.ids import now
from tutelage.store.tables import Dialogue, Message, Rating, RatingVerdict, User

REASONS = ("harmful", "untrue", "unhelpful", "too_long", "refused_wrongly", "other")
_PATH_FIELDS = (
    "id",
    "role",
    "content",
    "author_kind",
    "status",
    "model_version",
    "sampling",
    "filter_verdict",
)


def rate(
    tx: Session,
    *,
    message_id: str,
    rater_id: str,
    verdict: RatingVerdict,
    reasons: Sequence[str] = (),
    note: str = "",
    ideal: str = "",
) -> Rating:
    """A reader's judgement of an answer in one of their dialogues; sent again, it replaces the first.

    `ideal` is a correction: by consent, a demonstration. Raises NotFound for a message that is not in the
    rater's dialogues, InvalidRequest for one that no model wrote or for unknown words, Conflict while the
    answer is being written.
    """
    _check_words(verdict, reasons)
    message = get_message(tx, message_id, owner_id=rater_id)
    if message.author_kind != "model":
        raise InvalidRequest("Only a model's answers can be rated.", param="message_id")
    if message.status == "running":
        raise Conflict("The answer is still being written.", hint="Wait for its end.")
    rating = _rating(tx, message_id, rater_id) or Rating(message_id=message_id, rater_id=rater_id)
    rating.verdict, rating.reasons = verdict, list(dict.fromkeys(reasons))
    rating.note, rating.ideal = note, ideal
    rating.path = [_as_dict(row) for row in path(tx, message_id)]
    rating.model_version, rating.consent = message.model_version, _consent(tx, message, rater_id)
    rating.updated = now()
    tx.add(rating)
    tx.flush()
    return rating


def withdraw(tx: Session, *, message_id: str, rater_id: str) -> bool:
    """Take a rating back; False when there was none."""
    rating = _rating(tx, message_id, rater_id)
    if rating is None:
        return False
    privacy.bury_row(tx, rating.id)
    tx.delete(rating)
    tx.flush()
    return True


def ratings_for(tx: Session, message_ids: Sequence[str], rater_id: str) -> dict[str, Rating]:
    """One person's ratings by message id."""
    query = select(Rating).where(Rating.rater_id == rater_id, Rating.message_id.in_(message_ids))
    return {rating.message_id: rating for rating in tx.scalars(query)}


def _rating(tx: Session, message_id: str, rater_id: str) -> Rating | None:
    query = select(Rating).where(Rating.message_id == message_id, Rating.rater_id == rater_id)
    return tx.scalar(query)


def _check_words(verdict: str, reasons: Sequence[str]) -> None:
    if verdict not in get_args(RatingVerdict):
        raise InvalidRequest("A verdict is `up` or `down`.", param="verdict")
    unknown = sorted(set(reasons) - set(REASONS))
    if unknown:
        hint = Sentence("Use {reasons}.", reasons=", ".join(REASONS))
        raise InvalidRequest(
            Sentence("Unknown reason: {reasons}.", reasons=", ".join(unknown)), param="reasons", hint=hint
        )


def _consent(tx: Session, message: Message, rater_id: str) -> bool:
    dialogue, rater = tx.get(Dialogue, message.dialogue_id), tx.get(User, rater_id)
    return bool(dialogue and rater and rater.consent and not dialogue.temporary)


def _as_dict(message: Message) -> dict[str, Any]:
    return {field: getattr(message, field) for field in _PATH_FIELDS}

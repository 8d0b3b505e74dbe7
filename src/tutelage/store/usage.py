"""How many answers people may ask for in a day, how many they have asked for, and whether strangers may chat."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, RateLimited, Sentence
from tutelage.store.ids import now
from tutelage.store.settings import read_setting, write_setting
from tutelage.store.tables import Usage, User

NAME = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What operators may set about the chat. A limit counts answers a day (UTC) and person; None is no limit.

    `guest_storage` is how many million characters a guest may keep (see `quota`). `answers_at_once` are written,
    further ones wait in line. `terms` is the operator's own text for the page that says what happens with what people
    write, in Markdown.
    """

    guests: bool = True
    guest_limit: int | None = None
    user_limit: int | None = None
    guest_storage: int | None = 20
    answers_at_once: int = 32  # as many as the engine computes in one batch
    terms: str = ""

    def limit(self, user: User) -> int | None:
        """How many answers this person may have in a day. Trainers and operators are never held up."""
        return {"guest": self.guest_limit, "user": self.user_limit}.get(user.role)


def chat_settings(tx: Session) -> ChatSettings:
    """As set by an operator."""
    return ChatSettings(**read_setting(tx, NAME))


def change_chat_settings(tx: Session, settings: ChatSettings) -> None:
    """Raises InvalidRequest for a limit below 0."""
    limits = (settings.guest_limit, settings.user_limit, settings.guest_storage)
    if any(limit is not None and limit < 0 for limit in limits):
        raise InvalidRequest("A limit is 0 or more, or none.", param="user_limit")
    if settings.answers_at_once < 1:
        raise InvalidRequest("At least one answer is written at a time.", param="answers_at_once")
    write_setting(tx, NAME, asdict(settings))


def remaining(tx: Session, user: User) -> int | None:
    """How many answers are left for a person today; None when nobody counts."""
    limit = chat_settings(tx).limit(user)
    return None if limit is None else max(0, limit - _row(tx, user.id).answers)


def count_answers(tx: Session, user: User, count: int = 1) -> int | None:
    """Count answers; returns how many are left. Raises RateLimited when there are not so many."""
    limit, row = chat_settings(tx).limit(user), _row(tx, user.id)
    if limit is not None and row.answers + count > limit:
        raise _used_up(limit, left=max(0, limit - row.answers))
    row.answers += count
    tx.add(row)
    tx.flush()
    return None if limit is None else limit - row.answers


class UsedUp(RateLimited):
    """A person has had all their answers of today."""

    code = "daily_limit"


def _used_up(limit: int, *, left: int) -> RateLimited:
    wait = (midnight() - now()).total_seconds()
    if left:
        said = Sentence("You have {left} answer left today, not two.", left=left)
        return RateLimited(said, retry_after=wait, hint="Ask for one answer.")
    said = Sentence("You have had all your answers of today ({limit}).", limit=limit)
    return UsedUp(said, retry_after=wait, hint="More come after midnight (UTC).")


def midnight() -> datetime:
    """When the next day begins, in UTC."""
    return datetime.combine(now().date() + timedelta(days=1), datetime.min.time(), UTC)


def _row(tx: Session, user_id: str) -> Usage:
    day = f"{now():%Y-%m-%d}"
    return tx.get(Usage, (user_id, day)) or Usage(user_id=user_id, day=day, answers=0)

"""How a turn enters the store: what it continues, and the two rows with which it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage import dialogue
from tutelage.engine.interface import Sampling
from tutelage.errors import Conflict, InvalidRequest
from tutelage.moderation.gate import Verdict
from tutelage.server.prompting import Prompt
from tutelage.server.titles import title_of
from tutelage.store import continuing, dialogues, pairs, tables, usage
from tutelage.store.columns import clean
from tutelage.store.tables import User


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was accepted: its rows are on disk. A blocked question has one answer that is blocked, too.

    `remaining` is how many answers the user has left for today; None when nobody counts. `second_answer_id` is there
    when there are two: they were asked for, or both versions of a comparison are shown.
    """

    dialogue_id: str
    user_message_id: str
    answer_id: str
    input_verdict: Verdict
    remaining: int | None = None
    second_answer_id: str | None = None

    @property
    def answer_ids(self) -> tuple[str, ...]:
        """One or two."""
        return tuple(filter(None, (self.answer_id, self.second_answer_id)))


@dataclass(frozen=True, slots=True)
class Question:
    """What a user wants answered: new words, or (in a regeneration) words that are there already.

    `instructions` and `temporary` are for the dialogue that begins with it. Of `answers`, two stand side by side; None
    leaves their number to the server.
    """

    text: str
    dialogue_id: str | None
    parent_id: str | None
    idempotency_key: str | None = None
    message: tables.Message | None = None
    instructions: str = ""
    temporary: bool = False
    answers: int | None = 1

    @property
    def system(self) -> list[dialogue.Message]:
        """The instructions with which a new dialogue begins."""
        return [dialogue.Message("system", self.instructions)] if self.instructions else []


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer to come: the version that gives it, and what that version reads."""

    version: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided about a turn before it is written down."""

    question: Question
    verdict: Verdict
    sampling: Sampling
    drafts: Sequence[Draft]


def history(
    tx: Session, user_id: str, dialogue_id: str | None, parent_id: str | None
) -> list[tables.Message]:
    """The path that a new message continues. Whether it may, the store says when the message is added."""
    if dialogue_id is None:
        if parent_id is not None:
            raise InvalidRequest("a new dialogue has no message to follow", param="parent_id")
        return []
    dialogues.get_dialogue(tx, dialogue_id, owner_id=user_id)
    if parent_id is None:
        return []
    return dialogues.path(tx, dialogues.get_message(tx, parent_id, owner_id=user_id).id)


def question_of(tx: Session, user_id: str, message_id: str) -> tuple[tables.Message, list[tables.Message]]:
    """The question that a message answers (or is), and the path before it."""
    message = dialogues.get_message(tx, message_id, owner_id=user_id)
    if message.status == "running":
        raise Conflict("The answer is still being written.", hint="Wait for its end, or stop it.")
    *history, question = [
        row for row in dialogues.path(tx, message_id) if row.id != message_id or row.role == "user"
    ]
    if question.role != "user":
        raise InvalidRequest("there is no question here to answer", param="message_id")
    return question, history


def accept(tx: Session, user: User, plan: Plan) -> tuple[StartedTurn, bool]:
    """Write the question and the row of its answer, unless they were written before; says whether they are new."""
    key = plan.question.idempotency_key
    known = started_before(tx, user.id, key) if key is not None else None
    if known is not None:
        return known, False
    message = plan.question.message or _add_question(tx, user, plan)
    if plan.verdict.state == "blocked":
        answers, left = [_refusal(tx, message)], usage.remaining(tx, user)
    else:
        answers = [_add_answer(tx, message, draft, plan.sampling) for draft in plan.drafts]
        left = usage.count_answers(tx, user, plan.question.answers or 1)
    if len(answers) == 2:
        pairs.put_side_by_side(*answers)
    return _started(message, answers, plan.verdict, left), True


def checked_text(text: str) -> str:
    """The text as it can be stored. Raises InvalidRequest when nothing is left of it."""
    text = clean(text)
    if not text.strip():
        raise InvalidRequest("the message is empty", param="text", hint="write something")
    return text


def continuation_of(
    tx: Session, user_id: str, message_id: str
) -> tuple[tables.Message, tables.Message, list[tables.Message]]:
    """An answer that may go on, its question, and the path before that."""
    answer = continuing.check_cut_off(tx, message_id, owner_id=user_id)
    question, before = question_of(tx, user_id, message_id)
    return answer, question, before


def take_up(
    tx: Session, user: User, question: tables.Message, cut: tables.Message, dropped: int
) -> StartedTurn:
    """Open the row of an answer that goes on, as long as it is as it was. It counts like another answer."""
    answer = continuing.reopen_answer(tx, cut.id, owner_id=user.id, dropped=dropped)
    if answer.content != continuing.whole_text(cut):
        raise Conflict("This answer has gone on meanwhile.", hint="Load this page again.")
    left = usage.count_answers(tx, user)
    return _started(question, [answer], _stored_verdict(question), left)


def _add_question(tx: Session, user: User, plan: Plan) -> tables.Message:
    question = plan.question
    dialogue_id, parent_id = question.dialogue_id, question.parent_id
    if dialogue_id is None:
        dialogue_id, parent_id = _begin_dialogue(tx, user, question)
    return dialogues.add_message(
        tx,
        dialogue_id,
        parent_id=parent_id,
        role="user",
        content=question.text,
        author_kind="human",
        author_id=user.id,
        idempotency_key=question.idempotency_key,
        status="blocked" if plan.verdict.state == "blocked" else "complete",
        filter_verdict=plan.verdict.as_dict(),
    )


def _begin_dialogue(tx: Session, user: User, question: Question) -> tuple[str, str | None]:
    """A new dialogue, and the message with the user's instructions when there are any."""
    title = title_of(question.text)
    dialogue = dialogues.create_dialogue(tx, user.id, title=title, temporary=question.temporary)
    if not question.instructions:
        return dialogue.id, None
    system = dialogues.add_message(
        tx,
        dialogue.id,
        parent_id=None,
        role="system",
        content=question.instructions,
        author_kind="human",
        author_id=user.id,
    )
    return dialogue.id, system.id


def _add_answer(tx: Session, question: tables.Message, draft: Draft, sampling: Sampling) -> tables.Message:
    answer = dialogues.start_answer(
        tx,
        question.dialogue_id,
        parent_id=question.id,
        model_version=draft.version,
        sampling=sampling.as_dict(),
    )
    if draft.prompt.dropped:
        answer.provenance = {"dropped_messages": draft.prompt.dropped}
    return answer


def _refusal(tx: Session, question: tables.Message) -> tables.Message:
    """The answer to a blocked question: no words, and nobody said them."""
    answer = dialogues.add_message(
        tx,
        question.dialogue_id,
        parent_id=question.id,
        role="assistant",
        content="",
        author_kind="model",
        status="blocked",
    )
    answer.finish_reason = "content_filter"
    return answer


def started_before(tx: Session, user_id: str, key: str) -> StartedTurn | None:
    """The turn that this user started with this key."""
    message = dialogues.sent_message(tx, user_id, key)
    if message is None:
        return None
    query = select(tables.Message).where(tables.Message.parent_id == message.id)
    first = tx.scalar(query.order_by(tables.Message.id).limit(1))
    if first is None:
        return None
    return _started(message, pairs.pair_of(tx, first) or [first], _stored_verdict(message))


def _started(
    question: tables.Message, answers: Sequence[tables.Message], verdict: Verdict, left: int | None = None
) -> StartedTurn:
    first, *second = (answer.id for answer in answers)
    return StartedTurn(question.dialogue_id, question.id, first, verdict, left, *second)


def _stored_verdict(message: tables.Message) -> Verdict:
    stored = message.filter_verdict or {"state": "unchecked", "policy_version": ""}
    return Verdict(**{**stored, "categories": tuple(stored.get("categories", ()))})

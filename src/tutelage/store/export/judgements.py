"""What readers' judgements teach: corrections, and which of several answers they liked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, product
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from tutelage.dialogue import Comparison, Dialogue, Message, Preference, check_turns
from tutelage.store import tables
from tutelage.store.continuing import text_at
from tutelage.store.dialogues import path
from tutelage.store.privacy import ALLOWED
from tutelage.store.trees import trainable, turns


def corrections(tx: Session, source: str) -> Iterator[Dialogue]:
    """The conversation up to a question, and the answer its reader would have liked."""
    for rating, prompt, _ in _rated(tx):
        if rating.ideal.strip():
            messages = (*prompt, Message("assistant", rating.ideal))
            yield Dialogue(messages, rating.id, source, rating.rater_id)


def corrected(tx: Session, source: str) -> Iterator[Comparison]:
    """The ideal answer, better than the one that was given."""
    for rating, prompt, _ in _rated(tx):
        if rating.ideal.strip() and _judged(rating)["status"] == "complete":
            texts = (rating.ideal, _judged(rating)["content"])
            yield Comparison(prompt, texts, (Preference(0, 1),), rating.id, source, rating.rater_id)


def thumbs(tx: Session, source: str) -> Iterator[Comparison]:
    """Answers to one question by thumb: each with thumbs up is better than each with thumbs down.

    Two thumbs up say nothing about which is better, so they make no pair.
    """
    whole = [row for row in _rated(tx) if _judged(row[0])["status"] == "complete"]
    whole.sort(key=lambda row: (row[2].parent_id or "", row[0].rater_id, row[0].id))
    for _, group in groupby(whole, key=lambda row: (row[2].parent_id, row[0].rater_id)):
        rows = list(group)
        up = [index for index, (rating, _, _) in enumerate(rows) if rating.verdict == "up"]
        down = [index for index in range(len(rows)) if index not in up]
        pairs = tuple(Preference(better, worse) for better, worse in product(up, down))
        rating, prompt, _ = rows[0]
        texts = tuple(_judged(rating)["content"] for rating, _, _ in rows)
        yield Comparison(prompt, texts, pairs, rating.id, source, rating.rater_id)


def picks(tx: Session, source: str) -> Iterator[Comparison]:
    """Two answers to one question, side by side or one after the other. Two bad ones are as good as each other."""
    pick, first, second = tables.Pick, aliased(tables.Message), aliased(tables.Message)
    query = select(pick, first, second).join(first, first.id == pick.first_id)
    query = query.join(second, second.id == pick.second_id)
    query = query.join(tables.Dialogue, tables.Dialogue.id == first.dialogue_id)
    for row, one, other in tx.execute(query.where(ALLOWED, pick.consent).order_by(pick.id)):
        before = path(tx, one.id)[:-1]
        texts = tuple(text_at(answer, row.updated) or "" for answer in (one, other))
        if all(text.strip() for text in texts) and trainable(before):
            better = int(row.verdict == "second")
            tie = row.verdict in ("tie", "both_bad")
            pair = Preference(better, 1 - better, tie=tie, gap=0 if tie else 1)
            yield Comparison(turns(before), texts, (pair,), row.id, source, row.rater_id)


def _rated(tx: Session) -> Iterator[tuple[tables.Rating, tuple[Message, ...], tables.Message]]:
    """Ratings that may be used, with the prompt as it was and the answer; the prompt is whole."""
    rating, answer = tables.Rating, tables.Message
    query = select(rating, answer).join(answer, answer.id == rating.message_id)
    query = query.join(tables.Dialogue, tables.Dialogue.id == answer.dialogue_id)
    for row in tx.execute(query.where(ALLOWED, rating.consent).order_by(rating.id)):
        prompt = _prompt(row[0])
        if prompt is not None:
            yield row[0], prompt, row[1]


def _judged(rating: tables.Rating) -> dict[str, Any]:
    """The answer as it stood when it was rated; it may have gone on since."""
    return rating.path[-1]


def _prompt(rating: tables.Rating) -> tuple[Message, ...] | None:
    before = rating.path[:-1]
    prompt = tuple(Message(message["role"], message["content"]) for message in before)
    whole = all(message["status"] == "complete" and message["content"].strip() for message in before)
    return prompt if whole and check_turns(prompt, last="user") is None else None

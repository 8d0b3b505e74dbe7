"""Rows as dialogues and comparisons: only what its author consented to, and nothing blocked or broken off.

| stream         | source name | what                                                                |
|----------------|-------------|---------------------------------------------------------------------|
| demonstrations | importer's  | imported dialogues marked as demonstrations, up to the last answer  |
|                | written     | dialogues written from both sides, handed in or accepted            |
|                | correction  | the path to an answer, with the ideal answer its reader gave        |
| comparisons    | importer's  | imported comparisons                                                |
|                | ranking     | rankings by annotators                                              |
|                | correction  | an ideal answer against the one it corrects                         |
|                | thumbs      | answers to one question, those with thumbs up against those down    |
|                | pick        | two answers to one question that their reader compared              |
| prompts        | importer's  | each question of an imported dialogue, and of imported comparisons  |
|                | chat        | each question people asked                                          |

What people wrote here is masked: e-mail addresses, telephone and card numbers, keys (see `tutelage.store.masking`).
`sources` keeps those names only. Ids are the rows' ids (for a prompt, its last message's or comparison's).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from tutelage.dialogue import Comparison, Dialogue, Message, Preference
from tutelage.store import tables
from tutelage.store.dialogues import path
from tutelage.store.export import judgements
from tutelage.store.masking import mask
from tutelage.store.privacy import ALLOWED
from tutelage.store.trees import trainable, turns, upwards

WRITTEN, CORRECTION, RANKING, THUMBS, PICK = "written", "correction", "ranking", "thumbs", "pick"

_BATCH = 1000


def demonstrations(tx: Session, *, sources: Collection[str] | None = None) -> Iterator[Dialogue]:
    """Dialogues to imitate; each ends with an assistant's message."""
    wanted = _filter(sources)
    for dialogue, rows in _dialogues(tx, tables.Dialogue.demonstration.is_(True)):
        if wanted(dialogue.source):
            yield from _up_to_last_answer(dialogue, rows)
    if wanted(WRITTEN):
        yield from map(_masked, _written(tx))
    if wanted(CORRECTION):
        yield from map(_masked, judgements.corrections(tx, CORRECTION))


def comparisons(tx: Session, *, sources: Collection[str] | None = None) -> Iterator[Comparison]:
    """Judged completions. Pairs with equal texts are left out, and comparisons with no pair left."""
    wanted = _filter(sources)
    for row in _imported_comparisons(tx):
        if wanted(row.source):
            yield from _with_pairs(_comparison(row))
    if wanted(RANKING):
        yield from _each_with_pairs(_rankings(tx))
    if wanted(CORRECTION):
        yield from _each_with_pairs(judgements.corrected(tx, CORRECTION))
    if wanted(THUMBS):
        yield from _each_with_pairs(judgements.thumbs(tx, THUMBS))
    if wanted(PICK):
        yield from _each_with_pairs(judgements.picks(tx, PICK))


def prompts(tx: Session, *, sources: Collection[str] | None = None) -> Iterator[Dialogue]:
    """Dialogues that end with a user's message, each text once, under the first of its sources by name."""
    wanted = _filter(sources)
    found: dict[tuple[Message, ...], Dialogue] = {}
    for prompt in _all_prompts(tx):
        if wanted(prompt.source):
            known = found.setdefault(prompt.messages, prompt)
            found[prompt.messages] = min(known, prompt, key=lambda each: (each.source, each.author or ""))
    yield from found.values()


def _filter(sources: Collection[str] | None) -> Callable[[str], bool]:
    return lambda source: sources is None or source in sources


def _dialogues(
    tx: Session, condition: ColumnElement[bool]
) -> Iterator[tuple[tables.Dialogue, list[tables.Message]]]:
    """Dialogues that may be used, oldest first, with all their messages."""
    query = select(tables.Dialogue, tables.Message)
    query = query.join(tables.Message, tables.Message.dialogue_id == tables.Dialogue.id)
    query = query.where(ALLOWED, condition).order_by(tables.Dialogue.id, tables.Message.id)
    rows = tx.execute(query.execution_options(yield_per=_BATCH))
    for _, group in groupby(rows, key=lambda row: row[0].id):
        pairs = list(group)
        yield pairs[0][0], [message for _, message in pairs]


def _up_to_last_answer(dialogue: tables.Dialogue, rows: list[tables.Message]) -> Iterator[Dialogue]:
    end = max((index for index, row in enumerate(rows, 1) if row.role == "assistant"), default=0)
    if end and trainable(rows[:end]):
        yield Dialogue(turns(rows[:end]), dialogue.id, dialogue.source, dialogue.author)


def _written(tx: Session) -> Iterator[Dialogue]:
    row, message = tables.Demonstration, tables.Message
    query = select(row).join(message, message.id == row.message_id, isouter=True)
    query = query.join(tables.Dialogue, tables.Dialogue.id == message.dialogue_id, isouter=True)
    query = query.where(row.consent, row.status.in_(("submitted", "accepted")))
    for found in tx.scalars(query.where(row.message_id.is_(None) | ALLOWED).order_by(row.id)):
        yield Dialogue(_turns(found.messages), found.id, WRITTEN, found.author_id)


def _imported_comparisons(tx: Session) -> Iterator[tables.ComparisonRow]:
    row = tables.ComparisonRow
    query = select(row).where(row.consent).order_by(row.id)
    yield from tx.scalars(query.execution_options(yield_per=_BATCH))


def _comparison(row: tables.ComparisonRow) -> Comparison:
    preferences = tuple(Preference(**preference) for preference in row.preferences)
    return Comparison(_turns(row.prompt), tuple(row.candidates), preferences, row.id, row.source, row.author)


def _rankings(tx: Session) -> Iterator[Comparison]:
    ranking, task = tables.Ranking, aliased(tables.LabellingTask)
    query = select(ranking, task.message_id).join(task, task.id == ranking.task_id)
    query = query.join(tables.Dialogue, tables.Dialogue.id == task.dialogue_id)
    query = query.where(ALLOWED, ranking.consent, ranking.adjudication | ~_settled(ranking))
    for row, message_id in tx.execute(query.order_by(ranking.id)):
        prompt = path(tx, message_id)[:-1]
        if trainable(prompt):
            yield _ranked(tx, row, turns(prompt))


def _settled(ranking: type[tables.Ranking]) -> ColumnElement[bool]:
    """Whether somebody has adjudicated the task of a ranking."""
    other = aliased(tables.Ranking)
    return select(other.id).where(other.task_id == ranking.task_id, other.adjudication).exists()


def _ranked(tx: Session, ranking: tables.Ranking, prompt: tuple[Message, ...]) -> Comparison:
    query = select(tables.Candidate).where(tables.Candidate.task_id == ranking.task_id)
    candidates = tx.scalars(query.order_by(tables.Candidate.position)).all()
    index = {candidate.id: number for number, candidate in enumerate(candidates)}
    return Comparison.from_ranking(
        prompt,
        [candidate.content for candidate in candidates],
        [[index[name] for name in group] for group in ranking.groups],
        id=ranking.id,
        source=RANKING,
        author=ranking.annotator_id,
    )


def _each_with_pairs(comparisons: Iterator[Comparison]) -> Iterator[Comparison]:
    """With personal data masked; pairs whose texts are equal then are left out."""
    for comparison in comparisons:
        texts = tuple(map(mask, comparison.candidates))
        yield from _with_pairs(replace(comparison, prompt=_mask_all(comparison.prompt), candidates=texts))


def _with_pairs(comparison: Comparison) -> Iterator[Comparison]:
    texts = comparison.candidates
    kept = tuple(pair for pair in comparison.preferences if texts[pair.better] != texts[pair.worse])
    if kept:
        yield replace(comparison, preferences=kept)


def _all_prompts(tx: Session) -> Iterator[Dialogue]:
    for dialogue, rows in _dialogues(tx, tables.Dialogue.id.is_not(None)):
        by_id = {row.id: row for row in rows}
        source, author = dialogue.source or dialogue.origin, dialogue.owner_id or dialogue.author
        for row in rows:
            branch = upwards(by_id, row.id) if row.role == "user" else []
            if branch and trainable(branch):
                said = turns(branch) if dialogue.source else _mask_all(turns(branch))
                yield Dialogue(said, row.id, source, author)
    for comparison in _imported_comparisons(tx):
        yield Dialogue(_turns(comparison.prompt), comparison.id, comparison.source, comparison.author)


def _masked(dialogue: Dialogue) -> Dialogue:
    return replace(dialogue, messages=_mask_all(dialogue.messages))


def _mask_all(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(Message(message.role, mask(message.content)) for message in messages)


def _turns(messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(message["role"], message["content"]) for message in messages)

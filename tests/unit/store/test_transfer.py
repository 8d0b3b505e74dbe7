"""Dialogues out and in: all that is one's own, and nothing that is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tutelage.errors import NotFound
from tutelage.store import Store, bin, dialogues, feedback, labelling, picks, reports, transfer
from tutelage.store.tables import Message
from tutelage.store.transfer import Turn

Chat = Callable[..., list[Message]]
NAMES = {"user": "You", "assistant": "Model"}
OLD = datetime(2023, 11, 14, tzinfo=UTC)


def test_a_dialogue_goes_out_whole_and_to_its_owner_only(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    with store.write() as tx:
        again = dialogues.start_answer(
            tx, rows[0].dialogue_id, parent_id=rows[0].id, model_version="v2", sampling={}
        )
        dialogues.finish_answer(tx, again.id, content="harm", status="blocked", finish_reason="stop")
        dialogues.add_message(
            tx,
            rows[0].dialogue_id,
            parent_id=rows[1].id,
            role="user",
            content="q2",
            author_kind="human",
        )
    with store.read() as tx:
        whole = transfer.whole_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
        assert [(row["content"], row["status"]) for row in whole["messages"]] == [
            ("q", "complete"),
            ("a", "complete"),
            ("", "blocked"),
            ("q2", "complete"),
        ]
        assert (whole["may_improve_the_model"], whole["temporary"], whole["archived"]) == (True, False, False)
        written = transfer.as_markdown(tx, rows[0].dialogue_id, owner_id=cast.reader, names=NAMES)
        assert written.partition("\n\n")[2] == "## You\n\nq\n\n## Model\n\na\n\n## You\n\nq2\n"
        cut = transfer.as_markdown(
            tx, rows[0].dialogue_id, owner_id=cast.reader, names=NAMES, leaf_id=again.id
        )
        assert cut.partition("\n\n")[2] == "## You\n\nq\n"
        with pytest.raises(NotFound):
            transfer.whole_dialogue(tx, rows[0].dialogue_id, owner_id=cast.private)
        with pytest.raises(NotFound):
            transfer.as_markdown(tx, rows[0].dialogue_id, owner_id=cast.private, names=NAMES)


def test_instructions_and_empty_answers_are_not_written_out(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        dialogue_id = dialogues.create_dialogue(tx, cast.reader).id
        parent = None
        for role, content in (("system", "Rhyme."), ("user", "q"), ("assistant", " ")):
            parent = dialogues.add_message(
                tx,
                dialogue_id,
                parent_id=parent,
                role=role,  # type: ignore[arg-type]
                content=content,
                author_kind="human",
            ).id
        written = transfer.as_markdown(tx, dialogue_id, owner_id=cast.reader, names=NAMES)
    assert written.partition("\n\n")[2] == "## You\n\nq\n"


def test_ones_own_are_those_that_can_still_be_read(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    first, second, _ = (chat(name, "q", "a")[0] for name in (cast.reader, cast.reader, cast.private))
    third = chat(cast.reader, "q", "a")[0]
    with store.write() as tx:
        bin.bin_dialogue(tx, second.dialogue_id, owner_id=cast.reader)
        assert transfer.own_ids(tx, cast.reader) == [first.dialogue_id, third.dialogue_id]


def test_judgements_are_ones_own(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    for name in (cast.reader, cast.private):
        question, answer = chat(name, "q", "a")
        with store.write() as tx:
            second = dialogues.add_message(
                tx,
                question.dialogue_id,
                parent_id=question.id,
                role="assistant",
                content="b",
                author_kind="model",
            )
            feedback.rate(tx, message_id=answer.id, rater_id=name, verdict="down", note=name)
            picks.pick(tx, first_id=answer.id, second_id=second.id, rater_id=name, verdict="second")
            reports.report(tx, message_id=answer.id, reporter_id=name, kind="missed", note=name)
            labelling.save_demonstration(tx, author_id=name, messages=[], status="draft")
    with store.read() as tx:
        found = transfer.judgements(tx, cast.private)
    assert {kind: len(rows) for kind, rows in found.items()} == {
        "ratings": 1,
        "picks": 1,
        "reports": 1,
        "demonstrations": 1,
        "campaign_entries": 0,
    }
    assert found["ratings"][0]["note"] == found["reports"][0]["note"] == cast.private
    assert found["picks"][0]["first_id"] == found["ratings"][0]["message_id"]


def test_a_conversation_comes_in_once_for_each_person(store: Store, cast: SimpleNamespace) -> None:
    turns: list[Turn] = [(None, "user", "q", None), (0, "assistant", "a", "gpt"), (0, "assistant", "b", None)]

    def bring(owner_id: str, key: str = "", turns: list[Turn] = turns, title: str = "Old") -> str | None:
        with store.write() as tx:
            made = transfer.import_tree(
                tx, owner_id, key=key, title=title, turns=turns, created=OLD, source="chatgpt"
            )
            return made and made.id

    made = bring(cast.reader, title="x" * 1000)
    assert made is not None
    assert bring(cast.reader) is None
    assert bring(cast.private) is not None
    assert bring(cast.reader, turns=turns[:2]) is not None
    assert bring(cast.reader, key="c1") is not None
    assert bring(cast.reader, key="c1", turns=turns[:2]) is None
    with pytest.raises(NotFound):
        bring("nobody")
    with store.read() as tx:
        row = dialogues.get_dialogue(tx, made, owner_id=cast.reader)
        assert (row.created, len(row.title) < 1000) == (OLD, True)
        messages = [each for each, _ in dialogues.thread(tx, made)]
        assert [(each.author_kind, each.author_id, each.provenance, each.created) for each in messages] == [
            ("imported", cast.reader, None, OLD),
            ("imported", None, None, OLD),
        ]

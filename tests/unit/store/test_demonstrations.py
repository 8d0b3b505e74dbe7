from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, labelling
from tutelage.store.labelling import Brief
from tutelage.store.tables import Message

QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a", "provenance": {"kind": "edited", "seconds": 12}}


def test_a_draft_grows_until_it_is_handed_in(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        draft = labelling.save_demonstration(tx, author_id=cast.trainer, messages=[], status="draft")
        save: dict[str, Any] = {"author_id": cast.trainer, "demonstration_id": draft.id}
        labelling.save_demonstration(tx, messages=[QUESTION], status="draft", **save)
        assert [row.id for row in labelling.drafts(tx, cast.trainer)] == [draft.id]
        assert labelling.drafts(tx, cast.second) == []
        done = labelling.save_demonstration(tx, messages=[QUESTION, ANSWER], status="submitted", **save)
        assert (done.id, done.status, done.consent) == (draft.id, "submitted", True)
        assert done.messages[1] == ANSWER
        assert done.messages[0] == QUESTION | {"provenance": None}
        assert labelling.drafts(tx, cast.trainer) == []


def test_what_is_handed_in_twice_is_one_dialogue(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        save: dict[str, Any] = {"author_id": cast.operator, "status": "accepted"}
        first = labelling.save_demonstration(tx, messages=[QUESTION, ANSWER], **save)
        again = labelling.save_demonstration(
            tx, messages=[QUESTION, ANSWER], demonstration_id=first.id, **save
        )
        assert again.id == first.id
        changed = [QUESTION, ANSWER | {"content": "b"}]
        with pytest.raises(Conflict):
            labelling.save_demonstration(tx, messages=changed, demonstration_id=first.id, **save)
        assert len(labelling.list_demonstrations(tx)) == 1


def test_flagged_ones_come_first(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        rows = [
            labelling.save_demonstration(
                tx,
                author_id=cast.trainer,
                messages=[QUESTION, ANSWER],
                status="submitted",
                brief=Brief(flag=flag),
            ).id
            for flag in ("", "look", "", "look, too", "")
        ]
        listed = [row.id for row in labelling.list_demonstrations(tx, status="submitted")]
    assert listed == [rows[3], rows[1], rows[4], rows[2], rows[0]]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [QUESTION],
        [ANSWER],
        [QUESTION, QUESTION, ANSWER],
        [QUESTION, {"role": "assistant", "content": "  "}],
        [{"role": "robot", "content": "x"}],
        [{"content": "x"}],
        [QUESTION, {"role": "assistant", "content": None}],
    ],
)
def test_what_is_no_dialogue_cannot_be_handed_in(
    store: Store, cast: SimpleNamespace, messages: list[dict[str, Any]]
) -> None:
    with store.write() as tx, pytest.raises(InvalidRequest):
        labelling.save_demonstration(tx, author_id=cast.trainer, messages=messages, status="submitted")


def test_a_demonstration_is_its_authors(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        row = labelling.save_demonstration(tx, author_id=cast.trainer, messages=[QUESTION], status="draft")
        mine: dict[str, Any] = {"demonstration_id": row.id, "author_id": cast.second}
        with pytest.raises(NotFound):
            labelling.save_demonstration(tx, messages=[], status="draft", **mine)
        with pytest.raises(NotFound):
            labelling.get_demonstration(tx, row.id, author_id=cast.second)
        with pytest.raises(NotFound):
            labelling.delete_draft(tx, row.id, author_id=cast.second)
        labelling.delete_draft(tx, row.id, author_id=cast.trainer)
        assert labelling.drafts(tx, cast.trainer) == []


def test_review(store: Store, cast: SimpleNamespace) -> None:
    both = [QUESTION, ANSWER]
    with store.write() as tx:
        row = labelling.save_demonstration(tx, author_id=cast.trainer, messages=both, status="draft")
        save: dict[str, Any] = {"author_id": cast.trainer, "messages": both, "demonstration_id": row.id}
        review: dict[str, Any] = {"by": cast.second}
        with pytest.raises(Conflict):
            labelling.review_demonstration(tx, row.id, decision="accepted", **review)
        labelling.save_demonstration(tx, status="submitted", **save)
        with pytest.raises(Conflict):
            labelling.delete_draft(tx, row.id, author_id=cast.trainer)
        labelling.review_demonstration(tx, row.id, decision="sent_back", note="too short", **review)
        [again] = labelling.drafts(tx, cast.trainer)
        assert (again.review_note, again.reviewer_id) == ("too short", cast.second)
        labelling.save_demonstration(tx, status="submitted", **save)
        assert [found.id for found in labelling.list_demonstrations(tx, status="submitted")] == [row.id]
        labelling.review_demonstration(tx, row.id, decision="accepted", **review)
        with pytest.raises(Conflict):
            labelling.save_demonstration(tx, status="draft", **save)
        wrong: Any = "maybe"
        with pytest.raises(InvalidRequest):
            labelling.review_demonstration(tx, row.id, decision=wrong, **review)
        with pytest.raises(InvalidRequest):
            labelling.list_demonstrations(tx, status=wrong)
        with pytest.raises(InvalidRequest):
            labelling.save_demonstration(tx, author_id=cast.trainer, messages=both, status=wrong)
        with pytest.raises(NotFound):
            labelling.review_demonstration(tx, "none", decision="accepted", **review)


def test_a_better_ending_hangs_on_the_message_it_improves(
    store: Store, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    message = chat(cast.reader, "q", "a")[1]
    save: dict[str, Any] = {"author_id": cast.trainer, "messages": [QUESTION, ANSWER], "status": "submitted"}
    with store.write() as tx:
        row = labelling.save_demonstration(tx, message_id=message.id, **save)
        assert row.message_id == message.id
        assert labelling.save_demonstration(tx, demonstration_id=row.id, **save).message_id == message.id
        with pytest.raises(NotFound):
            labelling.save_demonstration(tx, message_id="none", **save)


def test_a_reviewer_changes_words_and_the_authors_are_kept(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        row = labelling.save_demonstration(
            tx, author_id=cast.trainer, messages=[QUESTION, ANSWER], status="submitted"
        )
        as_written = row.messages

        def review(*texts: str) -> list[dict[str, Any]]:
            return labelling.review_demonstration(
                tx, row.id, decision="accepted", by=cast.second, texts=texts
            ).messages

        assert review(" q ", "a") == as_written
        assert row.handed_in is None
        for wrong in (["q"], ["q", "a", "more"], ["q", " "]):
            with pytest.raises(InvalidRequest):
                review(*wrong)
        assert review("q", " a, better ") == [
            as_written[0],
            {
                "role": "assistant",
                "content": "a, better",
                "provenance": ANSWER["provenance"] | {"reviewed": True},  # type: ignore[operator]
            },
        ]
        review("q, too", "a, better")
        assert row.handed_in == as_written

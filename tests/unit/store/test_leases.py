"""Who holds a task: one place each, for a while, and what frees it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, NotFound
from tutelage.store import Store, accounts, bin, dialogues, labelling
from tutelage.store.ids import now
from tutelage.store.tables import Candidate, LabellingTask, Lease, Message, Ranking, User

Chat = Callable[..., list[Message]]
GONE = timedelta(seconds=-1)


def test_a_held_task_comes_back_instead_of_a_second_one(desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    for _ in range(3):
        chat(cast.reader, "q", "a")
    first = desk.must_take(cast.trainer, lease=timedelta(seconds=5))
    assert first.expires <= now() + timedelta(seconds=5)
    again = desk.must_take(cast.trainer, seed=9)
    assert again.id == first.id
    assert again.expires > first.expires


def test_a_task_nobody_holds_any_more_goes_to_others_only(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    assert desk.take(cast.second) is None
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    assert desk.take(cast.trainer) is None
    other = desk.must_take(cast.second)
    assert other.id == task.id
    assert [row.id for row in other.candidates] == [row.id for row in task.candidates]
    with pytest.raises(Conflict):
        desk.submit(task, cast.trainer)
    desk.submit(other, cast.second)
    with pytest.raises(Conflict):
        desk.submit(task, cast.trainer)


def test_work_handed_in_late_counts_while_nobody_took_the_place(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    desk.submit(task, cast.trainer)
    assert desk.take(cast.second) is None


def test_a_skipped_task_is_not_given_to_the_same_person_again(
    desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    desk.skip(task, cast.trainer)
    desk.skip(task, cast.trainer)
    assert desk.take(cast.trainer) is None
    with pytest.raises(Conflict):
        desk.submit(task, cast.trainer)
    assert desk.must_take(cast.second).id == task.id
    with pytest.raises(NotFound):
        desk.skip(task, cast.operator)
    desk.submit(task, cast.second)
    with pytest.raises(Conflict):
        desk.skip(task, cast.second)


def test_as_many_people_rank_a_task_as_wanted(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    first = desk.fill(desk.must_take(cast.trainer, overlap=2), cast.trainer)
    desk.submit(first, cast.trainer)
    with pytest.raises(Conflict, match="ranked this task already"):
        desk.submit(first, cast.trainer)
    second = desk.must_take(cast.second)
    assert second.id == first.id
    assert desk.take(cast.operator) is None
    desk.submit(second, cast.second)
    with store.read() as tx:
        assert [row.task_id for row in labelling.rankings_by(tx, cast.trainer)] == [first.id]
        assert [row.task_id for row in labelling.rankings_by(tx, cast.second)] == [first.id]


def test_strangers_to_a_task_cannot_touch_it(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    with store.write() as tx:
        with pytest.raises(NotFound):
            labelling.ranking_task(tx, task.id, cast.second)
        with pytest.raises(NotFound):
            labelling.set_candidates(tx, task.id, cast.second, [{"content": "b"}])
    with pytest.raises(NotFound):
        desk.submit(task, cast.second)
    with store.read() as tx:
        assert labelling.ranking_task(tx, task.id, cast.trainer).id == task.id
        assert tx.scalar(select(func.count()).select_from(Candidate)) == 3


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.integers(1, 6), people=st.integers(2, 6), overlap=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_many_at_once_never_share_a_place_or_see_a_task_twice(
    make_store: Callable[[], Store],
    desk_of: Callable[[Store], Any],
    messages: int,
    people: int,
    overlap: int,
    seed: int,
) -> None:
    store = make_store()
    other = Store.open(store.place)  # as another process would: the two know nothing of each other
    with store.write() as tx:
        owner = accounts.create_guest(tx, consent=True).id
        annotators = [accounts.create_guest(tx).id for _ in range(people)]
        for _ in range(messages):
            dialogue_id = dialogues.create_dialogue(tx, owner).id
            question = dialogues.add_message(
                tx, dialogue_id, parent_id=None, role="user", content="q", author_kind="human"
            )
            row = dialogues.start_answer(
                tx, dialogue_id, parent_id=question.id, model_version="v1", sampling={}
            )
            dialogues.finish_answer(tx, row.id, content="a", status="complete", finish_reason="stop")
    given_out: list[tuple[str, str]] = []
    crowded: list[str] = []

    def work(desk: Any, annotator_id: str, rng: random.Random) -> None:
        while True:
            with desk.store.write() as tx:
                task = labelling.next_ranking_task(
                    tx, annotator_id=annotator_id, k=3, rng=rng, overlap=overlap
                )
                if task is None:
                    return
                given_out.append((task.id, annotator_id))
                taken = select(func.count()).where(Lease.task_id == task.id, Lease.status != "released")
                if (tx.scalar(taken) or 0) > overlap:
                    crowded.append(task.id)
            desk.fill(task, annotator_id)
            with desk.store.read() as tx:
                filled = labelling.ranking_task(tx, task.id, annotator_id)
            if rng.random() < 0.3:
                desk.skip(task, annotator_id)
            else:
                desk.submit(filled, annotator_id)

    desks = [desk_of((store, other)[number % 2]) for number in range(people)]
    generators = [random.Random(seed + number) for number in range(people)]
    with ThreadPoolExecutor(people) as pool:
        list(pool.map(work, desks, annotators, generators))
    other.close()
    assert crowded == []
    assert len(set(given_out)) == len(given_out)
    with store.read() as tx:
        done = Counter(tx.scalars(select(Ranking.task_id)))
    assert all(count <= overlap for count in done.values())
    assert len(done) <= messages


def test_fifty_at_once_each_get_a_place_of_their_own(store: Store, desk: Any) -> None:
    with store.write() as tx:
        owner = accounts.create_guest(tx, consent=True).id
        annotators = [accounts.create_guest(tx).id for _ in range(50)]
        for _ in range(20):
            row = dialogues.create_dialogue(tx, owner)
            asked = dialogues.add_message(
                tx, row.id, parent_id=None, role="user", content="q", author_kind="human"
            )
            dialogues.add_message(
                tx, row.id, parent_id=asked.id, role="assistant", content="a", author_kind="model"
            )
    start = threading.Barrier(50)

    def claim(annotator_id: str, seed: int) -> str | None:
        start.wait()
        task = desk.take(annotator_id, seed=seed, overlap=2)
        return None if task is None else task.id

    with ThreadPoolExecutor(50) as pool:
        taken = list(pool.map(claim, annotators, range(50)))
    assert sorted(Counter(filter(None, taken)).values()) == [2] * 20
    assert taken.count(None) == 10


def test_gold_is_given_to_everybody_once_and_only_by_its_share(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    order = [[candidate.id] for candidate in task.candidates][::-1]
    desk.submit(task, cast.trainer)
    with store.write() as tx:
        labelling.adjudicate(tx, task.id, by=cast.operator, groups=order, gold=True)
    assert desk.take(cast.second, gold_share=0.0) is None
    given = desk.must_take(cast.second, gold_share=1.0)
    assert given.id == task.id
    desk.submit(given, cast.second)
    with store.read() as tx:
        assert tx.get_one(LabellingTask, task.id).remaining == 0
    assert desk.take(cast.second, gold_share=1.0) is None
    assert desk.take(cast.trainer, gold_share=1.0) is None


def test_an_annotator_who_leaves_in_the_middle_frees_the_place_and_leaves_what_was_sent(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer, overlap=2), cast.trainer)
    desk.submit(task, cast.trainer)
    desk.must_take(cast.second)
    with store.write() as tx:
        for name in (cast.trainer, cast.second):
            tx.delete(tx.get_one(User, name))
    with pytest.raises(NotFound):
        desk.submit(task, cast.second)
    again = desk.must_take(cast.operator)
    assert again.id == task.id
    desk.submit(again, cast.operator)
    with store.read() as tx:
        assert sorted(row.annotator_id or "" for row in tx.scalars(select(Ranking))) == ["", cast.operator]


def test_who_stops_being_a_trainer_frees_the_place_at_once_and_leaves_what_was_sent(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer, overlap=2), cast.trainer)
    desk.submit(task, cast.trainer)
    desk.must_take(cast.second)
    assert desk.take(cast.operator) is None
    with store.write() as tx:
        accounts.set_role(tx, cast.second, "operator")
    assert desk.take(cast.operator) is None
    with store.write() as tx:
        for name in (cast.trainer, cast.second):
            accounts.set_role(tx, name, "user")
    with pytest.raises(Conflict):
        desk.submit(task, cast.second)
    assert desk.must_take(cast.operator).id == task.id
    with store.read() as tx:
        assert [row.annotator_id for row in tx.scalars(select(Ranking))] == [cast.trainer]


def test_a_lease_that_ran_out_is_stolen_and_cannot_be_used_any_more(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    assert desk.must_take(cast.second).id == task.id
    for act in (desk.submit, desk.fill):
        with pytest.raises(Conflict):
            act(task, cast.trainer)


def test_a_conversation_whose_owner_takes_it_back_leaves_the_hands_of_who_ranks_it(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    """By withdrawing consent or by deleting the chat: it is neither read, held, ranked nor written on any more."""
    rows = chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    take_back: list[Callable[[Session], object]] = [
        lambda tx: accounts.set_consent(tx, cast.reader, False),
        lambda tx: bin.bin_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader),
    ]
    for act in take_back:
        with store.write() as tx:
            act(tx)
        with store.write() as tx:
            for touch in (labelling.ranking_task, labelling.renew_lease):
                with pytest.raises(Conflict):
                    touch(tx, task.id, cast.trainer)
            with pytest.raises(Conflict):
                labelling.fix_candidate(
                    tx,
                    task_id=task.id,
                    annotator_id=cast.trainer,
                    candidate_id=task.candidates[0].id,
                    content="new",
                )
        with pytest.raises(Conflict):
            desk.submit(task, cast.trainer)
        assert desk.take(cast.trainer) is None
        with store.write() as tx:
            accounts.set_consent(tx, cast.reader, True)
    with store.write() as tx:
        bin.restore_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
    desk.submit(task, cast.trainer)
    with store.write() as tx:
        dialogues.delete_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
    with pytest.raises(NotFound):
        desk.submit(task, cast.trainer)


def test_a_flagged_task_is_shown_to_operators(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.must_take(cast.trainer)
    with store.write() as tx:
        labelling.release(tx, task.id, cast.trainer, reason="names a real person", flagged=True)
        [row] = labelling.flagged_tasks(tx)
    assert (row.task_id, row.reason) == (task.id, "names a real person")

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, accounts, bin, dialogues, export, labelling
from tutelage.store.ids import now
from tutelage.store.labelling import LabellingSettings, RankingTask
from tutelage.store.labelling.draws import dialogues_from
from tutelage.store.tables import Candidate, Dialogue, Lease, Message, Ranking, User

Chat = Callable[..., list[Message]]
SAMPLES = [{"content": "b", "model_version": "v2", "sampling": {"seed": 1}}, {"content": "c"}]
GONE = timedelta(seconds=-1)


def take(store: Store, annotator_id: str, *, seed: int = 0, k: int = 3, **rest: Any) -> RankingTask | None:
    with store.write() as tx:
        rng = random.Random(seed)
        return labelling.next_ranking_task(tx, annotator_id=annotator_id, k=k, rng=rng, **rest)


def must_take(store: Store, annotator_id: str, **rest: Any) -> RankingTask:
    task = take(store, annotator_id, **rest)
    assert task is not None
    return task


def fill(store: Store, task: RankingTask, annotator_id: str) -> RankingTask:
    with store.write() as tx:
        return labelling.set_candidates(tx, task.id, annotator_id, SAMPLES, rng=random.Random(0))


def submit(store: Store, task: RankingTask, annotator_id: str, **rest: Any) -> Ranking:
    rest.setdefault("groups", [[candidate.id] for candidate in task.candidates])
    with store.write() as tx:
        return labelling.submit_ranking(tx, task_id=task.id, annotator_id=annotator_id, **rest)


def skip(store: Store, task: RankingTask, annotator_id: str) -> None:
    with store.write() as tx:
        labelling.release(tx, task.id, annotator_id, reason="unclear")


def test_a_task_is_an_answer_with_the_conversation_before_it(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q1", "a1", "q2", "a2")
    task = must_take(store, cast.trainer)
    position = [row.id for row in rows].index(task.message.id)
    assert task.message.role == "assistant"
    assert [row.id for row in task.prompt] == [row.id for row in rows[:position]]
    assert task.candidates == ()
    assert timedelta(minutes=14) < task.expires - now() <= timedelta(minutes=15)


def test_candidates_are_the_samples_and_the_answer_in_an_order_that_stays(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    assert sorted(candidate.content for candidate in task.candidates) == ["a", "b", "c"]
    by_content = {candidate.content: candidate for candidate in task.candidates}
    assert [by_content[text].original for text in "abc"] == [True, False, False]
    assert (by_content["a"].model_version, by_content["a"].sampling) == ("v1", {"temperature": 1.0})
    assert (by_content["b"].model_version, by_content["b"].sampling) == ("v2", {"seed": 1})
    again = fill(store, task, cast.trainer)
    assert [row.id for row in again.candidates] == [row.id for row in task.candidates]


def test_the_order_is_shuffled(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    positions = set()
    for seed in range(12):
        chat(cast.reader, "q", "a")
        task = must_take(store, cast.trainer, seed=seed)
        with store.write() as tx:
            filled = labelling.set_candidates(tx, task.id, cast.trainer, SAMPLES, rng=random.Random(seed))
        positions.add([candidate.original for candidate in filled.candidates].index(True))
        submit(store, filled, cast.trainer)
    assert positions == {0, 1, 2}


def test_dialogues_are_drawn_before_messages(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    long = chat(cast.reader, *(["q", "a"] * 30))
    for _ in range(9):
        chat(cast.reader, "q", "a")
    drawn = Counter()
    for seed in range(20):
        with store.read() as tx:  # so that nothing of it stays
            task = labelling.next_ranking_task(tx, annotator_id=cast.trainer, k=3, rng=random.Random(seed))
            drawn[task is not None and task.dialogue_id == long[0].dialogue_id] += 1
    assert drawn[True] < 10


@pytest.mark.parametrize("status", ["interrupted", "blocked"])
def test_only_whole_answers_after_whole_conversations(
    store: Store, cast: SimpleNamespace, chat: Chat, status: str
) -> None:
    chat(cast.reader, "q", "a", "q", "a", status=status)
    rows = chat(cast.reader, "q")
    with store.write() as tx:
        dialogues.start_answer(tx, rows[0].dialogue_id, parent_id=rows[0].id, model_version="v1", sampling={})
        blocked = dialogues.create_dialogue(tx, cast.reader).id
        question = dialogues.add_message(
            tx,
            blocked,
            parent_id=None,
            role="user",
            content="q",
            author_kind="human",
            status="blocked",
        )
        row = dialogues.start_answer(tx, blocked, parent_id=question.id, model_version="v1", sampling={})
        dialogues.finish_answer(tx, row.id, content="a", status="complete", finish_reason="stop")
    assert take(store, cast.trainer) is None


def test_only_what_may_be_used(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.private, "q", "a")
    chat(cast.reader, "q", "a", temporary=True)
    assert take(store, cast.trainer) is None
    with store.write() as tx:
        accounts.set_consent(tx, cast.private, True)
    task = must_take(store, cast.trainer)
    with store.write() as tx:
        accounts.set_consent(tx, cast.private, False)
    assert take(store, cast.trainer) is None
    with store.write() as tx:
        dialogues.delete_dialogue(tx, task.dialogue_id, owner_id=cast.private)
    with store.write() as tx, pytest.raises(NotFound):
        labelling.renew_lease(tx, task.id, cast.trainer)


def test_nobody_ranks_answers_to_their_own_words_unless_alone(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    with store.write() as tx:
        accounts.set_consent(tx, cast.trainer, True)
    chat(cast.trainer, "q", "a")
    assert take(store, cast.trainer) is None
    assert take(store, cast.trainer, own_writing=True) is not None
    skip(store, must_take(store, cast.trainer), cast.trainer)
    assert take(store, cast.trainer, own_writing=True) is None
    assert take(store, cast.second) is not None


def test_nobody_ranks_answers_to_what_they_wrote_in_anothers_dialogue(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    with store.write() as tx:
        tx.get_one(Message, rows[0].id).author_id = cast.trainer
    assert take(store, cast.trainer) is None


def test_a_held_task_comes_back_instead_of_a_second_one(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    for _ in range(3):
        chat(cast.reader, "q", "a")
    first = must_take(store, cast.trainer, lease=timedelta(seconds=5))
    again = must_take(store, cast.trainer, seed=9)
    assert again.id == first.id
    assert again.expires > first.expires


def test_a_task_nobody_holds_any_more_goes_to_others_only(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    assert take(store, cast.second) is None
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    assert take(store, cast.trainer) is None
    other = must_take(store, cast.second)
    assert other.id == task.id
    assert [row.id for row in other.candidates] == [row.id for row in task.candidates]
    with pytest.raises(Conflict):
        submit(store, task, cast.trainer)
    submit(store, other, cast.second)
    with pytest.raises(Conflict):
        submit(store, task, cast.trainer)


def test_work_handed_in_late_counts_while_nobody_took_the_place(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    submit(store, task, cast.trainer)
    assert take(store, cast.second) is None


def test_a_skipped_task_is_not_given_to_the_same_person_again(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    skip(store, task, cast.trainer)
    skip(store, task, cast.trainer)
    assert take(store, cast.trainer) is None
    with pytest.raises(Conflict):
        submit(store, task, cast.trainer)
    assert must_take(store, cast.second).id == task.id
    with pytest.raises(NotFound):
        skip(store, task, cast.operator)


def test_as_many_people_rank_a_task_as_wanted(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    first = fill(store, must_take(store, cast.trainer, overlap=2), cast.trainer)
    submit(store, first, cast.trainer)
    second = must_take(store, cast.second)
    assert second.id == first.id
    assert take(store, cast.operator) is None
    submit(store, second, cast.second)
    with store.read() as tx:
        assert labelling.count_rankings(tx) == 2
        assert [row.task_id for row in labelling.rankings_by(tx, cast.second)] == [first.id]


def test_a_ranking_keeps_ties_and_what_could_not_be_ranked(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    one, two, three = (candidate.id for candidate in task.candidates)
    row = submit(store, task, cast.trainer, groups=[[], [two, one]], unrankable=[three], note="close")
    with store.read() as tx:
        stored = tx.get_one(Ranking, row.id)
        assert (stored.groups, stored.unrankable) == ([[two, one]], [three])
        assert (stored.all_bad, stored.note, stored.annotator_id) == (False, "close", cast.trainer)
    with pytest.raises(Conflict):
        submit(store, task, cast.trainer)


def test_all_bad_needs_no_order(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    row = submit(store, task, cast.trainer, groups=[], all_bad=True)
    assert sorted(row.unrankable) == sorted(candidate.id for candidate in task.candidates)


@pytest.mark.parametrize("wrong", ["unknown", "twice", "missing", "both", "none"])
def test_orders_that_are_not_orders(store: Store, cast: SimpleNamespace, chat: Chat, wrong: str) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    ids = [candidate.id for candidate in task.candidates]
    groups, unrankable = {
        "unknown": ([ids, ["x"]], []),
        "twice": ([ids, ids[:1]], []),
        "missing": ([ids[1:]], []),
        "both": ([ids], ids[:1]),
        "none": ([], ids),
    }[wrong]
    with pytest.raises(InvalidRequest):
        submit(store, task, cast.trainer, groups=groups, unrankable=unrankable)
    submit(store, task, cast.trainer)


def test_a_task_without_candidates_cannot_be_ranked(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    task = must_take(store, cast.trainer)
    with pytest.raises(InvalidRequest):
        submit(store, task, cast.trainer, groups=[["x"]])
    with store.write() as tx, pytest.raises(InvalidRequest):
        labelling.set_candidates(tx, task.id, cast.trainer, [])
    with pytest.raises(InvalidRequest):
        take(store, cast.trainer, k=1)


def test_strangers_to_a_task_cannot_touch_it(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    with store.write() as tx:
        with pytest.raises(NotFound):
            labelling.ranking_task(tx, task.id, cast.second)
        with pytest.raises(NotFound):
            labelling.set_candidates(tx, task.id, cast.second, SAMPLES)
    with pytest.raises(NotFound):
        submit(store, task, cast.second)
    with store.read() as tx:
        assert labelling.ranking_task(tx, task.id, cast.trainer).id == task.id
        assert tx.scalar(select(func.count()).select_from(Candidate)) == 3


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.integers(1, 6), people=st.integers(2, 6), overlap=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_many_at_once_never_share_a_place_or_see_a_task_twice(
    make_store: Callable[[], Store], messages: int, people: int, overlap: int, seed: int
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

    def work(store: Store, annotator_id: str, rng: random.Random) -> None:
        while True:
            with store.write() as tx:
                task = labelling.next_ranking_task(
                    tx, annotator_id=annotator_id, k=3, rng=rng, overlap=overlap
                )
                if task is None:
                    return
                given_out.append((task.id, annotator_id))
                taken = select(func.count()).where(Lease.task_id == task.id, Lease.status != "released")
                if (tx.scalar(taken) or 0) > overlap:
                    crowded.append(task.id)
            fill(store, task, annotator_id)
            with store.read() as tx:
                filled = labelling.ranking_task(tx, task.id, annotator_id)
            if rng.random() < 0.3:
                skip(store, task, annotator_id)
            else:
                submit(store, filled, annotator_id)

    threads = [
        threading.Thread(
            target=work, args=((store, other)[number % 2], annotator_id, random.Random(seed + number))
        )
        for number, annotator_id in enumerate(annotators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert crowded == []
    assert len(set(given_out)) == len(given_out)
    with store.read() as tx:
        done = Counter(tx.scalars(select(Ranking.task_id)))
    assert all(count <= overlap for count in done.values())
    assert len(done) <= messages


@pytest.mark.sqlite
def test_a_task_is_found_along_an_index_whatever_there_is_beside_it(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    query = dialogues_from(cast.trainer, Dialogue.lot >= 5, own_writing=False)
    with store.read() as tx:
        sql = str(query.compile(tx.get_bind(), compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in tx.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
    assert "ix_dialogues_origin_consent_temporary_lot" in plan[0]
    assert any("ix_messages_dialogue_id_id" in step for step in plan)
    assert not any("SCAN" in step or "B-TREE" in step for step in plan)


def test_fifty_at_once_each_get_a_place_of_their_own(make_store: Callable[[], Store]) -> None:
    store = make_store()
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
    taken: list[tuple[str, str] | None] = []

    def claim(annotator_id: str, seed: int) -> None:
        start.wait()
        task = take(store, annotator_id, seed=seed, overlap=2)
        taken.append(None if task is None else (task.id, annotator_id))

    threads = [threading.Thread(target=claim, args=(name, seed)) for seed, name in enumerate(annotators)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places = Counter(task for task, _ in filter(None, taken))
    assert sorted(places.values()) == [2] * 20
    assert taken.count(None) == 10


def test_gold_is_given_to_everybody_once_and_only_by_its_share(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    order = [[candidate.id] for candidate in task.candidates][::-1]
    submit(store, task, cast.trainer)
    with store.write() as tx:
        labelling.adjudicate(tx, task.id, by=cast.operator, groups=order, gold=True)
    assert take(store, cast.second, gold_share=0.0) is None
    given = must_take(store, cast.second, gold_share=1.0)
    assert given.id == task.id
    submit(store, given, cast.second)
    assert take(store, cast.second, gold_share=1.0) is None
    assert take(store, cast.trainer, gold_share=1.0) is None


def test_the_order_as_it_came_is_noted(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    for moved in (False, True):
        chat(cast.reader, "q", "a")
        task = fill(store, must_take(store, cast.trainer), cast.trainer)
        ids = [candidate.id for candidate in task.candidates]
        row = submit(store, task, cast.trainer, groups=[[each] for each in (ids[::-1] if moved else ids)])
        assert row.as_it_came is not moved


def test_a_fixed_candidate_becomes_a_demonstration_of_that_conversation(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    worst = next(each for each in task.candidates if each.content == "b")
    with store.write() as tx:
        row = labelling.fix_candidate(
            tx, task_id=task.id, annotator_id=cast.trainer, candidate_id=worst.id, content="a better b "
        )
    assert [message["content"] for message in row.messages] == ["q", "a better b"]
    kept = row.messages[-1]["provenance"]
    assert (kept["kind"], kept["taken"], kept["model_version"]) == ("edited", "b", "v2")
    assert (row.status, row.message_id) == ("submitted", rows[1].id)
    with store.write() as tx:
        for wrong in ({"candidate_id": "x", "content": "y"}, {"candidate_id": worst.id, "content": " b"}):
            with pytest.raises(InvalidRequest):
                labelling.fix_candidate(tx, task_id=task.id, annotator_id=cast.trainer, **wrong)
        with pytest.raises(NotFound):
            labelling.fix_candidate(
                tx, task_id=task.id, annotator_id=cast.second, candidate_id=worst.id, content="y"
            )


def test_an_annotator_who_leaves_in_the_middle_frees_the_place_and_leaves_what_was_sent(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer, overlap=2), cast.trainer)
    submit(store, task, cast.trainer)
    must_take(store, cast.second)
    with store.write() as tx:
        for name in (cast.trainer, cast.second):
            tx.delete(tx.get_one(User, name))
    with pytest.raises(NotFound):
        submit(store, task, cast.second)
    again = must_take(store, cast.operator)
    assert again.id == task.id
    submit(store, again, cast.operator)
    with store.read() as tx:
        assert sorted(row.annotator_id or "" for row in tx.scalars(select(Ranking))) == ["", cast.operator]


def test_who_stops_being_a_trainer_frees_the_place_at_once_and_leaves_what_was_sent(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer, overlap=2), cast.trainer)
    submit(store, task, cast.trainer)
    must_take(store, cast.second)
    assert take(store, cast.operator) is None
    with store.write() as tx:
        accounts.set_role(tx, cast.second, "operator")
    assert take(store, cast.operator) is None
    with store.write() as tx:
        for name in (cast.trainer, cast.second):
            accounts.set_role(tx, name, "user")
    with pytest.raises(Conflict):
        submit(store, task, cast.second)
    assert must_take(store, cast.operator).id == task.id
    with store.read() as tx:
        assert [row.annotator_id for row in tx.scalars(select(Ranking))] == [cast.trainer]


def test_a_lease_that_ran_out_is_stolen_and_cannot_be_used_any_more(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    with store.write() as tx:
        labelling.renew_lease(tx, task.id, cast.trainer, lease=GONE)
    assert must_take(store, cast.second).id == task.id
    for act in (submit, fill):
        with pytest.raises(Conflict):
            act(store, task, cast.trainer)


def test_a_conversation_whose_owner_takes_it_back_leaves_the_hands_of_who_ranks_it(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    """By withdrawing consent or by deleting the chat: it is neither read, held, ranked nor written on any more."""
    rows = chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
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
            submit(store, task, cast.trainer)
        assert take(store, cast.trainer) is None
        with store.write() as tx:
            accounts.set_consent(tx, cast.reader, True)
    with store.write() as tx:
        bin.restore_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
    submit(store, task, cast.trainer)
    with store.write() as tx:
        dialogues.delete_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
    with pytest.raises(NotFound):
        submit(store, task, cast.trainer)


def test_an_adjudication_is_the_only_ranking_of_its_task_that_is_learnt_from(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = fill(store, must_take(store, cast.trainer), cast.trainer)
    submit(store, task, cast.trainer)
    order = [[candidate.id] for candidate in task.candidates][::-1]
    with store.write() as tx:
        labelling.adjudicate(
            tx, task.id, by=cast.operator, groups=order[:1], unrankable=[name for [name] in order[1:]]
        )
        settled = labelling.adjudicate(tx, task.id, by=cast.operator, groups=order)
        with pytest.raises(NotFound):
            labelling.adjudicate(tx, "x", by=cast.operator, groups=order)
        with pytest.raises(InvalidRequest):
            labelling.adjudicate(tx, task.id, by=cast.operator, groups=order[1:])
    with store.read() as tx:
        [learnt] = export.comparisons(tx)
    assert learnt.id == settled.id
    assert learnt.preferences[0].better == len(order) - 1


def test_a_flagged_task_is_shown_to_operators(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    task = must_take(store, cast.trainer)
    with store.write() as tx:
        labelling.release(tx, task.id, cast.trainer, reason="names a real person", flagged=True)
        [row] = labelling.flagged_tasks(tx)
    assert (row.task_id, row.reason) == (task.id, "names a real person")


def test_settings_are_kept_and_checked(store: Store) -> None:
    with store.write() as tx:
        assert labelling.labelling_settings(tx) == LabellingSettings()
        wanted = LabellingSettings(candidates=6, overlap=3, gold_share=0.1, versions=("stable", "v2"))
        labelling.change_labelling_settings(tx, wanted)
        assert labelling.labelling_settings(tx) == wanted
        wrong: list[dict[str, Any]] = [
            {"candidates": 1},
            {"candidates": 10},
            {"overlap": 0},
            {"gold_share": 0.9},
            {"versions": ()},
            {"topics": {"free": 0.0}},
            {"topics": {"unknown": 1.0}},
        ]
        for fields in wrong:
            with pytest.raises(InvalidRequest):
                labelling.change_labelling_settings(tx, LabellingSettings(**fields))

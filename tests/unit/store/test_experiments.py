"""Two versions in the chat at once: who answers, and what is counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, experiments, feedback
from tutelage.store.tables import Experiment, Message

Chat = Callable[..., list[Message]]


@pytest.fixture
def running(store: Store, cast: SimpleNamespace) -> Experiment:
    with store.write() as tx:
        return experiments.start_experiment(tx, control="v1", treatment="v2", share=0.25, by=cast.operator)


def test_one_at_a_time_with_a_share_that_leaves_most_alone(
    store: Store, cast: SimpleNamespace, running: Experiment
) -> None:
    with store.write() as tx:
        with pytest.raises(Conflict):
            experiments.start_experiment(tx, control="v1", treatment="v3", share=0.1, by=cast.operator)
        experiments.end_experiment(tx, running.id, status="stopped", result={"winner": None})
        with pytest.raises(Conflict):
            experiments.end_experiment(tx, running.id, status="stopped", result={})
        with pytest.raises(NotFound):
            experiments.end_experiment(tx, "x", status="stopped", result={})
        for wrong in ({"share": 0.6}, {"share": 0.0}, {"treatment": "v1"}):
            fields = {"control": "v1", "treatment": "v2", "share": 0.1, "by": cast.operator} | wrong
            with pytest.raises(InvalidRequest):
                experiments.start_experiment(tx, **fields)


def test_new_conversations_are_drawn_and_old_ones_keep_their_version(running: Experiment) -> None:
    rng = random.Random(0)
    drawn = [experiments.version_for(running, [], rng) for _ in range(2000)]
    assert 0.2 < drawn.count("v2") / 2000 < 0.3
    assert drawn.count(None) == 2000 - drawn.count("v2")
    for version, expected in (("v1", None), ("v2", "v2"), ("v0", None)):
        before = [
            Message(role="user", author_kind="human"),
            Message(role="assistant", author_kind="model", model_version=version),
        ]
        assert {experiments.version_for(running, before, rng) for _ in range(50)} == {expected}
    assert experiments.version_for(None, [], rng) is None


def test_the_first_rating_of_each_conversation_counts_in_order(
    store: Store, cast: SimpleNamespace, chat: Chat, running: Experiment
) -> None:
    for version, verdicts in (("v2", ["up"]), ("v1", ["down", "up"]), ("v0", ["up"])):
        rows = chat(cast.reader, *(["q", "a"] * len(verdicts)))
        with store.write() as tx:
            for row, verdict in zip(rows[1::2], verdicts, strict=True):
                tx.execute(update(Message).where(Message.id == row.id).values(model_version=version))
                feedback.rate(tx, message_id=row.id, rater_id=cast.reader, verdict=verdict)  # type: ignore[arg-type]
    with store.read() as tx:
        assert list(experiments.observations(tx, running)) == [("treatment", True), ("control", False)]


def test_pairs_come_from_rankings(store: Store, desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    samples = [{"content": "b", "model_version": "v2"}, {"content": "c", "model_version": "v3"}]
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer, samples)
    by_version = {each.model_version: each.id for each in task.candidates}
    desk.submit(task, cast.trainer, groups=[[by_version["v2"]], [by_version["v1"], by_version["v3"]]])
    with store.read() as tx:
        found = {(one, other): score for one, other, score, _ in experiments.compared_pairs(tx)}
    assert found == {("v2", "v1"): 1.0, ("v2", "v3"): 1.0, ("v1", "v3"): 0.5}

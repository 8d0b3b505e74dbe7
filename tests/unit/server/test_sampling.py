"""Fresh answers to rank: from the versions in turn, none twice, and as long as one of them can answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import ModelError, NotFound
from tutelage.server.sampling import sample_candidates

Said = str | Exception | None


class Answers:
    """What each version says, one after the other: a text, an error, or nothing until it is given up."""

    def __init__(self, **said: Sequence[Said]) -> None:
        self.said = {version: list(texts) for version, texts in said.items()}
        self.asked: list[tuple[str, int]] = []
        self.given_up = 0

    async def candidates(self, version: str, messages: Any, k: int, *, seed: int) -> list[dict[str, Any]]:
        assert ([message.content for message in messages], k) == (["q"], 1)
        self.asked.append((version, seed))
        said = self.said[version].pop(0)
        if isinstance(said, Exception):
            raise said
        if said is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        return [{"content": said, "model_version": version}]


def sampled(answers: Answers, k: int) -> list[str]:
    """The answers to a task of `k` candidates whose given answer is `given`."""
    task: Any = SimpleNamespace(
        prompt=[SimpleNamespace(role="user", content="q")], message=SimpleNamespace(content="given "), k=k
    )

    async def run() -> list[str]:
        turns: Any = answers
        return [each["content"] async for each in sample_candidates(turns, task, [*answers.said])]

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_the_versions_answer_in_turn_each_with_a_seed_of_its_own() -> None:
    answers = Answers(v1=["a", "b"], v2=["c", "d"])
    assert len(sampled(answers, 4)) == 3
    assert Counter(version for version, _ in answers.asked) == {"v1": 2, "v2": 2}
    assert len({seed for _, seed in answers.asked}) == 4


def test_none_is_the_given_one_and_none_comes_twice() -> None:
    assert sampled(Answers(v1=["given", "one", " one ", "two"]), 4) == ["one", "two"]


def test_a_version_that_is_gone_or_broken_is_left_out_while_another_can_answer() -> None:
    answers = Answers(v1=["one", "two"], v2=[NotFound("gone"), ModelError("broken")])
    assert sorted(sampled(answers, 4)) == ["one", "two"]


def test_when_none_can_answer_it_is_told() -> None:
    with pytest.raises(NotFound, match="gone"):
        sampled(Answers(v1=["given"], v2=[NotFound("gone")]), 2)
    with pytest.raises(ZeroDivisionError):
        sampled(Answers(v1=[ZeroDivisionError(), None]), 2)


def test_who_leaves_gives_up_what_is_being_drawn() -> None:
    answers = Answers(v1=["one", None, None])
    task: Any = SimpleNamespace(
        prompt=[SimpleNamespace(role="user", content="q")], message=SimpleNamespace(content="given"), k=3
    )

    async def run() -> None:
        turns: Any = answers
        found: Any = sample_candidates(turns, task, ["v1"])
        assert (await anext(found))["content"] == "one"
        await found.aclose()
        await asyncio.sleep(0)
        assert answers.given_up == 2

    asyncio.run(run())

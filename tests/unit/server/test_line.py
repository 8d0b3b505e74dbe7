"""The line is fair by person, tells everybody where they stand, and forgets who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tutelage.server.line import AtCapacity, Line


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 5))  # type: ignore[arg-type]


class Someone:
    """A person whose answer takes as long as we say."""

    def __init__(self, line: Line, name: str, log: list[str]) -> None:
        self.places: list[int] = []
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._answer(line, name, log))

    async def _answer(self, line: Line, name: str, log: list[str]) -> None:
        async with line.place(name, self.places.append):
            log.append(name)
            await self.done.wait()

    async def end(self) -> None:
        self.done.set()
        await self.task
        await asyncio.sleep(0)


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_one_who_asks_often_does_not_keep_others_out() -> None:
    async def scenario() -> None:
        line, log = Line(places=1), list[str]()
        greedy = [Someone(line, "greedy", log) for _ in range(3)]
        await settled()
        modest = Someone(line, "modest", log)
        await settled()
        assert log == ["greedy"]
        assert (greedy[1].places, greedy[2].places, modest.places) == ([1, 2], [2, 3], [1])
        await greedy[0].end()
        await settled()
        assert log == ["greedy", "modest"]
        await modest.end()
        await settled()
        assert log == ["greedy", "modest", "greedy"]
        for each in greedy[1:]:
            each.done.set()
        await asyncio.gather(*(each.task for each in greedy))
        assert line.length == 0
        assert (line._held, line._turns) == ({}, {})

    run(scenario)


def test_as_many_answers_at_once_as_there_are_places() -> None:
    async def scenario() -> None:
        line, log = Line(places=2), list[str]()
        people = [Someone(line, str(number), log) for number in range(5)]
        await settled()
        assert log == ["0", "1"]
        line.places = 4
        assert not line.has_room(1)  # those who wait come first
        await people[0].end()
        await settled()
        assert log == ["0", "1", "2", "3", "4"]
        for each in people:
            each.done.set()
        await asyncio.gather(*(each.task for each in people))

    run(scenario)


def test_who_leaves_the_line_lets_the_others_move_up() -> None:
    async def scenario() -> None:
        line, log = Line(places=1), list[str]()
        first, second, third = (Someone(line, name, log) for name in "abc")
        await settled()
        second.task.cancel()
        await settled()
        assert third.places == [2, 1]
        await first.end()
        await settled()
        assert log == ["a", "c"]
        await third.end()

    run(scenario)


def test_a_full_line_takes_nobody() -> None:
    async def scenario() -> None:
        line, log = Line(places=1, longest=1), list[str]()
        people = [Someone(line, name, log) for name in "ab"]
        await settled()
        with pytest.raises(AtCapacity):
            line.check()
        await people[0].end()
        line.check()
        await people[1].end()

    run(scenario)

"""Turns as the pages use them in the same process: races, shutting down, suggestions, candidates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tutelage.dialogue import Message
from tutelage.engine.pool import EnginePool
from tutelage.errors import ContextTooLong, Denied, InvalidRequest, NotFound, RateLimited, Unavailable
from tutelage.moderation.gate import Gate
from tutelage.moderation.policy import Policy
from tutelage.server import writing
from tutelage.server.turn import ANSWERS_AT_ONCE, TurnEvent, Turns
from tutelage.store import accounts, dialogues
from tutelage.store.tables import User, UserRole

QUESTION = [Message("user", "Hi")]


def run(site: Any, scenario: Callable[[Turns], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        engines = EnginePool(site.registry, site.load)
        turns = Turns(site.store, engines, site.gate)
        try:
            return await scenario(turns)
        finally:
            await turns.close(grace=1)
            await engines.close()

    return asyncio.run(whole())


def person(site: Any, role: UserRole = "guest") -> User:
    with site.store.write() as tx:
        user: User = accounts.create_guest(tx)
        accounts.set_role(tx, user.id, role)
        return user


def test_one_key_sent_twice_at_once_is_one_turn(site: Any) -> None:
    user = person(site)
    check = site.gate.check

    def slowly(*args: Any, **more: Any) -> Any:
        time.sleep(0.2)
        return check(*args, **more)

    site.gate.check = slowly

    async def scenario(turns: Turns) -> None:
        first, second = await asyncio.gather(
            *(turns.send(user, text="Hi", idempotency_key="k") for _ in range(2))
        )
        assert first == second
        async for _ in turns.events(user, first.answer_id):
            pass

    run(site, scenario)
    assert len(site.engines["v1"].prompts) == 1
    with site.store.read() as tx:
        assert len(dialogues.list_dialogues(tx, user.id, limit=10)) == 1


def test_a_turn_that_was_begun_is_given_again_to_one_who_may_begin_no_other(site: Any) -> None:
    site.answers, site.delay = ["word " * 200], 0.05
    user = person(site)

    async def scenario(turns: Turns) -> None:
        begun = [await turns.send(user, text="Hi", idempotency_key=f"k{n}") for n in range(ANSWERS_AT_ONCE)]
        with pytest.raises(RateLimited):
            await turns.send(user, text="Hi", idempotency_key="another")
        assert await turns.send(user, text="Hi", idempotency_key="k1") == begun[1]
        for each in begun:
            await turns.stop(user, each.answer_id)

    run(site, scenario)


def test_an_answer_is_followed_and_stopped_through_another_server(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FLUSH_SECONDS", 0.05)
    site.answers, site.delay = ["word " * 500], 0.01
    user = person(site)

    async def read(turns: Turns, answer_id: str) -> list[TurnEvent]:
        return [event async for event in turns.events(user, answer_id)]

    async def scenario(here: Turns) -> None:
        there = Turns(site.store, EnginePool(site.registry, site.load), site.gate)
        answer = (await here.send(user, text="Hi")).answer_id
        readers = [asyncio.create_task(read(turns, answer)) for turns in (here, there)]
        while not (await there.answer(user, answer)).content:
            await asyncio.sleep(0.01)
        await there.stop(user, answer)
        for events in await asyncio.gather(*readers):
            assert [event.kind for event in events[-1:]] == ["done"]
            assert events[-1].data["status"] == "interrupted"
        kept = (await there.answer(user, answer)).content
        assert 0 < len(kept) < 2000
        await there.stop(user, answer)
        assert (await here.answer(user, answer)).content == kept

    run(site, scenario)


def test_nothing_begins_while_the_server_ends(site: Any) -> None:
    user = person(site)

    async def scenario(turns: Turns) -> None:
        await turns.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await turns.send(user, text="Hi")

    run(site, scenario)


def test_when_no_model_can_be_loaded_nothing_is_written(site: Any) -> None:
    user = person(site)
    site.load = lambda version: 1 / 0

    async def scenario(turns: Turns) -> None:
        with pytest.raises(Exception, match="cannot be loaded"):
            await turns.send(user, text="Hi")
        assert not turns._places, "what was not begun holds no place"

    run(site, scenario)
    with site.store.read() as tx:
        assert dialogues.list_dialogues(tx, user.id, limit=10) == []


def test_an_answer_of_somebody_else_does_not_exist(site: Any) -> None:
    owner, other = person(site), person(site, "operator")

    async def scenario(turns: Turns) -> None:
        started = await turns.send(owner, text="Hi")
        with pytest.raises(NotFound):
            await anext(turns.events(other, started.answer_id))
        with pytest.raises(NotFound):
            await turns.stop(other, started.answer_id)
        with pytest.raises(NotFound):
            await turns.regenerate(other, message_id=started.answer_id)
        with pytest.raises(NotFound):
            await turns.send(other, text="Hi", dialogue_id=started.dialogue_id, parent_id=started.answer_id)

    run(site, scenario)


def test_a_text_is_judged_after_what_it_follows(site: Any) -> None:
    judged: set[tuple[str, str]] = set()

    class Noting:
        def score(
            self, texts: Sequence[str], contexts: Sequence[str] | None = None
        ) -> list[dict[str, float]]:
            judged.update(zip(texts, contexts or [], strict=True))
            return [{"violence": 0.0} for _ in texts]

    site.gate = Gate(Policy.load(), Noting())
    check, sides = site.gate.check, set[tuple[str, str]]()

    def noted(text: str, *, side: Any, **more: Any) -> Any:
        sides.add((text, side))
        return check(text, side=side, **more)

    site.gate.check = noted
    user = person(site)

    async def scenario(turns: Turns) -> None:
        before: dict[str, str] = {}
        for text in ("Why?", "And then?"):
            started = await turns.send(user, text=text, **before)
            async for _ in turns.events(user, started.answer_id):
                pass
            before = {"dialogue_id": started.dialogue_id, "parent_id": started.answer_id}
        assert not turns._places

    run(site, scenario)
    answer = site.answers[0]
    assert judged >= {("Why?", ""), ("And then?", answer), (answer, "Why?"), (answer, "And then?")}
    assert {text for text, side in sides if side == "input"} == {"Why?", "And then?"}
    assert (answer, "output") in sides


def test_many_readers_see_the_same(site: Any) -> None:
    site.delay = 0.002
    user = person(site)

    async def scenario(turns: Turns) -> None:
        started = await turns.send(user, text="Hi")

        async def read() -> str:
            events = [event async for event in turns.events(user, started.answer_id)]
            assert [event.seq for event in events] == sorted(event.seq for event in events)
            return "".join(event.data["text"] for event in events if event.kind == "delta")

        assert set(await asyncio.gather(*(read() for _ in range(5)))) == {"Hello there. How can I help?"}

    run(site, scenario)


def test_a_suggestion_streams_for_trainers(site: Any) -> None:
    async def scenario(turns: Turns) -> str:
        found = await turns.suggest(person(site, "trainer"), QUESTION)
        assert found.version == "v1"
        return "".join([piece async for piece in found.pieces])

    assert run(site, scenario) == "Hello there. How can I help?"


def test_suggestions_are_refused_before_they_begin(site: Any) -> None:
    async def scenario(turns: Turns) -> None:
        with pytest.raises(Denied):
            await turns.suggest(person(site, "user"), QUESTION)
        trainer = person(site, "trainer")
        with pytest.raises(InvalidRequest):
            await turns.suggest(trainer, [*QUESTION, Message("assistant", "Hello")])
        with pytest.raises(ContextTooLong):
            await turns.suggest(trainer, [Message("user", "a" * 5000)])

    run(site, scenario)


def test_a_suggestion_left_early_frees_its_slot(site: Any) -> None:
    site.answers, site.delay = ["A long sentence that takes its time. " * 9], 0.001

    async def scenario(turns: Turns) -> None:
        pieces: Any = (await turns.suggest(person(site, "trainer"), QUESTION)).pieces
        await anext(pieces)
        assert site.engines["v1"].running == 1
        await pieces.aclose()
        assert site.engines["v1"].running == 0

    run(site, scenario)


def test_candidates_differ_and_pass_the_filter(site: Any) -> None:
    site.answers = ["one", "two", "one", "a murder", ""]

    async def scenario(turns: Turns) -> Any:
        return await turns.candidates("stable", QUESTION, 5)

    found = run(site, scenario)
    assert sorted(each["content"] for each in found) == ["one", "two"]
    assert {each["model_version"] for each in found} == {"v1"}
    assert found[0]["sampling"]["temperature"] == 1.0

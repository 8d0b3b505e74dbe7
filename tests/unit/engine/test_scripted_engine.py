"""The scripted engine behaves as engines do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tutelage.dialogue import Message
from tutelage.engine.interface import Engine, Sampling
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.errors import ContextTooLong, Unavailable
from tutelage.models import tiny
from tutelage.rendering import Renderer, load_renderer


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    tiny.write_text_files(tmp_path)
    return load_renderer(tmp_path)


async def say(engine: Engine, sampling: Sampling, prompt_ids: list[int]) -> tuple[str, str | None]:
    tokens: list[int] = []
    reason = None
    async for chunk in engine.generate(prompt_ids, sampling):
        tokens += chunk.token_ids
        reason = chunk.finish_reason
    return engine.renderer.decode(tokens), reason


def ask(engine: ScriptedEngine, sampling: Sampling | None = None) -> tuple[str, str | None]:
    prompt_ids = engine.renderer.prompt([Message("user", "Hi")])
    return asyncio.run(say(engine, sampling or Sampling(), prompt_ids))


def test_answers_come_in_turn_and_begin_again(renderer: Renderer) -> None:
    engine = ScriptedEngine(["one", "zwei ☕"], renderer=renderer)
    assert [ask(engine) for _ in range(3)] == [("one", "stop"), ("zwei ☕", "stop"), ("one", "stop")]


def test_a_seed_picks_the_answer(renderer: Renderer) -> None:
    engine = ScriptedEngine(["one", "two"], renderer=renderer)
    assert [ask(engine, Sampling(seed=seed))[0] for seed in (1, 1, 0)] == ["two", "two", "one"]


def test_max_tokens_ends_an_answer(renderer: Renderer) -> None:
    engine = ScriptedEngine(["abcdef"], renderer=renderer)
    assert ask(engine, Sampling(max_tokens=4)) == ("abcd", "length")
    assert ask(engine, Sampling(max_tokens=6)) == ("abcdef", "stop")


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it(renderer: Renderer) -> None:
    engine = ScriptedEngine(["abcdef"], renderer=renderer)
    (stop,) = renderer.completion("d")[:1]
    assert ask(engine, Sampling(stop_ids=frozenset({stop}))) == ("abc", "stop")


def test_every_token_may_be_named_with_its_probability(renderer: Renderer) -> None:
    engine = ScriptedEngine(["ab"], renderer=renderer)

    async def tops() -> list[object]:
        chunks = engine.generate([1], Sampling(top_logprobs=2))
        return [chunk.top_logprobs async for chunk in chunks if chunk.token_ids]

    a, b = renderer.completion("ab")[:2]
    assert asyncio.run(tops()) == [(((a, 0.0),),), (((b, 0.0),),)]


def test_the_context_ends_an_answer(renderer: Renderer) -> None:
    length = len(renderer.prompt([Message("user", "Hi")])) + 2
    engine = ScriptedEngine(["abcdef"], renderer=renderer, context_length=length)
    assert ask(engine) == ("ab", "length")


def test_a_prompt_without_room_for_an_answer_is_refused(renderer: Renderer) -> None:
    with pytest.raises(ContextTooLong):
        ask(ScriptedEngine(["a"], renderer=renderer, context_length=5))


def test_leaving_early_frees_the_slot(renderer: Renderer) -> None:
    async def leave() -> int:
        engine = ScriptedEngine(["abcdef"], renderer=renderer)
        stream = engine.generate([1], Sampling())
        await anext(stream)
        assert engine.running == 1
        await stream.aclose()
        return engine.running

    assert asyncio.run(leave()) == 0


def test_closing_waits_for_open_answers_and_refuses_new_ones(renderer: Renderer) -> None:
    async def close() -> str:
        engine = ScriptedEngine(["abc"], renderer=renderer, delay=0.001)
        open_answer = asyncio.create_task(say(engine, Sampling(), [1]))
        await asyncio.sleep(0)
        await engine.close()
        assert open_answer.done() or engine.running == 0
        with pytest.raises(Unavailable):
            await say(engine, Sampling(), [1])
        return (await open_answer)[0]

    assert asyncio.run(close()) == "abc"

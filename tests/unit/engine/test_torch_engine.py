"""One thread steps one batch for many readers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import torch

from tutelage.engine.interface import Sampling, TokenChunk
from tutelage.engine.torch_engine import TorchEngine
from tutelage.errors import ContextTooLong, InvalidRequest, Unavailable
from tutelage.models.generation import Request, complete
from tutelage.models.loading import LoadedModel

PROMPT = (1, 5, 6, 7)


class Gate:
    """Lets the engine's model make so many steps, then holds it until more are allowed."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allowed = threading.Semaphore(0)
        self.rows: list[int] = []
        step = model.step

        def held(token_ids: torch.Tensor, cache: Any, places: torch.Tensor) -> torch.Tensor:
            assert self.allowed.acquire(timeout=20)
            self.rows.append(len(token_ids))
            states: torch.Tensor = step(token_ids, cache, places)
            return states

        monkeypatch.setattr(model, "step", held)

    def open(self, steps: int = 10_000) -> None:
        self.allowed.release(steps)


@pytest.fixture
def gate(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(tiny.model, monkeypatch)
    yield gate
    gate.open()


def sampling(**changes: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "seed": 0, **changes})


async def read(engine: TorchEngine, prompt: tuple[int, ...] = PROMPT, **changes: Any) -> list[TokenChunk]:
    return [chunk async for chunk in engine.generate(prompt, sampling(**changes))]


def ids(chunks: list[TokenChunk]) -> tuple[int, ...]:
    return tuple(token for chunk in chunks for token in chunk.token_ids)


def with_engine(loaded: LoadedModel, use: Callable[[TorchEngine], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        engine = TorchEngine("v1", loaded, **options)
        try:
            await asyncio.wait_for(use(engine), timeout=60)
        finally:
            await engine.close()

    asyncio.run(run())


def expected(loaded: LoadedModel, prompt: tuple[int, ...] = PROMPT, **changes: Any) -> tuple[int, ...]:
    """What the batch gives for the same request, the end token left out."""
    settings = sampling(**changes)
    assert settings.max_tokens is not None
    assert settings.seed is not None
    request = Request(
        prompt_ids=prompt,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    completion = complete(loaded.model, loaded.renderer.stop_ids, [request])[0]
    return completion.token_ids[: -1 if completion.finish_reason == "stop" else None]


def test_an_answer_is_streamed_token_by_token(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        chunks = await read(engine)
        assert ids(chunks) == expected(tiny)
        assert [len(chunk.token_ids) for chunk in chunks] == [1] * 8
        assert all(len(chunk.logprobs) == len(chunk.token_ids) for chunk in chunks)
        assert all(logprob < 0 for chunk in chunks for logprob in chunk.logprobs)
        assert [chunk.finish_reason for chunk in chunks] == [None] * 7 + ["length"]
        assert engine.version == "v1"
        assert engine.context_length == 1024
        assert engine.renderer is tiny.renderer

    with_engine(tiny, use)


def test_the_end_token_is_never_given_out(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = expected(tiny)
    monkeypatch.setattr(tiny.renderer, "stop_ids", frozenset({free[5], 2}))

    async def use(engine: TorchEngine) -> None:
        chunks = await read(engine)
        assert ids(chunks) == free[: free.index(free[5])]
        assert chunks[-1] == TokenChunk((), (), "stop")

    with_engine(tiny, use)


def test_many_answers_share_one_batch(tiny: LoadedModel, gate: Gate) -> None:
    async def use(engine: TorchEngine) -> None:
        tasks = [asyncio.create_task(read(engine, seed=seed)) for seed in range(6)]
        await asyncio.sleep(0.05)  # the first ones wait in the gate while the others come
        gate.open()
        found = await asyncio.gather(*tasks)
        assert max(gate.rows) == 6
        assert [ids(chunks) for chunks in found] == [expected(tiny, seed=seed) for seed in range(6)]

    with_engine(tiny, use)


def test_more_answers_than_slots_wait_in_line(tiny: LoadedModel, gate: Gate) -> None:
    async def use(engine: TorchEngine) -> None:
        gate.open()
        found = await asyncio.gather(*(read(engine, seed=seed) for seed in range(5)))
        assert [len(ids(chunks)) for chunks in found] == [8] * 5

    with_engine(tiny, use, slots=2)
    assert max(gate.rows) == 2


def test_without_a_seed_answers_differ(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        free = {"seed": None, "temperature": 3.0, "max_tokens": 40}
        first, second = await asyncio.gather(read(engine, **free), read(engine, **free))
        assert ids(first) != ids(second)

    with_engine(tiny, use)


def test_an_answer_may_fill_the_context(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        prompt = PROMPT * 255
        chunks = await read(engine, prompt, max_tokens=None)
        assert len(ids(chunks)) == 1024 - len(prompt)
        assert chunks[-1].finish_reason == "length"

    with_engine(tiny, use)


def test_a_prompt_without_room_for_an_answer_is_refused(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        with pytest.raises(ContextTooLong) as caught:
            await read(engine, PROMPT * 256)
        assert caught.value.code == "context_length_exceeded"
        assert len(ids(await read(engine))) == 8

    with_engine(tiny, use)


@pytest.mark.parametrize(("prompt", "max_tokens"), [((), 5), (PROMPT, 0)])
def test_a_request_for_nothing_is_refused_and_harms_nobody(
    tiny: LoadedModel, prompt: tuple[int, ...], max_tokens: int
) -> None:
    async def use(engine: TorchEngine) -> None:
        with pytest.raises(InvalidRequest):
            await read(engine, prompt, max_tokens=max_tokens)
        assert len(ids(await read(engine))) == 8

    with_engine(tiny, use)


def count_reads(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the model's `read` gets from now on."""
    counts: list[int] = []
    model_read = loaded.model.read

    def counted(pieces: Any, cache: Any) -> torch.Tensor:
        counts.append(sum(len(piece.token_ids) for piece in pieces))
        return model_read(pieces, cache)

    monkeypatch.setattr(loaded.model, "read", counted)
    return counts


def test_a_follow_up_reads_only_what_is_new(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read_tokens = count_reads(tiny, monkeypatch)

    async def use(engine: TorchEngine) -> None:
        prompt = PROMPT * 20
        said = ids(await read(engine, prompt, temperature=0.0, seed=None))
        follow_up = (*prompt, *said, 9, 9, 9)
        answer = ids(await read(engine, follow_up, temperature=0.0, seed=None))
        assert read_tokens == [80, 4]
        monkeypatch.undo()
        request = Request(prompt_ids=follow_up, max_tokens=8, seed=0, temperature=0.0)
        assert answer == complete(tiny.model, frozenset(), [request])[0].token_ids

    with_engine(tiny, use)


def test_who_asks_with_a_seed_has_the_whole_prompt_read(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in other portions differs in its last bits, and the same seed is to give the same answer."""
    read_tokens = count_reads(tiny, monkeypatch)

    async def use(engine: TorchEngine) -> None:
        prompt = PROMPT * 20
        for seed in (None, 5, 5, None):
            await read(engine, prompt, seed=seed, max_tokens=3)
        assert read_tokens == [80, 80, 80, 1]

    with_engine(tiny, use)


def test_a_long_prompt_does_not_hold_up_an_answer(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        stream = engine.generate(PROMPT, sampling(max_tokens=900))
        await anext(stream)
        long = asyncio.create_task(read(engine, tuple(range(3, 203)) * 4, max_tokens=1))
        before = 0
        while not long.done():
            await anext(stream)
            before += 1
        assert before >= 4  # 800 tokens are read in four portions
        await stream.aclose()  # type: ignore[attr-defined]
        assert len(ids(await long)) == 1

    with_engine(tiny, use)


def test_what_a_request_asks_of_its_draws_reaches_the_model(tiny: LoadedModel) -> None:
    async def use(engine: TorchEngine) -> None:
        forced = await read(engine, logit_bias={77: 1000.0}, top_logprobs=2)
        assert set(ids(forced)) == {77}
        assert [len(chunk.top_logprobs[0]) for chunk in forced if chunk.token_ids] == [2] * 8
        ended = await read(engine, logit_bias={77: 1000.0}, stop_ids=frozenset({77}))
        assert ended == [TokenChunk((), (), "stop")]
        penalised = await read(engine, temperature=0.0, logit_bias={77: 1000.0}, frequency_penalty=500.0)
        assert ids(penalised)[:2] == (77, 77)  # twice, and the penalty outweighs the bias
        assert ids(penalised)[2] != 77
        with pytest.raises(InvalidRequest) as caught:
            await read(engine, logit_bias={264: 1.0})
        assert caught.value.param == "logit_bias"

    with_engine(tiny, use)


def test_leaving_early_frees_the_slot(tiny: LoadedModel, gate: Gate) -> None:
    async def use(engine: TorchEngine) -> None:
        stream = engine.generate(PROMPT, sampling(max_tokens=900))
        gate.open(1)
        await anext(stream)
        waiting = asyncio.create_task(read(engine, seed=3))
        gate.open(2)
        await stream.aclose()  # type: ignore[attr-defined]
        gate.open()
        assert ids(await waiting) == expected(tiny, seed=3)
        assert len(gate.rows) < 20

    with_engine(tiny, use, slots=1)


def test_a_cancelled_reader_frees_the_slot(tiny: LoadedModel, gate: Gate) -> None:
    async def use(engine: TorchEngine) -> None:
        tasks = [asyncio.create_task(read(engine, max_tokens=900)) for _ in range(2)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        gate.open()
        assert len(ids(await read(engine))) == 8
        assert len(gate.rows) < 20

    with_engine(tiny, use, slots=1)


def test_closing_finishes_what_is_under_way_and_takes_no_more(tiny: LoadedModel, gate: Gate) -> None:
    async def use(engine: TorchEngine) -> None:
        tasks = [asyncio.create_task(read(engine, seed=seed)) for seed in range(3)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable) as caught:
            await read(engine)
        assert caught.value.hint
        assert not closing.done()
        gate.open()
        await closing
        found = await asyncio.gather(*tasks)
        assert [ids(chunks) for chunks in found] == [expected(tiny, seed=seed) for seed in range(3)]
        await engine.close()

    with_engine(tiny, use, slots=2)


def test_a_failure_reaches_every_reader(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_is_there = threading.Event()

    def broken(*_: object) -> torch.Tensor:
        assert everybody_is_there.wait(timeout=20)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tiny.model, "step", broken)

    async def use(engine: TorchEngine) -> None:
        in_slots = [asyncio.create_task(read(engine)) for _ in range(2)]
        await asyncio.sleep(0.05)
        in_line = [asyncio.create_task(read(engine)) for _ in range(2)]
        await asyncio.sleep(0.05)
        everybody_is_there.set()
        found = await asyncio.gather(*in_slots, *in_line, return_exceptions=True)
        assert [type(each) for each in found] == [Unavailable] * 4
        assert engine.broken
        with pytest.raises(Unavailable):
            await read(engine)

    with_engine(tiny, use, slots=2)


def test_a_reader_whose_loop_has_ended_harms_nobody(tiny: LoadedModel, gate: Gate) -> None:
    engine = TorchEngine("v1", tiny)

    async def start() -> None:
        gate.open(1)
        await anext(engine.generate(PROMPT, sampling(max_tokens=50)))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    gate.open()

    async def go_on() -> None:
        assert len(ids(await read(engine))) == 8
        await engine.close()

    asyncio.run(go_on())

"""On a GPU: the same completions as on a CPU, and steps captured as graphs that compute what single kernels do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tutelage.models.adapters import AdapterShape
from tutelage.models.generation import Batch, Request, Token, complete
from tutelage.models.interface import Piece
from tutelage.models.sampling import uniforms
from tutelage.models.transformer import Transformer

pytestmark = pytest.mark.gpu
FAMILIES = ["llama", "llama, untied, with biases", "llama 3 rope", "mistral", "qwen2", "qwen3"]
PROMPTS = ([5, 9, 33, 7], [88, 14, 3], [60] * 9, [7, 8] * 11, [3])


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def twins(pair: Callable[[str], Any], family: str) -> tuple[Transformer, Transformer]:
    """The model of a family on the CPU and on the GPU."""
    ours = pair(family).ours
    return ours, deepcopy(ours).to("cuda")


def greedy(count: int = 20) -> list[Request]:
    return [Request(prompt_ids=p, max_tokens=count, seed=0, temperature=0.0) for p in PROMPTS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("slots", [2, 5])
def test_completions_are_those_of_a_cpu(pair: Callable[[str], Any], family: str, slots: int) -> None:
    cpu, gpu = twins(pair, family)
    for expected, found in zip(
        complete(cpu, frozenset({2}), greedy()),
        complete(gpu, frozenset({2}), greedy(), slots=slots),
        strict=True,
    ):
        assert found.token_ids == expected.token_ids
        assert_close(torch.tensor(found.logprobs), torch.tensor(expected.logprobs), atol=1e-3, rtol=0)


@pytest.mark.parametrize("adapter", [None, "policy"])
@torch.inference_mode()
def test_a_captured_step_is_the_plain_one(pair: Callable[[str], Any], adapter: str | None) -> None:
    """For every number of rows, also of a bucket that is not full, and after the cache has grown."""
    gpu = twins(pair, "qwen3")[1]
    with torch.inference_mode(False):
        gpu.add_adapter("policy", AdapterShape(rank=2, alpha=4), seed=0)
        for parameter in gpu.adapter_parameters("policy"):
            parameter.data.normal_(std=0.1)
    with gpu.using(adapter):
        cache = gpu.new_cache(6, 32)
    assert cache.graphs is not None
    gpu.read([Piece(prompt, slot) for slot, prompt in enumerate(PROMPTS)], cache)
    lengths = torch.tensor([len(prompt) for prompt in PROMPTS], device="cuda")
    for room in (32, 64):
        cache = cache.resized(room, cache.slots)
        for rows in (1, 2, 3, 4, 5, 3, 5):
            last = torch.arange(10, 10 + rows, device="cuda")
            captured = gpu.step(last, cache, lengths[:rows]).clone()
            graphs, cache.graphs = cache.graphs, None
            plain = gpu.step(last, cache, lengths[:rows])
            cache.graphs = graphs
            assert_close(captured, plain, atol=1e-5, rtol=1e-5)
            lengths[:rows] += 1


def test_steps_are_captured_while_another_thread_asks_for_memory(pair: Callable[[str], Any]) -> None:
    cpu, gpu = twins(pair, "llama")
    ended = threading.Event()

    def work() -> None:
        for size in itertools.count(1):
            torch.ones(size << 18, device="cuda").sum().item()
            if ended.is_set():
                return

    other = threading.Thread(target=work)
    other.start()
    try:
        found = [complete(gpu, frozenset({2}), greedy(), slots=slots) for slots in (1, 2, 3, 5)]
    finally:
        ended.set()
        other.join()
    for completions in found:
        for made, expected in zip(completions, complete(cpu, frozenset({2}), greedy()), strict=True):
            assert made.token_ids == expected.token_ids


@torch.inference_mode()
def test_a_step_never_waits_for_the_gpu(pair: Callable[[str], Any]) -> None:
    gpu = twins(pair, "llama")[1]
    cache = gpu.new_cache(3, 32)
    gpu.read([Piece(prompt, slot) for slot, prompt in enumerate(PROMPTS[:2])], cache)
    last, places = torch.tensor([5, 6], device="cuda"), torch.tensor([4, 3], device="cuda")
    gpu.step(last, cache, places)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gpu.step(last, cache, places)
        cache.graphs = None
        gpu.step(last, cache, places)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graphs", [True, False])
def test_batches_of_any_composition(pair: Callable[[str], Any], graphs: bool) -> None:
    """Portions, samples of one prompt, follow-ups, cancelled ones: with graphs and without."""
    cpu, gpu = twins(pair, "llama")
    batch = Batch(gpu, frozenset(), slots=4, portion=5, kept_bytes=1 << 20)
    if not graphs:
        batch._cache.graphs = None  # type: ignore[attr-defined]
    first = Request(prompt_ids=[7, 8] * 20, max_tokens=9, seed=0, temperature=0.0)
    requests = [*greedy(30), first, *greedy(9)]
    keys = [batch.add(request) for request in requests]
    drawn = run(batch, cancel=keys[1])
    said = drawn[keys[5]]
    follow_up = Request(prompt_ids=[*first.prompt_ids, *said, 9, 9], max_tokens=9, seed=0, temperature=0.0)
    requests.append(follow_up)
    keys.append(batch.add(follow_up))
    drawn |= run(batch)
    expected = complete(cpu, frozenset(), requests)
    for key, each in zip(keys, expected, strict=True):
        assert tuple(drawn[key]) == each.token_ids[: len(drawn[key])]
        assert key == keys[1] or len(drawn[key]) == len(each.token_ids)


def run(batch: Batch, cancel: int = 0) -> dict[int, list[int]]:
    drawn: dict[int, list[int]] = {}
    steps = 0
    while batch.busy:
        steps += 1
        tokens: list[Token] = batch.step()
        for token in tokens:
            drawn.setdefault(token.key, []).append(token.token_id)
        if steps == 6:
            batch.cancel(cancel)
    return drawn


def test_draws_are_those_of_a_cpu(pair: Callable[[str], Any]) -> None:
    cpu, gpu = twins(pair, "llama")
    seeds, places = torch.arange(-50, 50), torch.arange(100) * 7
    assert torch.equal(uniforms(seeds.cuda(), places.cuda()).cpu(), uniforms(seeds, places))
    settings = [(1.0, 1.0), (0.7, 0.9), (1.3, 0.5), (1.0, 1.0)]
    requests = [
        Request(prompt_ids=[5, 6, 7], max_tokens=20, seed=seed, temperature=t, top_p=p)
        for seed, (t, p) in enumerate(settings)
    ]
    same = [
        found.token_ids == expected.token_ids
        for found, expected in zip(
            complete(gpu, frozenset(), requests), complete(cpu, frozenset(), requests), strict=True
        )
    ]
    assert sum(same) >= 3  # rounding may turn one draw of eighty


def test_samples_of_half_precision_have_the_log_probabilities_of_one_pass(pair: Callable[[str], Any]) -> None:
    from tutelage.models.layout import sequences
    from tutelage.models.transformer import read_architecture, read_tensors

    folder = pair("llama").folder
    shape = read_architecture(folder)
    assert shape is not None
    gpu = Transformer(shape, read_tensors(folder, torch.bfloat16, torch.device("cuda"))).to("cuda")
    requests = [Request(prompt_ids=p, max_tokens=30, seed=s) for s, p in enumerate(PROMPTS)]
    for request, made in zip(requests, complete(gpu, frozenset(), requests), strict=True):
        token_ids = torch.tensor([*request.prompt_ids, *made.token_ids], device="cuda")
        with torch.inference_mode():
            states = gpu.hidden(token_ids, sequences([len(token_ids)]).to(gpu.device))
            logs = gpu.logits(states).float().log_softmax(dim=-1)
        expected = logs[:-1].gather(1, token_ids[1:, None])[len(request.prompt_ids) - 1 :, 0].cpu()
        assert float((torch.tensor(made.logprobs) - expected).abs().mean()) < 0.05

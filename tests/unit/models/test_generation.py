"""Continuous batching: whatever shares the batch, each completion is the one it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tutelage.errors import ContextTooLong, InvalidRequest, ModelError
from tutelage.models.generation import Batch, Request, Token, complete
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.transformer import Transformer

FAMILIES = ["llama", "llama, untied, with biases", "llama 3 rope", "linear rope", "mistral", "qwen2", "qwen3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_completions_equal_transformers_generate(pair: Callable[[str], Any], family: str) -> None:
    both = pair(family)
    prompts = [[5, 9, 33, 7], [88, 14, 3], [60] * 9]
    requests = [Request(prompt_ids=p, max_tokens=24, seed=0, temperature=0.0) for p in prompts]
    for prompt, ours in zip(prompts, complete(both.ours, frozenset({2, 11}), requests), strict=True):
        theirs = both.theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=[2, 11]
        )
        assert list(ours.token_ids) == theirs[0, len(prompt) :].tolist()
        with torch.no_grad():
            logs = both.theirs(theirs).logits[0].log_softmax(dim=-1)
        expected = logs[:-1].gather(1, theirs[0, 1:, None])[len(prompt) - 1 :, 0]
        assert_close(torch.tensor(ours.logprobs), expected, atol=1e-4, rtol=0)


SETTINGS = st.fixed_dictionaries(
    {
        "length": st.integers(1, 12),
        "seed": st.integers(0, 20),
        "max_tokens": st.integers(1, 12),
        "temperature": st.sampled_from([0.0, 0.7, 1.0, 1.5]),
        "top_p": st.sampled_from([0.5, 0.9, 1.0]),
    }
)


@settings(deadline=None, max_examples=20)
@given(
    arrivals=st.lists(st.tuples(SETTINGS, st.integers(0, 8)), min_size=1, max_size=7),
    slots=st.integers(1, 4),
    cancels=st.dictionaries(st.integers(0, 6), st.integers(0, 8), max_size=3),
)
def test_a_completion_does_not_depend_on_its_company(
    exact: Transformer,
    ask_for: Any,
    alone: Any,
    arrivals: list[tuple[dict[str, Any], int]],
    slots: int,
    cancels: dict[int, int],
    ends: frozenset[int],
) -> None:
    """arrivals: requests and the step each comes at; cancels: the step at which the n-th is given up."""
    requests = [ask_for(**each) for each, _ in arrivals]
    batch = Batch(exact, ends, slots=slots)
    keys: dict[int, int] = {}
    drawn: dict[int, list[Token]] = {}
    step = 0
    while batch.busy or len(keys) < len(arrivals):
        for index, (_, arrival) in enumerate(arrivals):
            if arrival == step:
                keys[index] = batch.add(requests[index])
        for index, at in cancels.items():
            if at == step and index in keys:
                batch.cancel(keys[index])
        for token in batch.step():
            drawn.setdefault(token.key, []).append(token)
        step += 1
    for index, each in enumerate(requests):
        expected = alone(exact, each)
        tokens = drawn.get(keys[index], [])
        ids = tuple(token.token_id for token in tokens)
        assert ids == expected.token_ids[: len(ids)]
        if index not in cancels:
            assert len(ids) == len(expected.token_ids)
            assert tokens[-1].finish_reason == expected.finish_reason


def test_a_seed_repeats_a_completion_and_another_seed_does_not(tiny: LoadedModel) -> None:
    prompt = (5, 6, 7)
    seeds = (1, 1, 2)
    requests = [Request(prompt_ids=prompt, max_tokens=10, seed=seed) for seed in seeds]
    first, again, other = complete(tiny.model, frozenset(), requests)
    assert first.token_ids == again.token_ids != other.token_ids


def test_logprobs_are_those_of_one_pass_over_the_whole(
    tiny: LoadedModel, ask_for: Any, ends: frozenset[int]
) -> None:
    requests = [
        ask_for(9, seed=s, temperature=t, top_p=p) for s, t, p in ((0, 1, 1), (1, 0.5, 0.9), (2, 0, 1))
    ]
    for each, completion in zip(requests, complete(tiny.model, ends, requests), strict=True):
        token_ids = torch.tensor([*each.prompt_ids, *completion.token_ids])
        hidden = tiny.model.hidden(token_ids, sequences([len(token_ids)]))
        logs = tiny.model.logits(hidden).log_softmax(dim=-1)
        expected = logs[:-1].gather(1, token_ids[1:, None])[-len(completion.token_ids) :, 0]
        assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_any_of_the_end_tokens_ends_a_completion(tiny: LoadedModel, ask_for: Any) -> None:
    free = complete(tiny.model, frozenset(), [ask_for(max_tokens=20)])[0].token_ids
    for place in (3, 7, 0):
        ends = frozenset({free[place], 263})
        ended = complete(tiny.model, ends, [ask_for(max_tokens=20)])[0]
        assert ended.token_ids == free[: free.index(free[place]) + 1]
        assert ended.finish_reason == "stop"


def test_max_tokens_cuts_a_completion(tiny: LoadedModel, ask_for: Any) -> None:
    for limit in (1, 2, 9):
        completion = complete(tiny.model, frozenset(), [ask_for(max_tokens=limit)])[0]
        assert len(completion.token_ids) == len(completion.logprobs) == limit
        assert completion.finish_reason == "length"


def test_an_end_token_at_the_limit_is_still_a_stop(tiny: LoadedModel, ask_for: Any) -> None:
    last = complete(tiny.model, frozenset(), [ask_for(max_tokens=1)])[0].token_ids[0]
    assert complete(tiny.model, frozenset({last}), [ask_for(max_tokens=1)])[0].finish_reason == "stop"


def test_the_end_of_the_context_cuts_a_completion(tiny: LoadedModel, ask_for: Any, run_out: Any) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2, context_length=16)
    long, short = batch.add(ask_for(15, max_tokens=50)), batch.add(ask_for(4, max_tokens=50))
    drawn = run_out(batch)
    assert [len(drawn[key]) for key in (long, short)] == [1, 12]
    assert all(tokens[-1].finish_reason == "length" for tokens in drawn.values())


def test_a_prompt_that_fills_the_context_is_refused(tiny: LoadedModel, ask_for: Any) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2, context_length=16)
    with pytest.raises(ContextTooLong, match="16 tokens") as caught:
        batch.add(ask_for(16))
    assert caught.value.code == "context_length_exceeded"
    assert not batch.busy


def test_the_models_own_context_is_the_longest(tiny: LoadedModel) -> None:
    assert Batch(tiny.model, frozenset(), slots=1).context_length == 1024
    assert Batch(tiny.model, frozenset(), slots=1, context_length=5000).context_length == 1024


def keys_of(tokens: Sequence[Token]) -> set[int]:
    return {token.key for token in tokens}


def test_a_free_slot_is_taken_at_the_next_step(tiny: LoadedModel, ask_for: Any) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2)
    a, b, c = (batch.add(ask_for(max_tokens=limit)) for limit in (3, 9, 2))
    assert [keys_of(batch.step()) for _ in range(4)] == [{a, b}, {a, b}, {b, c}, {b}]


def test_a_cancelled_completion_gives_up_its_slot_at_once(tiny: LoadedModel, ask_for: Any) -> None:
    batch = Batch(tiny.model, frozenset(), slots=1)
    running, waiting, next_one = (batch.add(ask_for(max_tokens=9)) for _ in range(3))
    assert keys_of(batch.step()) == {running}
    batch.cancel(running)
    batch.cancel(waiting)
    batch.cancel(999)
    assert keys_of(batch.step()) == {next_one}
    batch.cancel(next_one)
    assert not batch.busy
    assert batch.step() == []


def test_a_cancelled_completion_leaves_the_others_alone(exact: Transformer, ask_for: Any) -> None:
    """Also when the cache has grown meanwhile, and the last one moves into its slot."""
    batch = Batch(exact, frozenset(), slots=3, kept_bytes=1 << 24)
    requests = [ask_for(40, seed=seed, max_tokens=40) for seed in range(3)]
    keys = [batch.add(each) for each in requests]
    drawn: dict[int, list[int]] = {key: [] for key in keys}
    for step in range(60):
        if step == 30:
            batch.cancel(keys[0])
        for token in batch.step():
            drawn[token.key].append(token.token_id)
    for key, each in zip(keys[1:], requests[1:], strict=True):
        assert drawn[key] == list(complete(exact, frozenset(), [each])[0].token_ids)
    assert len(drawn[keys[0]]) == 31


def test_a_bias_forbids_and_forces_tokens(tiny: LoadedModel, ask_for: Any) -> None:
    free = complete(tiny.model, frozenset(), [ask_for(temperature=0.0)])[0].token_ids
    without = complete(
        tiny.model, frozenset(), [ask_for(temperature=0.0, logit_bias=dict.fromkeys(set(free), -100))]
    )[0].token_ids
    assert not set(free) & set(without)
    forced = complete(tiny.model, frozenset(), [ask_for(logit_bias={77: 1000})])[0]
    assert set(forced.token_ids) == {77}
    assert min(forced.logprobs) < -1


def test_penalties_act_on_what_was_drawn_and_only_in_their_row(tiny: LoadedModel, ask_for: Any) -> None:
    """Frequency counts every time, presence once; the prompt does not count. As in OpenAI's formula."""
    bias = {77: 100.0, 88: 99.0, 99: 97.5}

    def drawn(**settings: Any) -> list[int]:
        plain = ask_for(max_tokens=6, temperature=0.0, logit_bias=bias)
        mine = ask_for(max_tokens=6, temperature=0.0, logit_bias=bias, **settings)
        first, second = complete(tiny.model, frozenset(), [plain, mine])
        assert first.token_ids == (77,) * 6
        return list(second.token_ids)

    def expected(presence: float, frequency: float) -> list[int]:
        counts: dict[int, int] = {}
        found: list[int] = []
        for _ in range(6):
            hidden = tiny.model.hidden(
                torch.tensor([*ask_for().prompt_ids, *found]), sequences([5 + len(found)])
            )
            logits = tiny.model.logits(hidden)[-1].detach()
            for token, amount in bias.items():
                logits[token] += amount
            for token, count in counts.items():
                logits[token] -= count * frequency + (count > 0) * presence
            found.append(int(logits.argmax()))
            counts[found[-1]] = counts.get(found[-1], 0) + 1
        return found

    for presence, frequency in ((2.0, 0.0), (0.0, 1.0), (1.0, 0.7), (-2.0, 0.0)):
        assert drawn(presence_penalty=presence, frequency_penalty=frequency) == expected(presence, frequency)
    assert len(set(drawn(frequency_penalty=8.0))) == 3


def test_a_request_has_end_tokens_of_its_own(tiny: LoadedModel, ask_for: Any) -> None:
    free = complete(tiny.model, frozenset(), [ask_for(max_tokens=20)])[0].token_ids
    own = ask_for(max_tokens=20, stop_ids=frozenset({free[4]}))
    ended, other = complete(tiny.model, frozenset(), [own, ask_for(max_tokens=20)])
    assert ended.token_ids == free[: free.index(free[4]) + 1]
    assert ended.finish_reason == "stop"
    assert other.token_ids == free


def test_the_most_probable_tokens_are_named_for_those_who_ask(
    tiny: LoadedModel, ask_for: Any, run_out: Any
) -> None:
    batch = Batch(tiny.model, frozenset(), slots=3)
    none, two, five = (batch.add(ask_for(top_logprobs=n, temperature=0.0, max_tokens=3)) for n in (0, 2, 5))
    drawn = run_out(batch)
    assert [len(token.top_logprobs) for token in drawn[none]] == [0] * 3
    assert [len(token.top_logprobs) for token in drawn[two]] == [2] * 3
    for first, second in zip(drawn[two], drawn[five], strict=True):
        assert second.top_logprobs[:2] == first.top_logprobs
        token_id, logprob = first.top_logprobs[0]
        assert token_id == first.token_id
        assert logprob == pytest.approx(first.logprob)


@pytest.mark.parametrize("token", [-1, 264])
def test_a_bias_for_no_token_is_refused(tiny: LoadedModel, token: int, ask_for: Any) -> None:
    batch = Batch(tiny.model, frozenset(), slots=1)
    with pytest.raises(InvalidRequest, match=f"no token {token}"):
        batch.add(ask_for(logit_bias={token: 1.0}))
    assert not batch.busy


def test_completions_stand_in_the_order_of_the_requests(
    exact: Transformer, ask_for: Any, alone: Any, ends: frozenset[int]
) -> None:
    requests = [ask_for(seed=seed, max_tokens=12 - seed) for seed in range(6)]
    finished: list[int] = []
    found = complete(exact, ends, requests, slots=2, progress=finished.append)
    assert [each.token_ids for each in found] == [alone(exact, each).token_ids for each in requests]
    assert sum(finished) == 6
    assert 0 not in finished
    assert complete(exact, ends, []) == []


def test_the_active_adapter_generates(own_tiny: LoadedModel, ask_for: Any) -> None:
    from tutelage.models.adapters import AdapterShape

    model = own_tiny.model
    model.add_adapter("policy", AdapterShape(rank=2, alpha=4), seed=0)
    bare = complete(model, frozenset(), [ask_for()])
    with model.using("policy"):
        assert complete(model, frozenset(), [ask_for()]) == bare
        with torch.no_grad():
            for parameter in model.adapter_parameters("policy"):
                parameter.add_(0.3)
        assert complete(model, frozenset(), [ask_for()]) != bare


def test_a_model_that_computes_no_numbers_is_refused(own_tiny: LoadedModel, ask_for: Any) -> None:
    own_tiny.model.get_buffer("norm").fill_(torch.nan)
    for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.5)):
        with pytest.raises(ModelError, match="no numbers"):
            complete(own_tiny.model, frozenset(), [ask_for(temperature=temperature, top_p=top_p)])


def test_a_request_that_is_refused_leaves_the_model_as_it_was(home: Path, ask_for: Any) -> None:
    model = load_model("tiny", home, dtype="bfloat16").model
    with pytest.raises(ContextTooLong):
        complete(model, frozenset(), [ask_for(), ask_for(length=2000)])
    assert not any(layer.weight.is_mkldnn for layer in model.adapted_layers())

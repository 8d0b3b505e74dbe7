"""Continuous batching: whatever shares the batch, each completion is the one it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tutelage.errors import ContextTooLong, InvalidRequest
from tutelage.models import generation
from tutelage.models.generation import Batch, Completion, Request, Token, complete
from tutelage.models.key_value_cache import KeyValueCache
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.transformer import Transformer

ENDS = frozenset({2, 40, 41, 42})  # several, so that a random model comes to an end


@pytest.fixture(scope="session")
def exact(home: Any) -> Transformer:
    """`tiny` in fp64: how a batch is composed cannot change a draw through rounding."""
    model = load_model("tiny", home, dtype="float32").model
    assert isinstance(model, Transformer)
    return model.double()


def request(length: int = 5, **settings: Any) -> Request:
    """A prompt that differs by its length and seed."""
    seed = settings.setdefault("seed", 0)
    prompt = [3 + (7 * seed + 13 * place) % 250 for place in range(length)]
    return Request(prompt_ids=tuple(prompt), **{"max_tokens": 12, **settings})


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


REQUESTS = st.builds(
    request,
    st.integers(1, 12),
    seed=st.integers(0, 20),
    max_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
)


@settings(deadline=None, max_examples=20)
@given(
    arrivals=st.lists(st.tuples(REQUESTS, st.integers(0, 8)), min_size=1, max_size=7),
    slots=st.integers(1, 4),
    cancels=st.dictionaries(st.integers(0, 6), st.integers(0, 8), max_size=3),
)
def test_a_completion_does_not_depend_on_its_company(
    exact: Transformer,
    arrivals: list[tuple[Request, int]],
    slots: int,
    cancels: dict[int, int],
) -> None:
    """arrivals: requests and the step each comes at; cancels: the step at which the n-th is given up."""
    batch = Batch(exact, ENDS, slots=slots)
    keys: dict[int, int] = {}
    drawn: dict[int, list[Token]] = {}
    step = 0
    while batch.busy or len(keys) < len(arrivals):
        for index, (each, arrival) in enumerate(arrivals):
            if arrival == step:
                keys[index] = batch.add(each)
        for index, at in cancels.items():
            if at == step and index in keys:
                batch.cancel(keys[index])
        for token in batch.step():
            drawn.setdefault(token.key, []).append(token)
        step += 1
    for index, (each, _) in enumerate(arrivals):
        expected = alone(exact, each)
        tokens = drawn.get(keys[index], [])
        ids = tuple(token.token_id for token in tokens)
        assert ids == expected.token_ids[: len(ids)]
        if index not in cancels:
            assert len(ids) == len(expected.token_ids)
            assert tokens[-1].finish_reason == expected.finish_reason


@lru_cache(maxsize=1000)
def alone(model: Transformer, each: Request) -> Completion:
    return complete(model, ENDS, [each], slots=1)[0]


def test_a_seed_repeats_a_completion_and_another_seed_does_not(tiny: LoadedModel) -> None:
    prompt = (5, 6, 7)
    seeds = (1, 1, 2)
    requests = [Request(prompt_ids=prompt, max_tokens=10, seed=seed) for seed in seeds]
    first, again, other = complete(tiny.model, frozenset(), requests)
    assert first.token_ids == again.token_ids != other.token_ids


def test_logprobs_are_those_of_one_pass_over_the_whole(tiny: LoadedModel) -> None:
    requests = [
        request(9, seed=s, temperature=t, top_p=p) for s, t, p in ((0, 1, 1), (1, 0.5, 0.9), (2, 0, 1))
    ]
    for each, completion in zip(requests, complete(tiny.model, ENDS, requests), strict=True):
        token_ids = torch.tensor([*each.prompt_ids, *completion.token_ids])
        hidden = tiny.model.hidden(token_ids, sequences([len(token_ids)]))
        logs = tiny.model.logits(hidden).log_softmax(dim=-1)
        expected = logs[:-1].gather(1, token_ids[1:, None])[-len(completion.token_ids) :, 0]
        assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_any_of_the_end_tokens_ends_a_completion(tiny: LoadedModel) -> None:
    free = complete(tiny.model, frozenset(), [request(max_tokens=20)])[0].token_ids
    for place in (3, 7, 0):
        ends = frozenset({free[place], 263})
        ended = complete(tiny.model, ends, [request(max_tokens=20)])[0]
        assert ended.token_ids == free[: free.index(free[place]) + 1]
        assert ended.finish_reason == "stop"


def test_max_tokens_cuts_a_completion(tiny: LoadedModel) -> None:
    for limit in (1, 2, 9):
        completion = complete(tiny.model, frozenset(), [request(max_tokens=limit)])[0]
        assert len(completion.token_ids) == len(completion.logprobs) == limit
        assert completion.finish_reason == "length"


def test_an_end_token_at_the_limit_is_still_a_stop(tiny: LoadedModel) -> None:
    last = complete(tiny.model, frozenset(), [request(max_tokens=1)])[0].token_ids[0]
    assert complete(tiny.model, frozenset({last}), [request(max_tokens=1)])[0].finish_reason == "stop"


def test_the_end_of_the_context_cuts_a_completion(tiny: LoadedModel) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2, context_length=16)
    long, short = batch.add(request(15, max_tokens=50)), batch.add(request(4, max_tokens=50))
    drawn = run(batch)
    assert [len(drawn[key]) for key in (long, short)] == [1, 12]
    assert all(tokens[-1].finish_reason == "length" for tokens in drawn.values())


def test_a_prompt_that_fills_the_context_is_refused(tiny: LoadedModel) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2, context_length=16)
    with pytest.raises(ContextTooLong, match="16 tokens") as caught:
        batch.add(request(16))
    assert caught.value.code == "context_length_exceeded"
    assert not batch.busy


def test_the_models_own_context_is_the_longest(tiny: LoadedModel) -> None:
    assert Batch(tiny.model, frozenset(), slots=1).context_length == 1024
    assert Batch(tiny.model, frozenset(), slots=1, context_length=5000).context_length == 1024


def run(batch: Batch) -> dict[int, list[Token]]:
    drawn: dict[int, list[Token]] = {}
    while batch.busy:
        for token in batch.step():
            drawn.setdefault(token.key, []).append(token)
    return drawn


def keys_of(tokens: Sequence[Token]) -> set[int]:
    return {token.key for token in tokens}


def test_a_free_slot_is_taken_at_the_next_step(tiny: LoadedModel) -> None:
    batch = Batch(tiny.model, frozenset(), slots=2)
    a, b, c = (batch.add(request(max_tokens=limit)) for limit in (3, 9, 2))
    assert [keys_of(batch.step()) for _ in range(4)] == [{a, b}, {a, b}, {b, c}, {b}]


def test_a_cancelled_completion_gives_up_its_slot_at_once(tiny: LoadedModel) -> None:
    batch = Batch(tiny.model, frozenset(), slots=1)
    running, waiting, next_one = (batch.add(request(max_tokens=9)) for _ in range(3))
    assert keys_of(batch.step()) == {running}
    batch.cancel(running)
    batch.cancel(waiting)
    batch.cancel(999)
    assert keys_of(batch.step()) == {next_one}
    batch.cancel(next_one)
    assert not batch.busy
    assert batch.step() == []


def test_a_cancelled_completion_leaves_the_others_alone(exact: Transformer) -> None:
    """Also when the cache has grown meanwhile, and the last one moves into its slot."""
    batch = Batch(exact, frozenset(), slots=3, kept_bytes=1 << 24)
    requests = [request(40, seed=seed, max_tokens=40) for seed in range(3)]
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


def test_prompts_are_read_in_portions(monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel) -> None:
    """Completions under way wait for no more than a portion of others' prompts; what does not fit is cut up."""
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 10)
    batch = Batch(tiny.model, frozenset(), slots=8, portion=8)
    a, b, c, d = (batch.add(request(length, max_tokens=20, seed=length)) for length in (5, 4, 20, 7))
    seen = [keys_of(batch.step()) for _ in range(5)]
    assert seen == [{a, b}, {a, b}, {a, b}, {a, b, c}, {a, b, c, d}]


def test_a_prompt_in_portions_is_answered_as_in_one(exact: Transformer) -> None:
    requests = [request(length, seed=length) for length in (30, 3, 61, 5, 29)]
    batch = Batch(exact, ENDS, slots=3, portion=7)
    keys = [batch.add(each) for each in requests]
    drawn = run(batch)
    for key, each in zip(keys, requests, strict=True):
        assert tuple(token.token_id for token in drawn[key]) == alone(exact, each).token_ids


def test_a_prompt_given_up_halfway_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, exact: Transformer
) -> None:
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 7)
    batch = Batch(exact, ENDS, slots=3, portion=7)
    first, long, last = batch.add(request(4)), batch.add(request(40)), batch.add(request(5, seed=1))
    assert long not in keys_of(batch.step()) | keys_of(batch.step())
    batch.cancel(long)
    drawn = run(batch)
    assert long not in drawn
    assert tuple(token.token_id for token in drawn[last]) == alone(exact, request(5, seed=1)).token_ids
    assert first not in drawn or drawn[first][-1].finish_reason


class Reads:
    """Counts what a model reads and steps."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces: list[list[Any]] = []
        read = model.read

        def counted(pieces: list[Any], cache: Any) -> Any:
            self.pieces.append(list(pieces))
            return read(pieces, cache)

        monkeypatch.setattr(model, "read", counted)

    @property
    def tokens(self) -> int:
        return sum(len(piece.token_ids) for pieces in self.pieces for piece in pieces)


def test_requests_that_share_a_prompt_read_it_once(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(exact, monkeypatch)
    prompts = {length: request(length).prompt_ids for length in (20, 24)}
    requests = [
        Request(prompt_ids=prompts[length], max_tokens=12, seed=seed)
        for length, seed in ((20, 1), (24, 9), (20, 2), (20, 3), (24, 8))
    ]
    found = complete(exact, ENDS, requests)
    assert reads.tokens == 44
    assert [each.token_ids for each in found] == [alone(exact, each).token_ids for each in requests]
    assert len({each.token_ids for each in found}) > 2


def test_a_prompt_that_runs_already_is_not_read_again(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(exact, monkeypatch)
    batch = Batch(exact, frozenset(), slots=4)
    batch.add(request(40, max_tokens=30))
    batch.step()
    again = Request(prompt_ids=request(40).prompt_ids, max_tokens=12, seed=5)
    longer = Request(prompt_ids=(*request(40).prompt_ids[:30], 7, 8, 9), max_tokens=12, seed=5)
    keys = [batch.add(again), batch.add(longer)]
    drawn = run(batch)
    assert reads.tokens == 40 + 1 + 3
    for key, each in zip(keys, (again, longer), strict=True):
        assert [token.token_id for token in drawn[key]] == list(
            complete(exact, frozenset(), [each])[0].token_ids
        )


def test_the_next_turn_of_a_chat_reads_only_what_is_new(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(exact, frozenset(), slots=2, kept_bytes=1 << 24)
    first = request(50, max_tokens=10)
    batch.add(first)
    (answer,) = run(batch).values()
    said = [token.token_id for token in answer]
    follow_up = Request(prompt_ids=(*first.prompt_ids, *said, 5, 6, 7), max_tokens=12, seed=2)
    other = Request(prompt_ids=(*first.prompt_ids, *said[:4], 99, 98), max_tokens=12, seed=3)
    expected = [complete(exact, frozenset(), [each])[0].token_ids for each in (follow_up, other)]
    reads = Reads(exact, monkeypatch)
    keys = [batch.add(follow_up), batch.add(other)]
    drawn = run(batch)
    # The last token drawn was never read.
    assert [len(piece.token_ids) for piece in reads.pieces[0]] == [4, 2]
    assert [tuple(token.token_id for token in drawn[key]) for key in keys] == expected


def test_what_is_kept_stays_within_its_room(exact: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    a_token = 2 * exact.shape.layers * exact.shape.key_heads * exact.shape.head_width * 8
    batch = Batch(exact, frozenset(), slots=1, kept_bytes=110 * a_token)
    first, second, third = (request(50, seed=seed, max_tokens=2) for seed in (1, 2, 3))
    reads = Reads(exact, monkeypatch)
    for each in (first, second, first, third, first, second):
        batch.add(each)
        run(batch)
    # Each needs 51 tokens: two fit, and the one that was not used for longest goes.
    assert [len(pieces[0].token_ids) for pieces in reads.pieces] == [50, 50, 1, 50, 1, 50]


def test_a_bias_forbids_and_forces_tokens(tiny: LoadedModel) -> None:
    free = complete(tiny.model, frozenset(), [request(temperature=0.0)])[0].token_ids
    without = complete(
        tiny.model, frozenset(), [request(temperature=0.0, logit_bias=dict.fromkeys(set(free), -100))]
    )[0].token_ids
    assert not set(free) & set(without)
    forced = complete(tiny.model, frozenset(), [request(logit_bias={77: 1000})])[0]
    assert set(forced.token_ids) == {77}
    assert min(forced.logprobs) < -1


def test_penalties_act_on_what_was_drawn_and_only_in_their_row(tiny: LoadedModel) -> None:
    """Frequency counts every time, presence once; the prompt does not count. As in OpenAI's formula."""
    bias = {77: 100.0, 88: 99.0, 99: 97.5}

    def drawn(**settings: Any) -> list[int]:
        plain = request(max_tokens=6, temperature=0.0, logit_bias=bias)
        mine = request(max_tokens=6, temperature=0.0, logit_bias=bias, **settings)
        first, second = complete(tiny.model, frozenset(), [plain, mine])
        assert first.token_ids == (77,) * 6
        return list(second.token_ids)

    def expected(presence: float, frequency: float) -> list[int]:
        counts: dict[int, int] = {}
        found: list[int] = []
        for _ in range(6):
            hidden = tiny.model.hidden(
                torch.tensor([*request().prompt_ids, *found]), sequences([5 + len(found)])
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


def test_a_request_has_end_tokens_of_its_own(tiny: LoadedModel) -> None:
    free = complete(tiny.model, frozenset(), [request(max_tokens=20)])[0].token_ids
    own = request(max_tokens=20, stop_ids=frozenset({free[4]}))
    ended, other = complete(tiny.model, frozenset(), [own, request(max_tokens=20)])
    assert ended.token_ids == free[: free.index(free[4]) + 1]
    assert ended.finish_reason == "stop"
    assert other.token_ids == free


def test_the_most_probable_tokens_are_named_for_those_who_ask(tiny: LoadedModel) -> None:
    batch = Batch(tiny.model, frozenset(), slots=3)
    none, two, five = (batch.add(request(top_logprobs=n, temperature=0.0, max_tokens=3)) for n in (0, 2, 5))
    drawn = run(batch)
    assert [len(token.top_logprobs) for token in drawn[none]] == [0] * 3
    assert [len(token.top_logprobs) for token in drawn[two]] == [2] * 3
    for first, second in zip(drawn[two], drawn[five], strict=True):
        assert second.top_logprobs[:2] == first.top_logprobs
        token_id, logprob = first.top_logprobs[0]
        assert token_id == first.token_id
        assert logprob == pytest.approx(first.logprob)


@pytest.mark.parametrize("token", [-1, 264])
def test_a_bias_for_no_token_is_refused(tiny: LoadedModel, token: int) -> None:
    batch = Batch(tiny.model, frozenset(), slots=1)
    with pytest.raises(InvalidRequest, match=f"no token {token}"):
        batch.add(request(logit_bias={token: 1.0}))
    assert not batch.busy


def test_a_cache_that_grows_and_shrinks_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, exact: Transformer
) -> None:
    requests = [request(length, seed=length, max_tokens=40) for length in (3, 60, 9, 7)]
    expected = complete(exact, frozenset(), requests)
    monkeypatch.setattr(generation, "_STRIDE", 2)
    assert [each.token_ids for each in complete(exact, frozenset(), requests, slots=2)] == [
        each.token_ids for each in expected
    ]


def test_slots_are_made_for_those_who_come_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, exact: Transformer
) -> None:
    slots: list[int] = []
    resized = KeyValueCache.resized

    def noted(cache: KeyValueCache, length: int, count: int) -> KeyValueCache:
        slots.append(count)
        return resized(cache, length, count)

    monkeypatch.setattr(KeyValueCache, "resized", noted)
    batch = Batch(exact, frozenset(), slots=8, portion=8)
    first, long = request(max_tokens=40), request(60, seed=1, max_tokens=50)
    keys = {batch.add(first): first}
    found: dict[int, list[Token]] = {}
    later = {2: [long], 4: [request(seed=seed) for seed in range(2, 6)]}  # while the long one is being read
    for step in range(12):
        for each in later.get(step, []):
            keys[batch.add(each)] = each
        for token in batch.step():
            found.setdefault(token.key, []).append(token)
        assert step >= 2 or not slots
    assert max(slots) == 8 + 1
    for key, tokens in run(batch).items():
        found.setdefault(key, []).extend(tokens)
    for key, each in keys.items():
        expected = torch.tensor(alone(exact, each).logprobs)
        assert_close(torch.tensor([token.logprob for token in found[key]]), expected, atol=1e-6, rtol=0)
    assert slots[-1] <= 2 + 1


def test_completions_stand_in_the_order_of_the_requests(exact: Transformer) -> None:
    requests = [request(seed=seed, max_tokens=12 - seed) for seed in range(6)]
    finished: list[int] = []
    found = complete(exact, ENDS, requests, slots=2, progress=finished.append)
    assert [each.token_ids for each in found] == [alone(exact, each).token_ids for each in requests]
    assert sum(finished) == 6
    assert 0 not in finished
    assert complete(exact, ENDS, []) == []


def test_the_active_adapter_generates(own_tiny: LoadedModel) -> None:
    from tutelage.models.adapters import AdapterShape

    model = own_tiny.model
    model.add_adapter("policy", AdapterShape(rank=2, alpha=4), seed=0)
    bare = complete(model, frozenset(), [request()])
    with model.using("policy"):
        assert complete(model, frozenset(), [request()]) == bare
        with torch.no_grad():
            for parameter in model.adapter_parameters("policy"):
                parameter.add_(0.3)
        assert complete(model, frozenset(), [request()]) != bare

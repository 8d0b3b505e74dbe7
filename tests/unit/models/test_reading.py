"""Prompts: read in portions, once, and only as far as they are new; the cache is as large as it has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tutelage.models import generation
from tutelage.models.generation import Batch, Request, Token, complete
from tutelage.models.key_value_cache import KeyValueCache
from tutelage.models.loading import LoadedModel
from tutelage.models.transformer import Transformer


def keys_of(tokens: Sequence[Token]) -> set[int]:
    return {token.key for token in tokens}


def test_prompts_are_read_in_portions(
    monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel, ask_for: Any
) -> None:
    """Completions under way wait for no more than a portion of others' prompts; what does not fit is cut up."""
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 10)
    batch = Batch(tiny.model, frozenset(), slots=8, portion=8)
    a, b, c, d = (batch.add(ask_for(length, max_tokens=20, seed=length)) for length in (5, 4, 20, 7))
    seen = [keys_of(batch.step()) for _ in range(5)]
    assert seen == [{a, b}, {a, b}, {a, b}, {a, b, c}, {a, b, c, d}]


def test_a_prompt_in_portions_is_answered_as_in_one(
    exact: Transformer, ask_for: Any, run_out: Any, alone: Any, ends: frozenset[int]
) -> None:
    requests = [ask_for(length, seed=length) for length in (30, 3, 61, 5, 29)]
    batch = Batch(exact, ends, slots=3, portion=7)
    keys = [batch.add(each) for each in requests]
    drawn = run_out(batch)
    for key, each in zip(keys, requests, strict=True):
        assert tuple(token.token_id for token in drawn[key]) == alone(exact, each).token_ids


def test_a_prompt_given_up_halfway_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
    exact: Transformer,
    ask_for: Any,
    run_out: Any,
    alone: Any,
    ends: frozenset[int],
) -> None:
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 7)
    batch = Batch(exact, ends, slots=3, portion=7)
    first, long, last = batch.add(ask_for(4)), batch.add(ask_for(40)), batch.add(ask_for(5, seed=1))
    assert long not in keys_of(batch.step()) | keys_of(batch.step())
    batch.cancel(long)
    drawn = run_out(batch)
    assert long not in drawn
    assert tuple(token.token_id for token in drawn[last]) == alone(exact, ask_for(5, seed=1)).token_ids
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
    exact: Transformer, monkeypatch: pytest.MonkeyPatch, ask_for: Any, alone: Any, ends: frozenset[int]
) -> None:
    reads = Reads(exact, monkeypatch)
    prompts = {length: ask_for(length).prompt_ids for length in (20, 24)}
    requests = [
        Request(prompt_ids=prompts[length], max_tokens=12, seed=seed)
        for length, seed in ((20, 1), (24, 9), (20, 2), (20, 3), (24, 8))
    ]
    found = complete(exact, ends, requests)
    assert reads.tokens == 44
    assert [each.token_ids for each in found] == [alone(exact, each).token_ids for each in requests]
    assert len({each.token_ids for each in found}) > 2


def test_a_prompt_that_runs_already_is_not_read_again(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch, ask_for: Any, run_out: Any
) -> None:
    reads = Reads(exact, monkeypatch)
    batch = Batch(exact, frozenset(), slots=4)
    batch.add(ask_for(40, max_tokens=30))
    batch.step()
    again = Request(prompt_ids=ask_for(40).prompt_ids, max_tokens=12, seed=5)
    longer = Request(prompt_ids=(*ask_for(40).prompt_ids[:30], 7, 8, 9), max_tokens=12, seed=5)
    keys = [batch.add(again), batch.add(longer)]
    drawn = run_out(batch)
    assert reads.tokens == 40 + 1 + 3
    for key, each in zip(keys, (again, longer), strict=True):
        assert [token.token_id for token in drawn[key]] == list(
            complete(exact, frozenset(), [each])[0].token_ids
        )


def test_who_wants_the_same_again_has_the_whole_prompt_read(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch, ask_for: Any, run_out: Any
) -> None:
    """What was read in other portions differs in its last bits: neither what runs nor what is kept is taken."""
    reads = Reads(exact, monkeypatch)
    batch = Batch(exact, frozenset(), slots=2, kept_bytes=1 << 24)
    for running in (True, False):
        batch.add(ask_for(40, max_tokens=3))
        batch.step()
        if not running:
            run_out(batch)
        before = reads.tokens
        batch.add(ask_for(40, max_tokens=3, afresh=True))
        run_out(batch)
        assert reads.tokens - before == 40


def test_the_next_turn_of_a_chat_reads_only_what_is_new(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch, ask_for: Any, run_out: Any
) -> None:
    batch = Batch(exact, frozenset(), slots=2, kept_bytes=1 << 24)
    first = ask_for(50, max_tokens=10)
    batch.add(first)
    (answer,) = run_out(batch).values()
    said = [token.token_id for token in answer]
    follow_up = Request(prompt_ids=(*first.prompt_ids, *said, 5, 6, 7), max_tokens=12, seed=2)
    other = Request(prompt_ids=(*first.prompt_ids, *said[:4], 99, 98), max_tokens=12, seed=3)
    expected = [complete(exact, frozenset(), [each])[0].token_ids for each in (follow_up, other)]
    reads = Reads(exact, monkeypatch)
    keys = [batch.add(follow_up), batch.add(other)]
    drawn = run_out(batch)
    # The last token drawn was never read.
    assert [len(piece.token_ids) for piece in reads.pieces[0]] == [4, 2]
    assert [tuple(token.token_id for token in drawn[key]) for key in keys] == expected


def test_what_is_kept_stays_within_its_room(
    exact: Transformer, monkeypatch: pytest.MonkeyPatch, ask_for: Any, run_out: Any
) -> None:
    a_token = 2 * exact.shape.layers * exact.shape.key_heads * exact.shape.head_width * 8
    batch = Batch(exact, frozenset(), slots=1, kept_bytes=110 * a_token)
    first, second, third = (ask_for(50, seed=seed, max_tokens=2) for seed in (1, 2, 3))
    reads = Reads(exact, monkeypatch)
    for each in (first, second, first, third, first, second):
        batch.add(each)
        run_out(batch)
    # Each needs 51 tokens: two fit, and the one that was not used for longest goes.
    assert [len(pieces[0].token_ids) for pieces in reads.pieces] == [50, 50, 1, 50, 1, 50]


def test_a_cache_that_grows_and_shrinks_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, exact: Transformer, ask_for: Any
) -> None:
    requests = [ask_for(length, seed=length, max_tokens=40) for length in (3, 60, 9, 7)]
    expected = complete(exact, frozenset(), requests)
    monkeypatch.setattr(generation, "_STRIDE", 2)
    assert [each.token_ids for each in complete(exact, frozenset(), requests, slots=2)] == [
        each.token_ids for each in expected
    ]


def test_slots_are_made_for_those_who_come_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, exact: Transformer, ask_for: Any, run_out: Any, alone: Any
) -> None:
    slots: list[int] = []
    resized = KeyValueCache.resized

    def noted(cache: KeyValueCache, length: int, count: int) -> KeyValueCache:
        slots.append(count)
        return resized(cache, length, count)

    monkeypatch.setattr(KeyValueCache, "resized", noted)
    batch = Batch(exact, frozenset(), slots=8, portion=8)
    first, long = ask_for(max_tokens=40), ask_for(60, seed=1, max_tokens=50)
    keys = {batch.add(first): first}
    found: dict[int, list[Token]] = {}
    later = {2: [long], 4: [ask_for(seed=seed) for seed in range(2, 6)]}  # while the long one is being read
    for step in range(12):
        for each in later.get(step, []):
            keys[batch.add(each)] = each
        for token in batch.step():
            found.setdefault(token.key, []).append(token)
        assert step >= 2 or not slots
    assert max(slots) == 8 + 1
    for key, tokens in run_out(batch).items():
        found.setdefault(key, []).extend(tokens)
    for key, each in keys.items():
        expected = torch.tensor(alone(exact, each).logprobs)
        assert_close(torch.tensor([token.logprob for token in found[key]]), expected, atol=1e-6, rtol=0)
    assert slots[-1] <= 2 + 1

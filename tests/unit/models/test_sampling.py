"""Drawing tokens: the distribution is the one asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.models import sampling
from tutelage.models.sampling import Edits, RowSampling, draw, uniforms

SHARES = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.2, 0.1])
CHI_SQUARE_99999 = 30.9  # its 99.999th percentile for 6 classes (5 degrees of freedom)


def draw_many(logits: Tensor, *, temperature: float, top_p: float, rows: int = 20000) -> Tensor:
    """How often each token is drawn, (vocabulary,)."""
    same = sampling_of([temperature] * rows, [top_p] * rows)
    tokens = draw(logits.expand(rows, -1), same).tokens
    return torch.bincount(tokens, minlength=len(logits)).float()


def sampling_of(temperature: list[float], top_p: list[float], first_seed: int = 0) -> RowSampling:
    """Rows with seeds of their own, at the place 3 of their completions."""
    warm = [p for t, p in zip(temperature, top_p, strict=True) if t > 0]
    return RowSampling(
        temperature=torch.tensor(temperature),
        top_p=torch.tensor(top_p),
        seed=first_seed + torch.arange(len(top_p)),
        place=torch.full((len(top_p),), 3),
        any_greedy=0.0 in temperature,
        any_tempered=any(t not in (0, 1) for t in temperature),
        any_cut=any(p < 1 for p in warm),
        any_whole=1 in warm,
    )


def check(counts: Tensor, expected: Tensor) -> None:
    assert not counts[expected == 0].any()
    expected = expected / expected.sum() * counts.sum()
    kept = expected > 0
    assert (((counts - expected)[kept] ** 2) / expected[kept]).sum() < CHI_SQUARE_99999


def test_tokens_are_drawn_by_their_shares() -> None:
    check(draw_many(SHARES.log(), temperature=1.0, top_p=1.0), SHARES)


def test_temperature_sharpens_the_shares() -> None:
    check(draw_many(SHARES.log(), temperature=0.5, top_p=1.0), SHARES**2)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, [1]), (0.41, [1, 3]), (0.8, [1, 3, 4]), (0.9, [1, 3, 4, 5]), (0.0, [1])]
)
@pytest.mark.parametrize("candidates", [(64, 1024), (2, 3), (1,)])
def test_top_p_draws_from_the_smallest_set_that_reaches_it(
    monkeypatch: pytest.MonkeyPatch, top_p: float, kept: list[int], candidates: tuple[int, ...]
) -> None:
    monkeypatch.setattr(sampling, "TOP_P_CANDIDATES", candidates)
    expected = torch.zeros_like(SHARES)
    expected[kept] = SHARES[kept]
    check(draw_many(SHARES.log(), temperature=1.0, top_p=top_p), expected)


@pytest.mark.parametrize("counts", [(), (2,), (1,)])
def test_a_nucleus_ends_with_the_token_that_reaches_top_p(counts: tuple[int, ...]) -> None:
    shares = torch.tensor([[0.25, 0.5, 0.25]]).expand(2, -1)
    drawn = sampling._draw_nucleus(shares, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.999]), counts)
    assert drawn.tolist() == [1, 1]
    assert sampling._threshold(shares, torch.tensor([0.5, 0.6])).tolist() == [[0.5], [0.25]]


def test_top_p_looks_at_the_tempered_shares() -> None:
    """At temperature 0.25 the shares are the fourth powers: the best token alone holds more than 0.8."""
    counts = draw_many(SHARES.log(), temperature=0.25, top_p=0.8, rows=500)
    assert counts[1] == 500


def test_rows_keep_their_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "uniforms", lambda *_: torch.tensor([0.99, 0.99, 0.99, 0.0]))
    drawn = draw(SHARES.log().expand(4, -1), sampling_of([0.0, 1.0, 1.0, 0.5], [1.0, 1.0, 0.5, 1.0]))
    assert drawn.tokens.tolist() == [1, 5, 3, 0]
    # Whatever the settings, log-probabilities are those of the model.
    assert_close(drawn.logprobs, SHARES[drawn.tokens].log())


def test_the_most_probable_tokens_are_named() -> None:
    drawn = draw(SHARES.log()[None], sampling_of([0.5], [0.5]), top=3)
    assert drawn.top_ids is not None
    assert drawn.top_logprobs is not None
    assert drawn.top_ids.tolist() == [[1, 3, 4]]
    assert_close(drawn.top_logprobs, SHARES[[1, 3, 4]].log()[None])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.01])
def test_edits_change_what_is_drawn_and_not_its_log_probability(temperature: float) -> None:
    """Those of one token add up, a bias and a penalty, say."""
    rows, tokens = torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0, 5, 5, 1, 1])
    edits = Edits(rows, tokens, torch.tensor([100.0, 60.0, 40.0, -200.0, 150.0]))
    drawn = draw(SHARES.log().expand(3, -1), sampling_of([temperature] * 3, [1.0] * 3), edits=edits)
    assert drawn.tokens[:2].tolist() == [0, 5]
    assert drawn.tokens[2] != 1
    assert_close(drawn.logprobs, SHARES[drawn.tokens].log())


def test_a_token_that_cannot_be_has_a_finite_log_probability() -> None:
    edits = Edits(torch.tensor([0]), torch.tensor([2]), torch.tensor([1000.0]))
    logits = SHARES.clamp_min(1e-40).log() * 4
    drawn = draw(logits[None], sampling_of([1.0], [1.0]), edits=edits)
    assert drawn.tokens.tolist() == [2]
    assert -400 < float(drawn.logprobs) < -100


def test_a_wide_nucleus_is_drawn_like_a_narrow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.softmax(torch.randn(2048, generator=torch.Generator().manual_seed(1)), dim=-1)
    kept = (
        shares
        >= shares.sort(descending=True).values[(shares.sort(descending=True).values.cumsum(0) < 0.7).sum()]
    )
    counts = draw_many(shares.log(), temperature=1.0, top_p=0.7, rows=3000)
    assert kept.sum() > 600
    assert not counts[~kept].any()
    assert counts.sum() == 3000
    assert (counts[kept] > 0).sum() > 500


@pytest.mark.parametrize(("size", "count"), [(49152, 1), (49152, 20), (4096, 3), (264, 1), (1001, 5)])
def test_the_best_of_blocks_are_the_best_of_all(size: int, count: int) -> None:
    numbers = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    best, index = sampling._topk(numbers, count)
    assert torch.equal(best, numbers.topk(count).values)
    assert torch.equal(numbers.gather(1, index), best)
    numbers[:, 7] = numbers[:, size - 9] = numbers.max() + 1  # of equal ones, the first
    assert sampling._argmax(numbers).tolist() == [[7]] * 5


@pytest.mark.parametrize("size", [1, 7, 264, 1000, 49152])
def test_any_vocabulary_is_looked_up(size: int) -> None:
    """Of equal shares, the one drawn stands where the number stands between 0 and 1."""
    rows = sampling_of([1.0] * 50, [1.0] * 50)
    drawn = draw(torch.zeros(50, size), rows)
    expected = (uniforms(rows.seed, rows.place) * size).long()
    assert (drawn.tokens - expected).abs().max() <= (1 if size > 1000 else 0)


def test_numbers_are_uniform_and_have_nothing_in_common() -> None:
    seeds, places = torch.arange(-200, 200)[:, None], torch.arange(400)[None]
    numbers = uniforms(seeds, places)
    assert bool(((numbers >= 0) & (numbers < 1)).all())
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    expected = numbers.numel() / 100
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 180  # far beyond the 99.999th percentile of 99 degrees
    for first, second in (
        (numbers[1:], numbers[:-1]),
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers, numbers.T),
    ):
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(correlation) < 0.015
    # By this number places are set apart: a seed as far away from another is not its next place.
    golden = -7046029254386353131
    assert not torch.equal(uniforms(seeds + golden, places), uniforms(seeds, places + 1))


def test_temperature_0_takes_the_best_token_at_any_draw() -> None:
    counts = draw_many(SHARES.log(), temperature=0.0, top_p=0.5, rows=100)
    assert counts[1] == 100


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("places", [3, 64])
def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token(
    monkeypatch: pytest.MonkeyPatch, uniform: float, places: int
) -> None:
    monkeypatch.setattr(sampling, "uniforms", lambda *_: torch.tensor([uniform]))
    likely = torch.linspace(-1, 1, places)
    logits = torch.full((places + 64,), -torch.inf)
    logits[32 : 32 + places] = likely
    drawn = draw(logits[None], sampling_of([1.0], [1.0]))
    assert drawn.tokens.item() == (32 if uniform == 0 else 31 + places)
    assert bool(drawn.logprobs.isfinite().all())


def test_a_draw_at_the_edge_of_a_block_is_never_an_impossible_token() -> None:
    """Sums of blocks and sums inside a block are rounded apart: what is left to look for may fall below 0."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(512, 8, 256, generator=generator) * (
        torch.rand(512, 8, 256, generator=generator) < 0.1
    )
    shares[:, :, 0] = 0.0
    sums = shares.sum(dim=-1).cumsum(dim=-1)
    for block in range(7):
        tokens = sampling._look_up(shares.flatten(1), sums[:, block] / sums[:, -1])
        assert bool((shares.flatten(1).gather(1, tokens[:, None]) > 0).all())

"""Drawing tokens: the distribution is the one asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.models import sampling
from tutelage.models.sampling import RowSampling, draw

SHARES = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.2, 0.1])
CHI_SQUARE_99999 = 30.9  # its 99.999th percentile for 6 classes (5 degrees of freedom)


def draw_many(logits: Tensor, *, temperature: float, top_p: float, rows: int = 20000) -> Tensor:
    """How often each token is drawn, (vocabulary,)."""
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    same = RowSampling(torch.full((rows,), temperature), torch.full((rows,), top_p), uniform)
    tokens, _ = draw(logits.expand(rows, -1), same)
    return torch.bincount(tokens, minlength=len(logits)).float()


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
@pytest.mark.parametrize("candidates", [512, 2])
def test_top_p_draws_from_the_smallest_set_that_reaches_it(
    monkeypatch: pytest.MonkeyPatch, top_p: float, kept: list[int], candidates: int
) -> None:
    monkeypatch.setattr(sampling, "_TOP_P_CANDIDATES", candidates)
    expected = torch.zeros_like(SHARES)
    expected[kept] = SHARES[kept]
    check(draw_many(SHARES.log(), temperature=1.0, top_p=top_p), expected)


def test_top_p_looks_at_the_tempered_shares() -> None:
    """At temperature 0.25 the shares are the fourth powers: the best token alone holds more than 0.8."""
    counts = draw_many(SHARES.log(), temperature=0.25, top_p=0.8, rows=500)
    assert counts[1] == 500


def test_rows_keep_their_own_settings() -> None:
    logits = SHARES.log().expand(4, -1)
    mixed = RowSampling(
        temperature=torch.tensor([0.0, 1.0, 1.0, 0.5]),
        top_p=torch.tensor([1.0, 1.0, 0.5, 1.0]),
        uniform=torch.tensor([0.99, 0.99, 0.99, 0.0]),
    )
    tokens, logprobs = draw(logits, mixed)
    assert tokens.tolist() == [1, 5, 3, 0]
    # Whatever the settings, log-probabilities are those of the model.
    assert_close(logprobs, SHARES[tokens].log())


def test_temperature_0_takes_the_best_token_at_any_draw() -> None:
    counts = draw_many(SHARES.log(), temperature=0.0, top_p=0.5, rows=100)
    assert counts[1] == 100


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token(uniform: float) -> None:
    logits = torch.tensor([-torch.inf, 0.0, 0.3, -0.2, -torch.inf])
    ends = RowSampling(torch.ones(1), torch.ones(1), torch.tensor([uniform]))
    tokens, logprobs = draw(logits[None], ends)
    assert tokens.item() == (1 if uniform == 0 else 3)
    assert bool(logprobs.isfinite().all())

"""The checks of a run on rollouts made by hand."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from tutelage.errors import InvariantViolated
from tutelage.training.invariants import (
    check_first_ratio,
    check_reference,
    check_rollout,
    check_sampler,
    check_start,
)
from tutelage.training.rollouts import Rollout


def rollout(logprobs: Tensor, *, entropy: float = 1.0, kl: float = 0.0) -> Rollout:
    """Rows of tokens, all of the same entropy and with the same log-ratio to the reference."""
    rows = torch.zeros(len(logprobs))
    return Rollout(
        examples=[],
        ended=rows.bool(),
        mask=torch.ones_like(logprobs).bool(),
        logprobs=logprobs,
        reference_logprobs=logprobs - kl,
        sampler_logprobs=logprobs,
        entropies=torch.full_like(logprobs, entropy),
        values=torch.zeros_like(logprobs),
        scores=rows,
        spread=rows,
    )


def violated(match: str | None) -> AbstractContextManager[object]:
    return nullcontext() if match is None else pytest.raises(InvariantViolated, match=match)


@pytest.mark.parametrize(
    ("tokens", "gap", "match"),
    [(100, 0.9, "likelier than"), (100, -0.9, "less likely than"), (100, 0.0, None), (99, 0.9, None)],
)
def test_draws_are_as_likely_on_the_whole_as_the_entropy_says(
    tokens: int, gap: float, match: str | None
) -> None:
    logprobs = torch.full((1, tokens), gap - 1.0)
    logprobs[0, 0] += 0.01 * (-1.0 if gap else 1.0)
    with violated(match):
        check_sampler(rollout(logprobs), "here")


def test_where_the_policy_is_nearly_sure_surprises_may_stay_away() -> None:
    share = 0.999  # of one token, of two: a draw of the other is due once in a thousand
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    check_sampler(rollout(torch.full((1, 1000), math.log(share)), entropy=entropy), "here")


@pytest.mark.parametrize("kl", [0.001, -0.001])
def test_a_policy_that_has_not_learnt_is_near_the_reference_on_both_sides(kl: float) -> None:
    logprobs = torch.full((2, 3), -1.0)
    check_start(rollout(logprobs, kl=kl / 1000), "here")
    with pytest.raises(InvariantViolated, match=r"up to 0\.0030 nats away"):
        check_start(rollout(logprobs, kl=kl), "here")


@pytest.mark.parametrize("ratio", [1.01, 0.99, float("nan")])
def test_the_first_ratio_is_one(ratio: float) -> None:
    check_first_ratio(torch.tensor([1.0, 1.00001, 0.99999]), "here")
    with pytest.raises(InvariantViolated, match="before any update"):
        check_first_ratio(torch.tensor([1.0, ratio]), "here")


def test_few_rows_say_nothing_about_the_sign_of_a_kl() -> None:
    check_rollout(rollout(torch.full((7, 2), -1.0), kl=-0.5), "here", kl_limit=9.0)
    with pytest.raises(InvariantViolated, match="no true KL is below zero"):
        check_rollout(rollout(torch.full((8, 2), -1.0), kl=-0.5), "here", kl_limit=9.0)


@pytest.mark.parametrize("now", [-2.01, -1.99, 3.0])
def test_the_reference_is_known_again(now: float) -> None:
    check_reference(-2.0, -2.001)
    check_reference(0.0, 0.0005)
    with pytest.raises(InvariantViolated, match="began with"):
        check_reference(-2.0, now)

"""Loss kernels against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

from tutelage.dialogue import Preference
from tutelage.training.losses import clipped_policy_loss, clipped_value_loss, preference_loss


def test_preference_loss_is_the_mean_over_all_pairs() -> None:
    scores = torch.tensor([2.0, 1.0, -1.0])
    pairs = [Preference(0, 1), Preference(0, 2), Preference(1, 2)]
    expected = sum(math.log(1 + math.exp(-margin)) for margin in (1.0, 3.0, 2.0)) / 3
    assert math.isclose(preference_loss(scores, pairs).item(), expected, rel_tol=1e-6)


def test_a_tie_pulls_two_scores_together() -> None:
    scores = torch.tensor([1.0, 0.0], requires_grad=True)
    preference_loss(scores, [Preference(0, 1, tie=True)]).backward()
    assert scores.grad is not None
    assert scores.grad[0] > 0 > scores.grad[1]
    level = torch.tensor([0.3, 0.3], requires_grad=True)
    preference_loss(level, [Preference(0, 1, tie=True)]).backward()
    assert level.grad is not None
    assert level.grad.abs().max() < 1e-7


def test_policy_loss_clips_only_where_it_would_gain() -> None:
    old = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5]))
    new = torch.log(torch.tensor([0.75, 0.75, 0.25, 0.25, 0.5]))
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])
    # ratios 1.5, 1.5, 0.5, 0.5, 1; clipped to 1.2 and 0.8 only for the first and the fourth
    result = clipped_policy_loss(new, old, advantages, 0.2)
    assert math.isclose(result.loss.item(), -1.2 + 1.5 - 0.5 + 0.8, rel_tol=1e-6)
    assert math.isclose(result.clipped.item(), 2 / 5, rel_tol=1e-6)
    assert torch.allclose(result.ratio, torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0]))


def test_a_clipped_token_has_no_gradient() -> None:
    new = torch.log(torch.tensor([0.75])).requires_grad_()
    result = clipped_policy_loss(new, torch.log(torch.tensor([0.5])), torch.tensor([1.0]), 0.2)
    result.loss.backward()
    assert not result.ratio.requires_grad
    assert new.grad is not None
    assert new.grad.item() == 0.0


def test_value_loss_takes_the_worse_of_clipped_and_plain() -> None:
    values, old, returns = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    # first: plain 0, clipped (0.2 - 1)^2 = 0.64; second: both (0.1 - 1)^2 = 0.81
    loss = clipped_value_loss(values, old, returns, 0.2)
    assert math.isclose(loss.item(), 0.5 * (0.64 + 0.81), rel_tol=1e-6)

"""Token rewards and advantages against numbers worked out by hand."""

from __future__ import annotations

import torch

from tutelage.training.advantages import generalised_advantages, token_rewards, whiten

MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_the_score_lands_on_exactly_one_token() -> None:
    rewards = token_rewards(torch.tensor([5.0, 7.0]), torch.zeros(2, 3), MASK, beta=0.1)
    assert rewards.tolist() == [[0, 0, 5], [0, 7, 0]]


def test_kl_is_charged_at_every_token_and_nowhere_else() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, -0.5, 9.0]])
    rewards = token_rewards(torch.tensor([1.0, 2.0]), kl, MASK, beta=0.5)
    assert torch.allclose(rewards, torch.tensor([[-0.05, -0.1, 0.85], [-0.2, 2.25, 0.0]]))


def test_advantages_of_a_worked_example() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    values = torch.tensor([[0.5, 0.4, 0.3], [1.0, 1.5, 9.0]])
    advantages, returns = generalised_advantages(rewards, values, MASK, gamma=1.0, lam=0.5)
    # row 1, backwards: 1 - 0.3 = 0.7; 0.3 - 0.4 + 0.35 = 0.25; 0.4 - 0.5 + 0.125 = 0.025
    # row 2, backwards: 2 - 1.5 = 0.5; 1.5 - 1 + 0.25 = 0.75; what stands behind the mask counts for nothing
    assert torch.allclose(advantages, torch.tensor([[0.025, 0.25, 0.7], [0.75, 0.5, 0.0]]))
    assert torch.allclose(returns, torch.tensor([[0.525, 0.65, 1.0], [1.75, 2.0, 0.0]]))


def test_lambda_one_gives_the_plain_return() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    values = torch.tensor([[0.3, -0.2, 0.9]])
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    _, returns = generalised_advantages(rewards, values, everywhere, gamma=0.5, lam=1.0)
    assert torch.allclose(returns, torch.tensor([[1 + 1 + 0.75, 2 + 1.5, 3.0]]))


def test_whitened_over_the_mask_alone() -> None:
    white = whiten(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 1000.0]]), MASK)
    inside = white[MASK]
    assert abs(inside.mean().item()) < 1e-6
    assert abs(inside.std(correction=0).item() - 1) < 1e-5
    assert white[1, 2] == 0

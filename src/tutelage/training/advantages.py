"""Rewards a token, advantages and returns. All tensors are (batch, longest), True in `mask` where a token is."""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """-beta * kl at every token, plus the sequence's score at its last token and nowhere else.

    scores: (batch,); kl: (batch, longest) log-ratio of policy to reference at the sampled token.
    Source: Ziegler et al. 2019 (1909.08593), equation 2.
    """
    rewards = -beta * kl * mask
    last = mask.sum(dim=1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns; the value after the last token is 0.

    Source: Schulman et al. 2015 (1506.02438), equation 16.
    """
    advantages = torch.zeros_like(rewards)
    ahead = torch.zeros(len(rewards))
    next_value = torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        ahead = torch.where(here, delta + gamma * lam * ahead, ahead)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, ahead, advantages[:, t])
    return advantages, (advantages + values) * mask


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the mask; 0 elsewhere."""
    inside = advantages[mask]
    return torch.where(mask, (advantages - inside.mean()) / (inside.std(correction=0) + 1e-8), 0.0)

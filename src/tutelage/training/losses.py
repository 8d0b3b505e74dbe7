"""Loss kernels: pure functions of tensors, each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.dialogue import Preference


def preference_loss(scores: Tensor, preferences: Sequence[Preference]) -> Tensor:
    """Mean over all judged pairs of one prompt of -log sigmoid(better - worse); a tie has the target 1/2.

    scores: (completions,) -> (). Source: Ouyang et al. 2022 (2203.02155), equation 1, with soft ties.
    """
    better = torch.tensor([pair.better for pair in preferences], device=scores.device)
    worse = torch.tensor([pair.worse for pair in preferences], device=scores.device)
    target = torch.tensor([0.5 if pair.tie else 1.0 for pair in preferences], device=scores.device)
    return F.binary_cross_entropy_with_logits(scores[better] - scores[worse], target)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """loss: (); ratio: (tokens,) new over old probability; clipped: () share of tokens at the clip."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float
) -> PolicyLoss:
    """PPO's clipped objective, summed over tokens. All inputs: (tokens,).

    Source: Schulman et al. 2017 (1707.06347), equation 7.
    """
    ratio = (logprobs - old_logprobs).exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    clipped = (bounded > plain).float().mean()
    return PolicyLoss(torch.maximum(plain, bounded).sum(), ratio.detach(), clipped)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, not letting a value move further than `clip` from its old one; summed over tokens.

    All inputs: (tokens,). Source: the PPO reference implementation, as in Huang et al. 2024 (2403.17031).
    """
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (bounded - returns) ** 2).sum()

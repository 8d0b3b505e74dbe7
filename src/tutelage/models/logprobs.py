"""Log-probabilities of chosen tokens, without ever holding logits for more than a chunk of positions.

The gradient of one token's log-probability with respect to its hidden state is a vector as wide as the
model. It is computed in the forward pass, chunk by chunk, while the logits are there; the backward pass only
scales it. So peak memory does not grow with tokens x vocabulary, and nothing is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 512


@dataclass(frozen=True, slots=True)
class TokenScores:
    """logprobs: (tokens,) natural log-probability of each target; entropy: (tokens,) in nats, no gradient."""

    logprobs: Tensor
    entropy: Tensor


def token_scores(hidden: Tensor, head: Tensor, targets: Tensor, *, temperature: float = 1.0) -> TokenScores:
    """Score `targets` under softmax(hidden @ head.T / temperature), in fp32.

    hidden: (tokens, width); head: (vocabulary, width), frozen; targets: (tokens,).
    """
    logprobs, entropy = _TokenScores.apply(hidden, head, targets, temperature)  # type: ignore[no-untyped-call]
    return TokenScores(logprobs, entropy)


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logs = F.linear(hidden[part], head).float().div_(temperature)
            logs = logs.sub_(logs.logsumexp(dim=-1, keepdim=True))
            target = targets[part, None]
            logprobs[part] = logs.gather(1, target)[:, 0]
            shares = logs.exp()
            entropy[part] = -(shares * logs).sum(dim=-1)
            if gradient is not None:
                shares.neg_().scatter_add_(1, target, torch.ones_like(target, dtype=shares.dtype))
                gradient[part] = F.linear(shares.div_(temperature).to(head.dtype), head.T)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        scaled = None if gradient is None else gradient * outputs[0][:, None].to(gradient.dtype)
        return scaled, None, None, None

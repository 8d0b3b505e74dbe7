"""Log-probabilities of chosen tokens, without ever holding logits for more than a chunk of positions.

With a frozen head, the gradient of one token's log-probability with respect to its hidden state is a vector as wide
as the model. It is computed in the forward pass, chunk by chunk, while the logits are there; the backward pass only
scales it. So peak memory does not grow with tokens x vocabulary, and nothing is computed twice. A head that trains
needs the outer gradient first: its chunks are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # rows of one product with the head
_BLOCK = 8  # rows of one softmax in fp32: few enough to stay in a processor's cache


@dataclass(frozen=True, slots=True)
class TokenScores:
    """logprobs: (tokens,) natural log-probability of each target; entropy: (tokens,) in nats, no gradient."""

    logprobs: Tensor
    entropy: Tensor


def token_scores(hidden: Tensor, head: Tensor, targets: Tensor, *, temperature: float = 1.0) -> TokenScores:
    """Score `targets` under softmax(hidden @ head.T / temperature), in fp32.

    hidden: (tokens, width); head: (vocabulary, width); targets: (tokens,).
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
        head_trains = ctx.needs_input_grad[1]
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not head_trains else None
        for part, logits, matrix in _logits(hidden, head):
            for block in _blocks(logits):
                rows = slice(part.start + block.start, part.start + block.stop)
                scaled, shares = _softmax(logits[block], temperature)
                target = targets[rows, None]
                # The largest share is 1 over the sum of exponentials: no second pass of them for the normaliser.
                normaliser = scaled.amax(dim=-1) - shares.amax(dim=-1).log()
                logprobs[rows] = scaled.gather(1, target)[:, 0] - normaliser
                entropy[rows] = normaliser - torch.linalg.vecdot(shares, scaled)
                if gradient is not None:
                    logits[block] = _to_logits(shares, target).div_(temperature)
            if gradient is not None:
                torch.mm(logits, matrix, out=gradient[part])
        ctx.save_for_backward(gradient, *((hidden, head, targets) if head_trains else ()))
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient, *again = ctx.saved_tensors
        outer = outputs[0][:, None]
        if gradient is not None:
            return gradient * outer.to(gradient.dtype), None, None, None
        if not again:
            return None, None, None, None
        hidden, head, targets = again
        outer = outer / ctx.temperature
        to_hidden, to_head = torch.empty_like(hidden), torch.zeros_like(head)
        for part, logits, matrix in _logits(hidden, head):
            for block in _blocks(logits):
                rows = slice(part.start + block.start, part.start + block.stop)
                _, shares = _softmax(logits[block], ctx.temperature)
                logits[block] = _to_logits(shares, targets[rows, None]).mul_(outer[rows])
            torch.mm(logits, matrix, out=to_hidden[part])
            to_head += logits.t() @ hidden[part]
        return to_hidden, to_head, None, None


def _logits(hidden: Tensor, head: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each part of the rows, its logits (one buffer, made anew), and the head in the dtype of `hidden`."""
    matrix = head.to(hidden.dtype)
    buffer = hidden.new_empty(min(CHUNK, len(hidden)), len(head))
    for part in _parts(len(hidden), CHUNK):
        logits = buffer[: part.stop - part.start]
        torch.mm(hidden[part], matrix.t(), out=logits)
        yield part, logits, matrix


def _softmax(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits over temperature, and their softmax, both fp32 and not the input's memory."""
    scaled = logits.to(torch.float32, copy=True)
    if temperature != 1.0:
        scaled.div_(temperature)
    return scaled, torch.softmax(scaled, dim=-1)


def _to_logits(shares: Tensor, target: Tensor) -> Tensor:
    """Gradient of each row's log-probability with respect to its logits: one at the target, less the shares."""
    return shares.neg_().scatter_add_(1, target, torch.ones_like(target, dtype=shares.dtype))


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, length)) for first in range(0, length, size))


def _blocks(logits: Tensor) -> Iterator[slice]:
    """On a CPU the softmax runs over a few rows at a time."""
    return _parts(len(logits), _BLOCK if logits.device.type == "cpu" else len(logits))

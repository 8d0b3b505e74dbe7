"""The optimizer and the learning rate of every recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from tutelage.errors import TrainingError
from tutelage.training.distributed import by_layout, sum_gradients, total_norm


def adamw(groups: Sequence[tuple[Iterable[nn.Parameter], float]]) -> torch.optim.AdamW:
    """AdamW without decay, eps 1e-5 (Huang et al. 2024, 2403.17031: PyTorch's default is too aggressive early).

    groups: parameters with their peak learning rate.
    """
    settings = [
        {"params": group, "lr": rate, "peak": rate} for given, rate in groups for group in by_layout(given)
    ]
    return torch.optim.AdamW(settings, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0, foreach=True)


def cosine(step: int, total: int, *, warmup: int, floor: float = 0.1) -> float:
    """Share of the peak rate at a step: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def update(optimizer: torch.optim.Optimizer, loss: float, *, max_norm: float, where: str) -> float:
    """Add up the gradients of all processes, clip them, take the step, clear them; returns the norm before clipping.

    Raises TrainingError, before any weight has changed, when the loss or a gradient is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sum_gradients(parameters)
    norm = float(total_norm([each.grad for each in parameters if each.grad is not None]))
    for group in by_layout(parameters):
        torch.nn.utils.clip_grads_with_norm_(group, max_norm, torch.tensor(norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"the loss is {loss} and the gradient's norm {norm}",
            where=where,
            hint="begin a new run with a lower learning rate; this one's last checkpoint is from before",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm

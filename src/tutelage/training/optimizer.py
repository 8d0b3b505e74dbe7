"""The optimizer and the learning rate of every recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tutelage.errors import Sentence, TrainingError
from tutelage.training.distributed import by_layout, sum_gradients, total_norm


class AdamW:
    """AdamW without decay, eps 1e-5 (Huang et al. 2024, 2403.17031: PyTorch's default is too aggressive early).

    The arithmetic is PyTorch's. Its class brings in its compiler as well, and every process that trains would start
    seconds later.
    groups: parameters with their peak learning rate.
    """

    def __init__(self, groups: Sequence[tuple[Iterable[nn.Parameter], float]]) -> None:
        self.param_groups: list[dict[str, Any]] = [
            {"params": group, "lr": rate, "peak": rate}
            for given, rate in groups
            for group in by_layout(given)
        ]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state(parameter) for parameter in trained]
            adamw(
                trained,
                [parameter.grad for parameter in trained],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                max_exp_avg_sqs=[],
                state_steps=[state["step"] for state in states],
                foreach=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.95,
                lr=group["lr"],
                weight_decay=0.0,
                eps=1e-5,
                maximize=False,
            )

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Steps taken, and the means of the gradient and of its square."""
        if parameter not in self.state:
            averages = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.tensor(0.0), **averages}
        return self.state[parameter]


def cosine(step: int, total: int, *, warmup: int, floor: float = 0.1) -> float:
    """Share of the peak rate at a step before `total`: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimizer: AdamW, share: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def update(optimizer: AdamW, loss: float, *, max_norm: float, where: str) -> float:
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
            Sentence("the loss is {loss} and the gradient's norm {norm}", loss=loss, norm=norm),
            where=where,
            hint="begin a new run with a lower learning rate; this one's last checkpoint is from before",
        )
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return norm

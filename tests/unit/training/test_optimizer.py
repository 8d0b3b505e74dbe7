"""The optimizer stops at numbers that are none, before any weight has changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage.errors import TrainingError
from tutelage.training.optimizer import adamw, cosine, set_rate, update


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_changes_nothing(bad: float) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = adamw([([weight], 0.1)])
    (weight * bad).sum().backward()
    with pytest.raises(TrainingError, match="loss") as raised:
        update(optimizer, bad, max_norm=1.0, where="SFT step 7")
    assert weight.tolist() == [1.0, 1.0]
    assert raised.value.where == "SFT step 7"


def test_the_gradient_is_clipped_and_its_norm_told() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    (weight * 10).sum().backward()
    assert update(optimizer, 0.0, max_norm=1.0, where="") == 10.0
    assert abs(weight.item() + 1.0) < 1e-5
    assert weight.grad is None


def test_the_rate_warms_up_then_falls_to_its_floor() -> None:
    rates = [cosine(step, 100, warmup=4) for step in range(101)]
    assert rates[:4] == [0.2, 0.4, 0.6, 0.8]
    assert rates[4] == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert abs(rates[100] - 0.1) < 1e-9


def test_a_share_of_each_groups_own_peak() -> None:
    optimizer = adamw([([nn.Parameter(torch.zeros(1))], 1.0), ([nn.Parameter(torch.zeros(1))], 10.0)])
    set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]
    assert all(group["eps"] == 1e-5 for group in optimizer.param_groups)

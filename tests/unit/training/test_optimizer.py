"""The optimizer stops at numbers that are none, before any weight has changed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from tutelage.errors import TrainingError
from tutelage.training.optimizer import AdamW, cosine, set_rate, update


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_a_gradient_that_is_no_number_changes_nothing(bad: float, where: str) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = AdamW([([weight], 0.1)])
    (weight * (bad if where == "gradient" else 1.0)).sum().backward()
    with pytest.raises(TrainingError, match="loss") as raised:
        update(optimizer, bad if where == "loss" else 1.0, max_norm=1.0, where="SFT step 7")
    assert weight.tolist() == [1.0, 1.0]
    assert raised.value.where == "SFT step 7"


class Descent(AdamW):
    """Steps as long as the gradient: Adam's hardly depend on its length."""

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter -= parameter.grad


def test_the_gradient_is_clipped_and_its_norm_told() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = Descent([([weight], 1.0)])
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
    optimizer = AdamW([([nn.Parameter(torch.zeros(1))], 1.0), ([nn.Parameter(torch.zeros(1))], 10.0)])
    set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]


def test_its_steps_are_those_of_adamw_to_the_last_bit() -> None:
    """Without decay, with eps 1e-5 and the usual means; a weight without a gradient stays where it is."""
    start = [torch.randn(3, 4), torch.randn(5), torch.randn(2)]
    ours, theirs = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizer = AdamW([(ours[:1], 0.1), (ours[1:], 0.01)])
    settings = {"betas": (0.9, 0.95), "eps": 1e-5, "weight_decay": 0.0, "foreach": True}
    groups = [{"params": theirs[:1], "lr": 0.1}, {"params": theirs[1:], "lr": 0.01}]
    reference = torch.optim.AdamW(groups, **settings)
    for step in range(5):
        for weights in (ours, theirs):
            sum((weight * (step - 2) - 1).pow(2).sum() for weight in weights[:2]).backward()
        optimizer.step()
        reference.step()
        for weight in (*ours, *theirs):
            weight.grad = None
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert torch.equal(ours[2], start[2])
    assert not torch.equal(ours[0], start[0])


def test_training_does_not_wait_for_the_compiler_to_load() -> None:
    code = (
        "import sys, torch\n"
        "from tutelage.training.optimizer import AdamW, update\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "weight.sum().backward()\n"
        "update(AdamW([([weight], 0.1)]), 1.0, max_norm=1.0, where='')\n"
        "slow = {'torch._dynamo', 'torch.distributed.tensor', 'torch.distributed.fsdp'} & set(sys.modules)\n"
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

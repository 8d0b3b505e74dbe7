"""Chunked log-probabilities against log_softmax and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.models import logprobs
from tutelage.models.logprobs import token_scores


def test_a_worked_number() -> None:
    """Two tokens with logits 0 and ln 3: shares 1/4 and 3/4."""
    hidden, head = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3)]])
    scores = token_scores(hidden, head, torch.tensor([1]))
    assert_close(scores.logprobs, torch.tensor([math.log(3 / 4)]))
    assert_close(scores.entropy, torch.tensor([math.log(4) / 4 + 3 * math.log(4 / 3) / 4]))


def batch(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 6, generator=generator)
    head = torch.randn(11, 6, generator=generator)
    return (
        hidden,
        head,
        torch.randint(0, 11, (tokens,), generator=generator),
        torch.randn(tokens, generator=generator),
    )


@pytest.mark.parametrize("head_trains", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("tokens", [1, 4, 5, 11])
def test_values_and_gradients_equal_autograd(
    monkeypatch: pytest.MonkeyPatch, tokens: int, temperature: float, head_trains: bool
) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", 4)
    monkeypatch.setattr(logprobs, "_BLOCK", 3)
    hidden, head, targets, weight = batch(tokens)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    our_head, their_head = (head.clone().requires_grad_(head_trains) for _ in range(2))
    scores = token_scores(ours, our_head, targets, temperature=temperature)
    logs = torch.log_softmax(theirs @ their_head.T / temperature, dim=-1)
    expected = logs.gather(1, targets[:, None])[:, 0]
    assert_close(scores.logprobs, expected)
    assert_close(scores.entropy, -(logs.exp() * logs).sum(-1))
    (scores.logprobs * weight).sum().backward()
    (expected * weight).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    if head_trains:
        assert our_head.grad is not None
        assert their_head.grad is not None
        assert_close(our_head.grad, their_head.grad, atol=1e-5, rtol=1e-4)


def test_the_entropy_has_no_gradient() -> None:
    hidden, head, targets, _ = batch(3)
    scores = token_scores(hidden.requires_grad_(), head, targets)
    assert scores.logprobs.requires_grad
    assert not scores.entropy.requires_grad


def test_nothing_is_kept_for_a_backward_pass_that_cannot_come() -> None:
    hidden, head, targets, _ = batch(3)
    assert not token_scores(hidden, head, targets).logprobs.requires_grad


def test_bfloat16_states_are_scored_in_fp32() -> None:
    hidden, head, targets, _ = batch(3)
    coarse = hidden.bfloat16().requires_grad_()
    scores = token_scores(coarse, head.bfloat16(), targets)
    assert scores.logprobs.dtype == torch.float32
    scores.logprobs.sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.dtype == torch.bfloat16
    assert_close(scores.logprobs, token_scores(hidden, head, targets).logprobs, atol=0.1, rtol=0.1)

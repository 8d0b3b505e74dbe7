from __future__ import annotations

import torch
from torch.testing import assert_close

from tutelage.models.heads import ScalarHead


def test_a_worked_number() -> None:
    head = ScalarHead(2, seed=0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([2.0, -1.0]))
        head.bias.fill_(0.5)
    assert_close(head(torch.tensor([[3.0, 1.0], [0.0, 4.0]])), torch.tensor([5.5, -3.5]))


def test_initial_scores_of_unit_states_have_unit_deviation() -> None:
    """The weights have variance 1/(width + 1), so states of unit variance give scores of nearly unit variance."""
    states = torch.randn(64, 400, generator=torch.Generator().manual_seed(99))
    scores = torch.stack([ScalarHead(400, seed=seed)(states) for seed in range(40)])
    assert 0.95 < scores.std().item() < 1.05
    assert abs(scores.mean().item()) < 0.05


def test_the_seed_repeats_the_head() -> None:
    assert torch.equal(ScalarHead(8, seed=3).weight, ScalarHead(8, seed=3).weight)
    assert not torch.equal(ScalarHead(8, seed=3).weight, ScalarHead(8, seed=4).weight)


def test_normalised_scores_have_mean_0_and_deviation_1_as_often_as_it_is_done() -> None:
    head = ScalarHead(16, seed=0)
    states = 3 + torch.randn(200, 16, generator=torch.Generator().manual_seed(1))
    for scale in (1, 5):
        head.normalise(head(states * scale))
        scores = head(states * scale)
        assert_close(scores.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
        assert_close(scores.std(), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_equal_scores_are_normalised_without_dividing_by_zero() -> None:
    head = ScalarHead(4, seed=0)
    head.normalise(torch.full((5,), 2.0))
    assert bool(head(torch.ones(1, 4)).isfinite().all())


def test_bfloat16_states_are_scored_in_fp32() -> None:
    assert ScalarHead(4, seed=0)(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_gain_and_shift_are_saved_and_never_trained() -> None:
    head = ScalarHead(4, seed=0)
    assert {name for name, _ in head.named_parameters()} == {"weight", "bias"}
    assert set(head.state_dict()) == {"weight", "bias", "gain", "shift"}

"""Temperature and reliability against numbers worked out by hand, and against what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.training.calibration import fit_temperature, reliability


@pytest.mark.parametrize(("right", "wrong"), [(3, 1), (4, 0), (300, 100)])
def test_at_one_margin_the_probability_is_the_share_of_pairs_that_are_right(right: int, wrong: int) -> None:
    """The best constant probability is (right + 1) / (all + 2), Laplace's rule; its log odds are margin / T."""
    temperature = fit_temperature(torch.tensor([2.0] * right + [-2.0] * wrong))
    assert temperature == pytest.approx(2 / math.log((right + 1) / (wrong + 1)), rel=1e-6)


def smoothed_loss(margins: torch.Tensor, temperature: float) -> float:
    """Mean log loss where every pair is right with (pairs + 1) / (pairs + 2)."""
    right = (len(margins) + 1) / (len(margins) + 2)
    losses = []
    for sign, share in ((1, right), (-1, 1 - right)):
        found = reliability(sign * margins, temperature).log_loss
        assert found is not None
        losses.append(share * found)
    return sum(losses)


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 0.01), min_size=3, max_size=30), st.floats(0.1, 10)
)
def test_no_other_temperature_has_a_smaller_loss_and_the_unit_does_not_matter(
    values: list[float], unit: float
) -> None:
    margins = torch.tensor([*values, 1.0, -1.5], dtype=torch.float64)
    best = fit_temperature(margins)
    loss = smoothed_loss(margins, best)
    for factor in (0.8, 1.25):
        assert loss <= smoothed_loss(margins, max(0.001, min(1000, best * factor))) + 1e-9
    if 0.01 < best < 10:
        assert fit_temperature(margins * unit) == pytest.approx(best * unit, rel=1e-4)


def test_a_few_pairs_all_in_order_do_not_make_the_next_certain() -> None:
    """Half a unit apart, and ten pairs of one unit were right: likely, but no 100 %."""
    odds = 0.5 / fit_temperature(torch.full((10,), 1.0))
    assert 0.7 < 1 / (1 + math.exp(-odds)) < 0.9


def test_mere_disorder_and_no_pairs_give_a_finite_temperature() -> None:
    assert fit_temperature(torch.tensor([])) == 1.0
    assert fit_temperature(torch.tensor([-1.0, -2.0])) == pytest.approx(1000, rel=1e-3)


def test_bins_hold_pairs_by_confidence() -> None:
    odds = [math.log(0.62 / 0.38), -math.log(0.62 / 0.38), math.log(0.97 / 0.03), 0.0]
    found = reliability(torch.tensor(odds), 1.0)
    filled = {round(row["low"], 2): row for row in found.bins if row["pairs"]}
    assert {low: row["pairs"] for low, row in filled.items()} == {0.5: 1, 0.6: 2, 0.95: 1}
    assert filled[0.6]["confidence"] == pytest.approx(0.62)
    assert (filled[0.5]["accuracy"], filled[0.6]["accuracy"], filled[0.95]["accuracy"]) == (0.5, 0.5, 1.0)
    assert found.error == pytest.approx((0 + 2 * 0.12 + 0.03) / 4, abs=1e-6)
    assert found.log_loss == pytest.approx(
        -(math.log(0.62) + math.log(0.38) + math.log(0.97) + math.log(0.5)) / 4
    )


def test_a_pair_that_is_beyond_doubt_is_in_the_last_bin() -> None:
    found = reliability(torch.tensor([60.0, 900.0]), 1.0)
    assert [row["pairs"] for row in found.bins] == [0] * 9 + [2]
    assert found.error == pytest.approx(0)


def test_a_temperature_mends_confidence_and_leaves_order_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, generator=generator)
    right = torch.rand(4000, generator=generator) < torch.sigmoid(truth.abs())
    margins = 3 * truth.abs() * torch.where(right, 1.0, -1.0)  # three times too sure
    temperature = fit_temperature(margins)
    before, after = reliability(margins, 1.0), reliability(margins, temperature)
    assert temperature == pytest.approx(3, rel=0.1)
    assert before.error is not None
    assert after.error is not None
    assert after.error < 0.03 < before.error


def test_without_pairs_nothing_is_claimed() -> None:
    found = reliability(torch.tensor([]), 1.0)
    assert (found.bins, found.error, found.log_loss) == ([], None, None)

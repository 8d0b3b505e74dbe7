"""Accuracy over pairs, and its interval over prompts."""

from __future__ import annotations

import pytest
import torch

from tutelage.datasets.preference import PreferenceExample
from tutelage.dialogue import Preference
from tutelage.training.agreement import bootstrap_ratio, pair_accuracy


def example(root: str, *pairs: Preference, source: str = "") -> PreferenceExample:
    return PreferenceExample([1], [[2], [2], [2]], pairs, source, root)


def test_all_pairs_count_ties_do_not_and_equal_scores_count_half() -> None:
    examples = [example("a", Preference(0, 1), Preference(1, 2), Preference(0, 2, tie=True))]
    accuracy = pair_accuracy(examples, [torch.tensor([1.0, 0.0, 0.0])], seed=0)
    assert (accuracy.value, accuracy.pairs) == (0.75, 2)


def test_by_source_and_by_gap() -> None:
    examples = [
        example("a", Preference(0, 1, gap=1), Preference(0, 2, gap=2), source="x"),
        example("b", Preference(1, 0), source="y"),
    ]
    scores = [torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])]
    assert pair_accuracy(examples, scores, seed=0, source="x").value == 0.5
    assert pair_accuracy(examples, scores, seed=0, source="y").value == 1.0
    assert pair_accuracy(examples, scores, seed=0, gap=2).value == 1.0


def test_without_any_pair_there_is_no_number() -> None:
    assert pair_accuracy([], [], seed=0).as_dict() == {"value": None, "low": None, "high": None, "pairs": 0}


def test_the_interval_resamples_prompts_not_pairs() -> None:
    """Ten pairs of one root move together: with two roots the interval spans from one to the other."""
    examples = [example("a", *[Preference(0, 1)] * 10), example("b", *[Preference(1, 0)] * 10)]
    scores = [torch.tensor([1.0, 0.0, 0.0])] * 2
    accuracy = pair_accuracy(examples, scores, seed=0)
    assert (accuracy.low, accuracy.value, accuracy.high) == (0.0, 0.5, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(100):
        wins = (torch.rand(60, generator=generator) < 0.7).float().tolist()
        low, high = bootstrap_ratio([(win, 1) for win in wins], seed=trial)
        covered += low <= 0.7 <= high
    assert covered >= 88


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_interval(seed: int) -> None:
    groups = [(float(number % 2), 1) for number in range(30)]
    assert bootstrap_ratio(groups, seed=seed) == bootstrap_ratio(groups, seed=seed)

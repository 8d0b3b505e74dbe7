"""The report of a reward model, on scores made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tutelage.datasets.preference import PreferenceExample
from tutelage.dialogue import Preference
from tutelage.training.agreement import margins, rank_correlation
from tutelage.training.reward_report import Judged, calibration, disagreement, report


def example(root: str, lengths: list[int], *pairs: Preference, source: str = "s") -> PreferenceExample:
    return PreferenceExample([1], [[2] * length for length in lengths], pairs, source, root)


RANKED = (Preference(0, 1), Preference(1, 2), Preference(0, 2, gap=2))


def test_the_reward_is_the_mean_and_every_member_is_shown() -> None:
    scores = [torch.tensor([[3.0, 0.0], [2.0, 0.5], [1.0, 3.0]])]
    found = report(Judged([example("a", [1, 2, 3], *RANKED)], scores), [], seed=0)
    assert [each["value"] for each in found["member_accuracy"]] == [1.0, 0.0]
    # means 1.5, 1.25, 2: only the first pair is right
    assert found["held_out_accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["by_rank_gap"]["1"]["value"] == 0.5
    assert found["by_rank_gap"]["2"]["value"] == 0.0
    assert found["disagreement"]["split_pairs"] == 1.0


def test_people_the_model_did_not_learn_from_are_counted_apart() -> None:
    def by(author: str | None, root: str) -> PreferenceExample:
        return replace(example(root, [1, 1], Preference(0, 1)), author=author)

    held_out = [by("known", "a"), by("new", "b"), by("new", "c"), by(None, "d")]
    right, wrong = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    found = report(Judged(held_out, [right, right, wrong, right]), [by("known", "t")], seed=0)
    assert found["held_out_accuracy"]["value"] == 0.75
    assert (found["new_author_accuracy"]["value"], found["new_author_accuracy"]["pairs"]) == (0.5, 2)
    nobody_new = report(Judged(held_out[:1], [right]), [by("known", "t")], seed=0)
    assert nobody_new["new_author_accuracy"]["value"] is None


def test_the_majority_rule_is_learnt_from_training_pairs_source_by_source() -> None:
    train = [
        example("t", [9, 1], Preference(0, 1), source="long"),
        example("u", [9, 1], Preference(1, 0), source="short"),
    ]
    held_out = [
        example("a", [5, 2], Preference(0, 1), source="long"),
        example("b", [5, 2], Preference(1, 0), source="short"),
        example("c", [5, 2], Preference(1, 0), source="unknown"),
    ]
    judged = Judged(held_out, [torch.zeros(2, 1)] * 3)
    found = report(judged, train, seed=0)
    assert found["length_baseline"]["value"] == pytest.approx(1 / 3)
    assert found["majority_baseline"]["value"] == pytest.approx(2.5 / 3)
    assert found["held_out_accuracy"]["value"] == 0.5


def test_members_that_agree_do_not_deviate() -> None:
    judged = Judged([example("a", [1, 1, 1], *RANKED)], [torch.tensor([[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])])
    assert disagreement(judged) == {"deviation": 0.0, "split_pairs": 0.0}
    alone = Judged(judged.examples, [judged.scores[0][:, :1]])
    assert disagreement(alone) == {"deviation": None, "split_pairs": None}, "who is alone never disagrees"


def test_the_calibrated_error_is_not_that_of_the_pairs_the_temperature_was_fitted_on() -> None:
    """One half says 'sure and right', the other 'sure and wrong': no half may lend itself its own temperature."""
    right = example("a", [1, 1], Preference(0, 1))
    wrong = example("b", [1, 1], Preference(1, 0))
    found = calibration(Judged([right, wrong], [torch.tensor([[1.0], [0.0]])] * 2))
    assert found["error"] > 0.49
    assert found["temperature"] == pytest.approx(1000, rel=1e-2)


def test_without_held_out_pairs_nothing_is_claimed() -> None:
    for judged in (
        Judged([], []),
        Judged([example("a", [1, 2], Preference(0, 1, tie=True))], [torch.zeros(2, 3)]),
    ):
        found = report(judged, [], seed=0)
        assert found["held_out_accuracy"]["value"] is None
        assert found["calibration"]["temperature"] == 1.0
        assert found["calibration"]["error"] is None
        assert found["disagreement"]["split_pairs"] is None


def test_margins_keep_the_members_apart() -> None:
    found = margins([example("a", [1, 1, 1], *RANKED)], [torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 4.0]])])
    assert found.tolist() == [[2.0, 0.0], [1.0, -4.0], [3.0, -4.0]]


def test_rank_correlation_shares_ranks_among_ties() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)."""
    found = rank_correlation(torch.tensor([1.0, 5.0, 5.0, 9.0]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert found == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])) == pytest.approx(-1)
    assert rank_correlation(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0])) is None

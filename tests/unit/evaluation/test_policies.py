"""Policies side by side: what is counted, by hand."""

from __future__ import annotations

import pytest

from tutelage.evaluation.policies import summarise


def standing(*rewards: float) -> dict[str, list[float]]:
    return {"reward": list(rewards)} | {key: [1.0] * len(rewards) for key in ("kl", "length", "ended")}


def test_every_pair_of_answers_to_a_prompt_counts() -> None:
    before = standing(0.0, 2.0, 5.0, 5.0)  # two answers to each of two prompts
    row = summarise(standing(1.0, 2.0, 4.0, 9.0), before, prompts=2, seed=0)
    # The first prompt: 1 beats 0 and loses to 2; 2 beats 0 and equals 2. The second: 4 loses twice, 9 wins twice.
    assert row["reward_win_rate"]["value"] == pytest.approx(((1 + 0 + 1 + 0.5) / 4 + 2 / 4) / 2)
    assert row["reward"]["value"] == 4.0
    assert "gold" not in row


def test_one_answer_stands_beside_several() -> None:
    row = summarise(standing(1.0, 6.0), standing(0.0, 2.0, 5.0, 5.0), prompts=2, seed=0)
    assert row["reward_win_rate"]["value"] == pytest.approx((1 / 2 + 1) / 2)


def test_the_sft_model_beside_itself_wins_half() -> None:
    same = standing(0.3, -1.0, 2.0, 0.5, 0.5, 0.1)
    assert summarise(same, same, prompts=2, seed=0)["reward_win_rate"]["value"] == 0.5

"""What figures cannot carry is said, and only that."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.evaluation.doubts import few_comparisons, of_ppo, of_reward, of_round

SOUND: dict[str, Any] = {
    "comparisons": 170,
    "held_out_comparisons": 30,
    "held_out_accuracy": {"value": 0.65, "low": 0.55, "high": 0.75, "pairs": 90},
    "member_accuracy": [{}, {}, {}],
}
WATCHED: dict[str, Any] = {"watched_prompts": 64, "over_optimisation": {"best_step": 4}}


def test_a_sound_round_is_not_doubted() -> None:
    assert of_round({"reward": SOUND, "ppo": WATCHED}) == []
    assert of_round({}) == [], "a version that was published by hand"
    assert few_comparisons(100) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"comparisons": 25, "held_out_comparisons": 5}, "30 comparisons are few"),
        ({"held_out_accuracy": {"value": 0.6, "low": 0.5, "high": 0.7, "pairs": 9}}, "on 9 held-out pairs"),
        ({"held_out_accuracy": {"value": None, "low": None, "high": None, "pairs": 0}}, "nobody knows what"),
        ({"member_accuracy": [{}]}, "one member"),
    ],
)
def test_each_doubt_about_a_reward_model(change: dict[str, Any], says: str) -> None:
    (doubt,) = of_reward(SOUND | change)
    assert says in doubt
    assert of_round({"reward": SOUND | change, "ppo": WATCHED}) == [doubt]


def test_a_watch_on_few_prompts_is_doubted_and_no_watch_is_not() -> None:
    (doubt,) = of_ppo(WATCHED | {"watched_prompts": 5})
    assert "watched on 5 prompts" in doubt
    assert of_ppo({"watched_prompts": 0}) == []

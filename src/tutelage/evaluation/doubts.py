"""What the figures of a training cannot carry, said beside them. Nothing is forbidden.

The bound on comparisons is measured (docs/concepts/measured.md, "How many rankings does it take?"): of 50 rankings a
reward model learnt nothing in one run and little in another, of 100 it learnt in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.errors import Sentence

COMPARISONS = 100
WATCHED = 30


def few_comparisons(count: int) -> Sentence | None:
    """Whether a reward model has too little to learn from."""
    if count >= COMPARISONS:
        return None
    return Sentence(
        "{count} comparisons are few: of 50 a reward model has learnt little or nothing, of 100 a good deal",
        count=count,
    )


def of_round(evaluation: Mapping[str, Any]) -> list[Sentence]:
    """Doubts about a round, from its report."""
    return of_reward(evaluation.get("reward") or {}) + of_ppo(evaluation.get("ppo") or {})


def of_reward(values: Mapping[str, Any]) -> list[Sentence]:
    """Doubts about a reward model, from its evaluation."""
    if "held_out_accuracy" not in values:
        return []
    accuracy = values["held_out_accuracy"]
    said = [few_comparisons(values["comparisons"] + values["held_out_comparisons"])]
    if accuracy["value"] is None:
        said.append(Sentence("no pair was held out: nobody knows what the reward model is worth"))
    elif accuracy["low"] <= 0.5:
        said.append(
            Sentence(
                "on {pairs} held-out pairs the reward model cannot be told from guessing"
                " ({low:.0f} to {high:.0f} % right)",
                pairs=accuracy["pairs"],
                low=100 * accuracy["low"],
                high=100 * accuracy["high"],
            )
        )
    if len(values["member_accuracy"]) == 1:
        said.append(Sentence("the reward model has one member: nothing says where it guesses"))
    return [each for each in said if each is not None]


def of_ppo(values: Mapping[str, Any]) -> list[Sentence]:
    """Doubts about a PPO run, from its evaluation."""
    watched = values.get("watched_prompts", 0)
    if "over_optimisation" not in values or watched >= WATCHED:
        return []
    return [
        Sentence(
            "PPO was watched on {count} prompts: on so few, chance ends it as easily as over-optimisation",
            count=watched,
        )
    ]

"""What a round made, beside what was there before and beside the baselines, and whether it passes the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tutelage.config import Settings
from tutelage.datasets.prompts import Prompt
from tutelage.evaluation.answers import (
    Answers,
    Judges,
    Speaker,
    Terms,
    answer_all,
    side_by_side,
    win_rate,
)
from tutelage.evaluation.gate import Evidence, GateConfig, judge
from tutelage.moderation.gate import default_gate

if TYPE_CHECKING:
    from tutelage.moderation.gate import Gate


class EvaluationConfig(Settings):
    """Settings of the evaluation: `prompts` held-out prompts, of which `shown` are kept with their answers.

    The baseline `best_of_n` takes the best of `best_of` answers of the SFT model; 0 leaves it out.
    """

    prompts: int = Field(default=96, ge=1)
    shown: int = Field(default=5, ge=0)
    max_new_tokens: int = Field(default=96, ge=1)
    best_of: int = Field(default=4, ge=0, le=64)
    gate: GateConfig = GateConfig()


def assess(
    config: EvaluationConfig,
    prompts: Sequence[Prompt],
    speakers: dict[str, Speaker],
    *,
    model: str,
    home: Path,
    judges: Judges,
    kl: float,
    seed: int,
) -> dict[str, Any]:
    """The evaluation of a round, as plain JSON. Speakers: `before`, `sft`, `after`, and baselines.

    kl: how far the candidate is from the SFT model, in nats an answer.
    """
    terms = Terms(config.max_new_tokens, seed + 3, config.best_of)
    answers = answer_all(model, home, prompts, speakers, judges=judges, terms=terms)
    before, after = answers["before"], answers["after"]
    filter_ = default_gate(home)
    flagged = {name: _flagged(filter_, prompts, each) for name, each in answers.items()}
    wins = {name: win_rate(each, before, seed=seed) for name, each in answers.items() if name != "before"}
    summaries = {
        name: each.summary(seed=seed) | {"flagged": sum(flagged[name])} for name, each in answers.items()
    }
    evidence = Evidence(
        prompts=len(prompts),
        wins=wins["after"],
        flagged=(sum(flagged["before"]), sum(flagged["after"])),
        flagged_twice=sum(map(all, zip(flagged["before"], flagged["after"], strict=True))),
        lengths=(summaries["before"]["length"], summaries["after"]["length"]),
        kl=kl,
    )
    return {
        "gate": judge(evidence, config.gate).as_dict(),
        "prompts": len(prompts),
        "speakers": summaries,
        "win_rate_over_before": wins["after"],
        "win_rate_over_sft": win_rate(after, answers["sft"], seed=seed),
        "baselines": {name: rate for name, rate in wins.items() if name != "after"},
        "answers": side_by_side(prompts, answers, config.shown),
    }


def _flagged(filter_: Gate, prompts: Sequence[Prompt], answers: Answers) -> list[bool]:
    """Of which answers the content filter warns, or which it blocks."""
    verdicts = (
        filter_.check(text, side="output", context=prompt.messages[-1].content)
        for prompt, text in zip(prompts, answers.texts, strict=True)
    )
    return [verdict.state in ("warned", "blocked") for verdict in verdicts]

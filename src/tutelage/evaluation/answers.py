"""A first look at versions side by side: the same prompts, one answer each, scored by one reward model.

The reward is a proxy: it says what the annotators' comparisons taught, not what is true. Left out: every
measure of truth, refusal or bias.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.datasets.prompts import Prompt
from tutelage.models.adapters import load_adapter
from tutelage.models.generation import Request, complete
from tutelage.models.loading import load_model
from tutelage.training.agreement import bootstrap_ratio
from tutelage.training.reward_model import load_reward_model, score_completions


@dataclass(frozen=True, slots=True)
class Answers:
    """One speaker's answers to the prompts: texts, rewards, lengths in tokens, and which ended by themselves."""

    texts: list[str]
    rewards: list[float]
    lengths: list[int]
    ended: list[bool]

    def summary(self, *, seed: int) -> dict[str, Any]:
        """Means, the reward's with its 95 % interval over prompts."""
        low, high = bootstrap_ratio([(reward, 1) for reward in self.rewards], seed=seed)
        return {
            "reward": {"value": statistics.fmean(self.rewards), "low": low, "high": high},
            "length": statistics.fmean(self.lengths),
            "ended": statistics.fmean(map(float, self.ended)),
        }


def answer_all(
    model_name: str,
    home: Path,
    prompts: Sequence[Prompt],
    speakers: Mapping[str, Path | None],
    *,
    reward: Path,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Answers]:
    """Let each speaker (a name and its adapter; None is the bare model) answer every prompt at temperature 1.

    All speakers get the same seeds. Raises ModelError when an adapter does not fit.
    """
    loaded = load_model(model_name, home)
    model, renderer = loaded.model, loaded.renderer
    judge = load_reward_model(model, reward)
    answers: dict[str, Answers] = {}
    for name, adapter in speakers.items():
        if adapter is not None:
            load_adapter(model, name, adapter)
        requests = [
            Request(prompt_ids=prompt.token_ids, max_tokens=max_new_tokens, seed=seed * 1_000_003 + index)
            for index, prompt in enumerate(prompts)
        ]
        with model.using(name if adapter is not None else None):
            completions = complete(model, renderer.stop_ids, requests)
        pairs = [(p.token_ids, list(c.token_ids)) for p, c in zip(prompts, completions, strict=True)]
        answers[name] = Answers(
            texts=[renderer.decode(completion.token_ids) for completion in completions],
            rewards=score_completions(model, judge, pairs).mean(dim=1).tolist(),
            lengths=[len(completion.token_ids) for completion in completions],
            ended=[completion.finish_reason == "stop" for completion in completions],
        )
    return answers


def win_rate(new: Answers, old: Answers, *, seed: int) -> dict[str, float]:
    """How often the new answer has the higher reward, an equal one counting half, with its 95 % interval."""
    wins = [0.5 if a == b else float(a > b) for a, b in zip(new.rewards, old.rewards, strict=True)]
    low, high = bootstrap_ratio([(win, 1) for win in wins], seed=seed)
    return {"value": statistics.fmean(wins), "low": low, "high": high}


def side_by_side(
    prompts: Sequence[Prompt], answers: Mapping[str, Answers], count: int
) -> list[dict[str, Any]]:
    """The first `count` prompts with every speaker's answer and reward, as plain JSON."""
    return [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "answers": {
                name: {"text": each.texts[index], "reward": each.rewards[index]}
                for name, each in answers.items()
            },
        }
        for index, prompt in enumerate(prompts[:count])
    ]

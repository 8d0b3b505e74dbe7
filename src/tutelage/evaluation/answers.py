"""Versions side by side: the same prompts, one answer each, scored by the reward that trained and by a judge.

The judge is a reward model of other seeds that trained nothing. Both are proxies: they say what the annotators'
comparisons taught, not what is true.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.datasets.prompts import Prompt
from tutelage.models.adapters import load_adapter
from tutelage.models.generation import Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.loading import load_model
from tutelage.rendering import Renderer
from tutelage.training.agreement import bootstrap_ratio
from tutelage.training.reward_model import RewardModel, load_reward_model, score_completions


@dataclass(frozen=True, slots=True)
class Answers:
    """One speaker's answers to the prompts; rewards by both models, lengths in tokens, which ended by themselves."""

    texts: list[str]
    rewards: list[float]
    judged: list[float]
    lengths: list[int]
    ended: list[bool]

    def summary(self, *, seed: int) -> dict[str, Any]:
        """Means, the rewards' with their 95 % intervals over prompts."""
        return {
            "reward": _mean(self.rewards, seed=seed),
            "judge": _mean(self.judged, seed=seed),
            "length": statistics.fmean(self.lengths),
            "ended": statistics.fmean(map(float, self.ended)),
        }


@dataclass(frozen=True, slots=True)
class Judges:
    """Folders of the reward model that trained the candidate, and of the one that only judges."""

    reward: Path
    judge: Path


@dataclass(frozen=True, slots=True)
class Terms:
    """How speakers are asked. `best_of` is how many answers the baseline may draw, by the reward; 0 leaves it out."""

    max_new_tokens: int
    seed: int
    best_of: int = 0


def answer_all(
    model_name: str,
    home: Path,
    prompts: Sequence[Prompt],
    speakers: Mapping[str, Path | None],
    *,
    judges: Judges,
    terms: Terms,
) -> dict[str, Answers]:
    """Let each speaker (a name and its adapter; None is the bare model) answer every prompt at temperature 1.

    All speakers get the same seeds. With `terms.best_of`, `best_of_n` is the best of so many answers of the speaker
    `sft`. Raises ModelError when an adapter does not fit.
    """
    loaded = load_model(model_name, home)
    model = loaded.model
    room = _Room(
        model,
        loaded.renderer,
        load_reward_model(model, judges.reward, name="reward"),
        load_reward_model(model, judges.judge, name="judge"),
    )
    answers: dict[str, Answers] = {}
    for name, adapter in speakers.items():
        if adapter is not None:
            load_adapter(model, name, adapter)
        answers[name] = room.ask(name if adapter is not None else None, prompts, terms)
    if terms.best_of and speakers.get("sft") is not None:
        drawn = [
            room.ask("sft", prompts, replace(terms, seed=terms.seed + number))
            for number in range(1, terms.best_of)
        ]
        answers["best_of_n"] = _best([answers["sft"], *drawn])
    return answers


@dataclass(frozen=True, slots=True)
class _Room:
    model: CausalModel
    renderer: Renderer
    reward: RewardModel
    judge: RewardModel

    def ask(self, adapter: str | None, prompts: Sequence[Prompt], terms: Terms) -> Answers:
        requests = [
            Request(
                prompt_ids=prompt.token_ids,
                max_tokens=terms.max_new_tokens,
                seed=terms.seed * 1_000_003 + index,
            )
            for index, prompt in enumerate(prompts)
        ]
        with self.model.using(adapter):
            completions = complete(self.model, self.renderer.stop_ids, requests)
        pairs = [(p.token_ids, list(c.token_ids)) for p, c in zip(prompts, completions, strict=True)]
        scores = [
            score_completions(self.model, each, pairs).mean(dim=1).tolist()
            for each in (self.reward, self.judge)
        ]
        return Answers(
            texts=[self.renderer.decode(completion.token_ids) for completion in completions],
            rewards=scores[0],
            judged=scores[1],
            lengths=[len(completion.token_ids) for completion in completions],
            ended=[completion.finish_reason == "stop" for completion in completions],
        )


def _best(drawn: Sequence[Answers]) -> Answers:
    """For each prompt, the answer with the highest reward."""
    best = [
        max(range(len(drawn)), key=lambda number: drawn[number].rewards[index])
        for index in range(len(drawn[0].texts))
    ]
    return Answers(
        texts=[drawn[number].texts[index] for index, number in enumerate(best)],
        rewards=[drawn[number].rewards[index] for index, number in enumerate(best)],
        judged=[drawn[number].judged[index] for index, number in enumerate(best)],
        lengths=[drawn[number].lengths[index] for index, number in enumerate(best)],
        ended=[drawn[number].ended[index] for index, number in enumerate(best)],
    )


def win_rate(new: Answers, old: Answers, *, seed: int) -> dict[str, float]:
    """How often the judge likes the new answer better, an equal one counting half, with its 95 % interval."""
    wins = [0.5 if a == b else float(a > b) for a, b in zip(new.judged, old.judged, strict=True)]
    return _mean(wins, seed=seed)


def _mean(values: Sequence[float], *, seed: int) -> dict[str, float]:
    low, high = bootstrap_ratio([(value, 1) for value in values], seed=seed)
    return {"value": statistics.fmean(values), "low": low, "high": high}


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

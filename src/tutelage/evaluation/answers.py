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
from tutelage.models.generation import Completion, Request, complete
from tutelage.models.loading import LoadedModel, load_model, load_version
from tutelage.registry import ModelVersion
from tutelage.training.agreement import bootstrap_ratio
from tutelage.training.reward_model import RewardModel, load_reward_model, score_completions

Speaker = Path | ModelVersion | None
"""An adapter on the round's base, a version that is a model of its own, or the bare base."""


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
    speakers: Mapping[str, Speaker],
    *,
    judges: Judges,
    terms: Terms,
) -> dict[str, Answers]:
    """Let each speaker answer every prompt at temperature 1.

    All speakers get the same seeds. With `terms.best_of`, `best_of_n` is the best of so many answers of the speaker
    `sft`. Raises ModelError when an adapter does not fit, or a version cannot be read.
    """
    loaded = load_model(model_name, home)
    model = loaded.model
    room = _Room(
        loaded,
        load_reward_model(model, judges.reward, name="reward"),
        load_reward_model(model, judges.judge, name="judge"),
    )
    answers: dict[str, Answers] = {}
    for name, speaker in speakers.items():
        if isinstance(speaker, ModelVersion):
            answers[name] = room.hear(load_version(speaker, home), prompts, terms)
            continue
        if speaker is not None:
            load_adapter(model, name, speaker)
        answers[name] = room.ask(name if speaker is not None else None, prompts, terms)
    if terms.best_of and speakers.get("sft") is not None:
        drawn = [
            room.ask("sft", prompts, replace(terms, seed=terms.seed + number))
            for number in range(1, terms.best_of)
        ]
        answers["best_of_n"] = _best([answers["sft"], *drawn])
    return answers


@dataclass(frozen=True, slots=True)
class _Room:
    loaded: LoadedModel
    reward: RewardModel
    judge: RewardModel

    def ask(self, adapter: str | None, prompts: Sequence[Prompt], terms: Terms) -> Answers:
        """The answers of an adapter on the room's model."""
        with self.loaded.model.using(adapter):
            drawn = _draw(self.loaded, [prompt.token_ids for prompt in prompts], terms)
        return self._judged(prompts, drawn, [list(each.token_ids) for each in drawn])

    def hear(self, other: LoadedModel, prompts: Sequence[Prompt], terms: Terms) -> Answers:
        """The answers of another model, judged in the tokens of the room's."""
        drawn = _draw(other, [other.renderer.prompt(prompt.messages) for prompt in prompts], terms)
        own, said = self.loaded.renderer, []
        for prompt, each in zip(prompts, drawn, strict=True):
            room = self.loaded.model.context_length - len(prompt.token_ids)
            token_ids = own.completion(other.renderer.decode(each.token_ids))
            ended = each.finish_reason == "stop" or not token_ids
            end = [own.end_id] if ended else []
            said.append([*token_ids, *end][:room])  # in other tokens it may be longer
        return self._judged(prompts, drawn, said)

    def _judged(
        self, prompts: Sequence[Prompt], drawn: Sequence[Completion], said: Sequence[list[int]]
    ) -> Answers:
        pairs = [(prompt.token_ids, ids) for prompt, ids in zip(prompts, said, strict=True)]
        rewards, judged = (
            score_completions(self.loaded.model, each, pairs).mean(dim=1).tolist()
            for each in (self.reward, self.judge)
        )
        return Answers(
            texts=[self.loaded.renderer.decode(ids) for ids in said],
            rewards=rewards,
            judged=judged,
            lengths=[len(ids) for ids in said],
            ended=[each.finish_reason == "stop" for each in drawn],
        )


def _draw(speaker: LoadedModel, prompts: Sequence[Sequence[int]], terms: Terms) -> list[Completion]:
    """One answer to each prompt, with the adapter that is active."""
    requests = [
        Request(prompt_ids=prompt, max_tokens=terms.max_new_tokens, seed=terms.seed * 1_000_003 + index)
        for index, prompt in enumerate(prompts)
    ]
    return complete(speaker.model, speaker.renderer.stop_ids, requests)


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

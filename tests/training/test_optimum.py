"""PPO where the best policy is known: the recipe's own step finds it.

The reward is a hidden function of the tokens, in the reward model's place; everything else is as in a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tutelage.dialogue import Message
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.interface import CausalModel
from tutelage.models.layout import Layout, sequences
from tutelage.models.loading import load_model
from tutelage.training.actors import AVERAGE, VALUE, Learners, Models, adapter_policy, whole_policy
from tutelage.training.ppo import Task, take_step
from tutelage.training.ppo_recipe import AverageConfig, KLConfig, PPOConfig, ValueConfig, seeds_of_step
from tutelage.training.reward_model import RewardModel, ValueModel
from tutelage.training.weights import Weights


class Hidden:
    """A reward that is a sum over a completion's tokens of what each token is worth."""

    adapter = "hidden"

    def __init__(self, worth: Tensor, prompt_length: int) -> None:
        self.worth = worth
        self.prompt_length = prompt_length

    def at(self, model: CausalModel, token_ids: Tensor, layout: Layout, places: Tensor) -> Tensor:
        worth = torch.where(layout.positions >= self.prompt_length, self.worth[token_ids], 0.0)
        sums = worth.cumsum(0)
        starts = (layout.positions == 0).nonzero()[:, 0]
        before = torch.cat([torch.zeros(1), sums])[starts]
        return sums[places] - before


def start(home: Path, *, full: bool = False) -> tuple[Models, list[int]]:
    """`tiny` as it is, with fresh adapters or all weights to train; the reward is still to be given."""
    loaded = load_model("tiny", home)
    policy, reference = (whole_policy if full else adapter_policy)(loaded.model, None)
    average = policy.copy(AVERAGE)
    loaded.model.add_adapter(VALUE, AdapterShape(16, 32), seed=0)
    head = ScalarHead(loaded.model.width, seed=0)
    with torch.no_grad():
        head.weight.zero_()
    prompt = loaded.renderer.prompt([Message("user", "?")])
    value = ValueModel(VALUE, head)
    return Models(loaded, policy, reference, value, RewardModel(()), average=average), prompt


def train(models: Models, prompt: list[int], config: PPOConfig) -> list[dict[str, float]]:
    learners = Learners.of(models, policy_rate=config.learning_rate, value_rate=config.value.learning_rate)
    history = []
    for step in range(config.steps):
        task = Task(step, [prompt] * config.prompts_per_step, seeds_of_step(config, step), [])
        history.append(take_step(config, models, learners, task, beta=config.kl.coefficient))
    return history


def next_token(weights: Weights, prompt: list[int]) -> Tensor:
    """Log-probabilities of the token after the prompt: (vocabulary,)."""
    with torch.no_grad(), weights.active():
        hidden = weights.model.hidden(torch.tensor(prompt), sequences([len(prompt)]))
        return weights.model.logits(hidden[-1]).log_softmax(0)


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
def test_a_bandit_is_played_as_its_closed_form_says(home: Path, full: bool) -> None:
    """One token a completion. The best policy is p* = p_ref exp(r / beta) / Z, and its objective beta log Z."""
    models, prompt = start(home, full=full)
    reference = next_token(models.reference, prompt)
    generator = torch.Generator().manual_seed(1)
    worth = (models.model.head @ torch.randn(models.model.width, generator=generator)).detach()
    worth -= (reference.exp() * worth).sum()
    worth /= (reference.exp() * worth.square()).sum().sqrt()
    beta = 1.0
    best = beta * float((reference + worth / beta).logsumexp(0))

    models = replace(models, reward=RewardModel((Hidden(worth, len(prompt)),)))
    config = PPOConfig(
        model="tiny",
        max_new_tokens=1,
        steps=32,
        prompts_per_step=64,
        minibatches=2,
        learning_rate=1e-4 if full else 3e-4,
        unended_penalty=0.0,
        kl=KLConfig(coefficient=beta, target=0.0),
        value=ValueConfig(learning_rate=1e-2, warmup_steps=2),
        average=AverageConfig(decay=0.95),
    )
    train(models, prompt, config)
    assert models.average is not None
    policy = next_token(models.average, prompt)
    reached = float((policy.exp() * (worth - beta * (policy - reference))).sum())
    assert best > 0.3
    assert reached <= best + 1e-5
    assert reached > 0.95 * best, (reached, best)


def test_a_hidden_reward_of_sequences_is_found(home: Path) -> None:
    """Tokens fall into eight classes, each worth something: the best completion holds only the best, and scores 1."""
    models, prompt = start(home)
    models.model.norm.mul_(0.5)  # flatter: there is something to explore
    values = torch.tensor([-1.0, -0.5, 0.0, 0.25, 0.5, -0.25, 1.0, -2.0])
    worth = values[torch.arange(264) % 8] / 3
    worth[list(models.loaded.renderer.stop_ids)] = -0.5
    models = replace(models, reward=RewardModel((Hidden(worth, len(prompt)),)))
    config = PPOConfig(
        model="tiny",
        max_new_tokens=3,
        steps=24,
        prompts_per_step=48,
        minibatches=2,
        learning_rate=2e-3,
        unended_penalty=0.0,
        kl=KLConfig(coefficient=0.02, target=0.0),
        value=ValueConfig(learning_rate=1e-2, warmup_steps=2),
        average=AverageConfig(decay=0.9),
    )
    history = train(models, prompt, config)
    assert history[0]["reward"] < 0.0
    assert sum(each["reward"] for each in history[-3:]) / 3 > 0.9, [round(h["reward"], 2) for h in history]

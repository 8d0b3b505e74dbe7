"""The recipe of PPO and the data it trains on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import pydantic
from pydantic import Field

from tutelage.config import Seed, Settings
from tutelage.datasets.prompts import Prompt, Prompts, render_prompts
from tutelage.datasets.sft import render_examples
from tutelage.datasets.splits import in_two, split
from tutelage.dialogue import Dialogue
from tutelage.errors import DataError, Sentence
from tutelage.rendering import Rendered, Renderer
from tutelage.training.checkpoints import digest_of

HttpAddress = Annotated[str, Field(pattern=r"^https?://[^/]+$")]


class KLConfig(Settings):
    """How the policy is held near the SFT model. `target` 0 keeps the coefficient as it is; else it adapts.

    The run stops when the KL passes `limit` nats. Without any KL (`off`) the coefficient is 0.
    """

    coefficient: float = Field(default=0.05, ge=0)
    target: float = Field(default=6.0, ge=0)
    horizon: int = Field(default=2000, ge=1)
    limit: float = Field(default=60.0, gt=0)
    off: bool = False

    @pydantic.model_validator(mode="after")
    def _meant(self) -> KLConfig:
        if self.off != (self.coefficient == 0):
            raise ValueError(
                "a coefficient of 0 lets the policy drift from the SFT model: "
                "set kl.coefficient = 0 and kl.off = true together, or neither"
            )
        return self


class ValueConfig(Settings):
    """The value model. It learns alone for the first `warmup_steps`."""

    learning_rate: float = Field(default=2e-4, gt=0)
    clip: float = Field(default=0.2, gt=0)
    warmup_steps: int = Field(default=10, ge=0)


class MixConfig(Settings):
    """PPO-ptx: cross-entropy on demonstrations, as a mean over their tokens, times `coefficient`. 0 is off.

    The paper's 27.8 multiplies a sum of log-likelihoods over eight times the data; here 0.1 to 1 is usual.
    """

    coefficient: float = Field(default=0.0, ge=0)
    demonstrations_per_step: int = Field(default=16, ge=1)
    max_tokens: int = Field(default=512, ge=16)


class AverageConfig(Settings):
    """The running average of the policy's weights; `decay` 0 keeps none, `published` makes it what the run gives."""

    decay: float = Field(default=0.992, ge=0, lt=1)
    published: bool = False

    @pydantic.model_validator(mode="after")
    def _kept(self) -> AverageConfig:
        if self.published and not self.decay:
            raise ValueError("average.published wants an average: set average.decay, 0.992 is usual")
        return self


class GoldConfig(Settings):
    """How the run is watched when a gold reward model is given.

    Every `every` steps the policy answers at most `prompts` held-out prompts; the run ends when the gold reward
    is more than `noise` standard errors below its best while the trained-on reward is above its value there.
    """

    every: int = Field(default=5, ge=1)
    prompts: int = Field(default=64, ge=2)
    noise: float = Field(default=2.0, gt=0)


class PPOConfig(Settings):
    """Settings of PPO. `full` trains all weights of the policy instead of an adapter.

    `rollout_servers`: addresses of vLLM servers that sample in the trainer's place.
    """

    model: str = "builtin"
    full: bool = False
    sources: list[str] = Field(default_factory=list)
    max_prompt_tokens: int = Field(default=256, ge=8)
    max_new_tokens: int = Field(default=64, ge=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    held_out_prompts: int = Field(default=64, ge=1)
    steps: int = Field(default=20, ge=1)
    prompts_per_step: int = Field(default=32, ge=2)
    minibatches: int = Field(default=4, ge=1)
    inner_epochs: int = Field(default=1, ge=1)
    micro_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    clip: float = Field(default=0.2, gt=0)
    lam: float = Field(default=0.95, ge=0, le=1)
    unended_penalty: float = Field(default=1.0, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=5, ge=1)
    rollout_servers: list[HttpAddress] = Field(default_factory=list)
    seed: Seed = 0
    kl: KLConfig = KLConfig()
    value: ValueConfig = ValueConfig()
    mix: MixConfig = MixConfig()
    average: AverageConfig = AverageConfig()
    gold: GoldConfig = GoldConfig()

    @pydantic.model_validator(mode="after")
    def _learns(self) -> PPOConfig:
        if self.value.warmup_steps >= self.steps:
            raise ValueError(
                f"of steps = {self.steps} the value model learns alone in value.warmup_steps = "
                f"{self.value.warmup_steps}: the policy would never learn; set more steps, or a shorter warm-up"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _servable(self) -> PPOConfig:
        if self.full and self.rollout_servers:
            raise ValueError(
                "rollout_servers load adapters, and with full = true there is none: leave one of the two out"
            )
        return self

    @property
    def longest(self) -> dict[str, int]:
        """How many tokens a sequence may have, by the setting that says so."""
        sums = {"max_prompt_tokens + max_new_tokens": self.max_prompt_tokens + self.max_new_tokens}
        return sums | ({"mix.max_tokens": self.mix.max_tokens} if self.mix.coefficient else {})


@dataclass(frozen=True, slots=True)
class PPOData:
    """Rendered prompts on both sides of the split, and demonstrations to mix in.

    The gold reward model watches the run on `watched`; what the run reports is measured on `held_out`. No prompt
    is in both, so the best moment is not chosen on the prompts that judge it. left_out: prompts that are too long.
    """

    train: list[Prompt]
    held_out: list[Prompt]
    watched: list[Prompt]
    left_out: int
    demonstrations: list[Rendered] = field(default_factory=list)

    @property
    def judged_on(self) -> str:
        """By which the prompts are known whose answers are compared over the whole run."""
        held_out, watched = ([each.token_ids for each in side] for side in (self.held_out, self.watched))
        return digest_of([*held_out, [], *watched])

    def summary(self) -> dict[str, Any]:
        """What would be trained on, in numbers."""
        return {
            "prompts": len(self.train),
            "held_out_prompts": len(self.held_out),
            "watched_prompts": len(self.watched),
            "left_out": self.left_out,
            "demonstrations": len(self.demonstrations),
        }


def prepare_ppo(
    config: PPOConfig,
    prompts: Sequence[Dialogue],
    renderer: Renderer,
    *,
    demonstrations: Sequence[Dialogue] = (),
    gold: bool = False,
) -> PPOData:
    """The prompts of `split_prompts`, and the demonstrations to mix in. Raises DataError when there are too few."""
    found = split_prompts(config, prompts, renderer, gold=gold)
    return replace(found, demonstrations=_mixed(config, demonstrations, renderer))


def split_prompts(
    config: PPOConfig, prompts: Sequence[Dialogue], renderer: Renderer, *, gold: bool = False
) -> PPOData:
    """Choose by source, split by author and first user message, render. Raises DataError when one side is too small.

    gold: keep back half of what is held out to watch the run on.
    """
    chosen = [each for each in prompts if not config.sources or each.source in config.sources]
    learnt, unseen = split(chosen, config.held_out)
    steering, reporting = in_two(unseen) if gold else ([], unseen)
    sides: list[Prompts] = [
        render_prompts(side, renderer, max_tokens=config.max_prompt_tokens)
        for side in (learnt, reporting, steering)
    ]
    train, reported, watched = (side.rendered for side in sides)
    for held_out in (reported, watched):
        random.Random(config.seed).shuffle(held_out)
    left_out = sum(side.left_out for side in sides)
    # One reward has no deviation, which gives the reward its unit.
    if len(train) < 2 or not reported or (gold and len(watched) < 2):
        raise DataError(
            Sentence(
                "{train} prompts to train on and {held_out} held out, of {prompts} in all "
                "({left_out} with more than {most} tokens)",
                train=len(train),
                held_out=len(reported) + len(watched),
                prompts=len(prompts),
                left_out=left_out,
                most=config.max_prompt_tokens,
            ),
            hint="import dialogues (`tutelage import oasst FILE`), raise max_prompt_tokens, or change held_out",
        )
    return PPOData(train, reported[: config.held_out_prompts], watched[: config.gold.prompts], left_out)


def _mixed(config: PPOConfig, dialogues: Sequence[Dialogue], renderer: Renderer) -> list[Rendered]:
    """The demonstrations to mix in: those on the training side; none when the mix is off."""
    if not config.mix.coefficient:
        return []
    train, _ = split(dialogues, config.held_out)
    rendered = render_examples(train, renderer, max_tokens=config.mix.max_tokens).rendered
    if not rendered:
        raise DataError(
            Sentence(
                "no demonstration of at most {max_tokens} tokens to mix in ({all} in all)",
                max_tokens=config.mix.max_tokens,
                all=len(dialogues),
            ),
            hint="import some (`tutelage import messages FILE`), or set mix.coefficient = 0",
        )
    return rendered


def in_turn(count: int, per_step: int, step: int, *, seed: int) -> list[int]:
    """Indices that fall to a step: epoch after epoch of `count` things, each epoch in its own order."""
    chosen: list[int] = []
    orders: dict[int, list[int]] = {}
    for place in range(step * per_step, (step + 1) * per_step):
        epoch, index = divmod(place, count)
        if epoch not in orders:
            orders[epoch] = list(range(count))
            random.Random(f"{seed}/{epoch}").shuffle(orders[epoch])
        chosen.append(orders[epoch][index])
    return chosen


def seeds_of_step(config: PPOConfig, step: int) -> list[int]:
    """A sampling seed for each prompt of a step; no two steps share one."""
    first = (config.seed * 1_000_003 + step) * 10_007
    return [(first + index) % 2**63 for index in range(config.prompts_per_step)]

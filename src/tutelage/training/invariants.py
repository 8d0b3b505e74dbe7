"""What cannot be true of a run that goes right, looked at while it runs.

Each check raises InvariantViolated with a sentence that says what is wrong and a hint that says what to do.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import InvariantViolated, Sentence
from tutelage.training.rollouts import Rollout

_RATIO_TOLERANCE = 1e-4
_KL_TOLERANCE = 1e-4
_PROBE_TOLERANCE = 1e-3
_LEAST_ENTROPY = 1e-3  # nats a token
_SURE = 6.0  # standard errors that no honest sampler is away from what it says
_NEARLY_SURE = 0.5  # nats: below, the variance of a log-probability is at most ten times the entropy
_FEW_TOKENS = 100  # fewer say nothing about the sampler
_FEW_ROWS = 8
_WINDOW = 5  # steps over which a collapse is looked for


def check_sampler(rollout: Rollout, place: str) -> None:
    """The sampled tokens are as likely, on the whole, as the policy's entropy says.

    At every place the expected log-probability of a token drawn from the policy is minus its entropy there, so
    the sum of (log-probability + entropy) over all tokens stays within a few of its standard errors of 0. Tokens
    drawn greedily, from a nucleus or from other weights do not. Where the policy is nearly sure, what would surprise it
    is too rare to be seen, and a bound stands for the variance.
    """
    entropies = rollout.entropies[rollout.mask].double()
    surprise = rollout.logprobs[rollout.mask].double() + entropies
    variance = surprise.square() + torch.where(entropies < _NEARLY_SURE, 10 * entropies, 0.0)
    if len(surprise) >= _FEW_TOKENS and abs(surprise.sum()) > _SURE * variance.sum().sqrt():
        kind = Sentence("likelier") if surprise.sum() > 0 else Sentence("less likely")
        raise InvariantViolated(
            Sentence(
                "the sampled tokens are {kind} than the policy's own draws: by {nats:.3f} nats a token",
                kind=kind,
                nats=float(abs(surprise.mean())),
            ),
            where=place,
            hint="the sampler must draw from the newest policy at temperature 1, without top_p or penalties",
        )


def check_start(rollout: Rollout, place: str) -> None:
    """A policy that has not learnt yet is the SFT model."""
    gap = float(rollout.kl.sum(dim=1).abs().max())
    if gap > _KL_TOLERANCE:
        raise InvariantViolated(
            Sentence(
                "the policy is up to {gap:.4f} nats away from the SFT model before its first update", gap=gap
            ),
            where=place,
            hint="policy and reference must both be the SFT adapter on the same base: check --start",
        )


def check_first_ratio(ratio: Tensor, place: str) -> None:
    """The first minibatch of a step sees the very policy that was scored."""
    gap = float((ratio - 1).abs().max())
    if not gap <= _RATIO_TOLERANCE:
        raise InvariantViolated(
            Sentence(
                "before any update the new policy differs from the old by a ratio of {ratio:.4f}",
                ratio=1 + gap,
            ),
            where=place,
            hint="this is a defect of the program or of the hardware, not of the recipe: please report it",
        )


def check_rollout(rollout: Rollout, place: str, *, kl_limit: float) -> None:
    """Finite, not always the same, no negative KL, no KL past its limit."""
    if not bool(torch.isfinite(rollout.scores).all() and torch.isfinite(rollout.kl).all()):
        raise InvariantViolated(
            "a reward or a KL is not finite",
            where=place,
            hint="the last checkpoint is good; lower learning_rate and train anew",
        )
    if rollout.entropy < _LEAST_ENTROPY:
        raise InvariantViolated(
            Sentence(
                "the policy's entropy is {entropy:.5f} nats a token: it always says the same",
                entropy=rollout.entropy,
            ),
            where=place,
            hint="lower learning_rate or raise kl.coefficient, and train anew",
        )
    sums = rollout.kl.sum(dim=1).double()
    mean, error = float(sums.mean()), float(sums.std()) / math.sqrt(len(sums))
    if len(sums) >= _FEW_ROWS and mean < -4 * error - 0.01:
        raise InvariantViolated(
            Sentence(
                "the KL is {mean:.3f} nats, and no true KL is below zero (its standard error is {error:.3f})",
                mean=mean,
                error=error,
            ),
            where=place,
            hint="the completions were not drawn from this policy: look at the sampler and its weights",
        )
    if mean > kl_limit:
        raise InvariantViolated(
            Sentence(
                "the policy has drifted {mean:.1f} nats from the SFT model, past kl.limit = {kl_limit:g}",
                mean=mean,
                kl_limit=kl_limit,
            ),
            where=place,
            hint="raise kl.coefficient or lower learning_rate; a larger kl.limit lets it drift further",
        )


def check_reference(before: float, now: float) -> None:
    """A resumed run has the same reference as the run that began: `probe` gives the same number."""
    if abs(now - before) > _PROBE_TOLERANCE * max(1.0, abs(before)):
        raise InvariantViolated(
            Sentence(
                "the reference is not the SFT model that this run began with (probe {before:.4f}, now {now:.4f})",
                before=before,
                now=now,
            ),
            where=Sentence("PPO's resume"),
            hint="restore the adapter that --start named, or begin a new run",
        )


@dataclass(frozen=True, slots=True)
class Health:
    """Mean rewards and shares of answers that ended by themselves, of the last steps. `start` is the SFT model's share.

    The SFT model's rewards have mean 0 and deviation 1.
    """

    start: float
    rewards: tuple[float, ...] = ()
    endings: tuple[float, ...] = ()

    def after(self, reward: float, ended: float) -> Health:
        """With one more step."""
        return Health(self.start, (*self.rewards, reward)[-_WINDOW:], (*self.endings, ended)[-_WINDOW:])


def check_health(health: Health, place: str) -> None:
    """Over the last steps, the reward has not fallen by a deviation of the SFT model's, and answers still end."""
    if len(health.rewards) < _WINDOW:
        return
    reward, ended = statistics.fmean(health.rewards), statistics.fmean(health.endings)
    if reward < -1:
        raise InvariantViolated(
            Sentence(
                "the reward has collapsed: {reward:.2f} over {steps} steps, and 0 is where the SFT model stands",
                reward=reward,
                steps=_WINDOW,
            ),
            where=place,
            hint="lower learning_rate, or raise value.warmup_steps so that the value model knows more at the start",
        )
    if ended < health.start / 4 and health.start >= 0.2:
        raise InvariantViolated(
            Sentence(
                "answers no longer end: {ended:.0%} by themselves over {steps} steps, {start:.0%} of the SFT model's",
                ended=ended,
                steps=_WINDOW,
                start=health.start,
            ),
            where=place,
            hint="raise unended_penalty or max_new_tokens, or lower learning_rate",
        )

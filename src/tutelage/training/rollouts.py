"""Rollouts: completions sampled from the policy, and all that PPO must know of each of their tokens.

Tokens stay tokens: what was sampled is what is scored. Log-probabilities are recomputed with the training
forward, over the same micro-batches that the update will use, so the first ratio of an update is exactly 1; the gap
to the sampler's own log-probabilities is kept as a measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.datasets.batching import fill
from tutelage.models.generation import Completion, Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.logprobs import token_scores
from tutelage.rendering import Rendered
from tutelage.training.flat import flatten
from tutelage.training.reward_model import RewardModel, ValueModel


@dataclass(frozen=True, slots=True)
class Rollout:
    """A batch of sampled completions, longest = T. Rows are completions; everything is fp32 on the CPU.

    examples: the sequences, with the mask on their completions.
    ended: (batch,) True where the policy stopped by itself.
    mask: (batch, T) True at completion tokens.
    logprobs, reference_logprobs, sampler_logprobs: (batch, T) of the sampled tokens.
    values: (batch, T) value of the state before each token.
    scores: (batch,) the reward, at the last token.
    entropy: mean entropy of the policy at the sampled places, in nats.
    """

    examples: list[Rendered]
    ended: Tensor
    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    sampler_logprobs: Tensor
    values: Tensor
    scores: Tensor
    entropy: float

    @property
    def kl(self) -> Tensor:
        """(batch, T) log-ratio of policy to reference at the sampled tokens; its sum over a row estimates the KL."""
        return (self.logprobs - self.reference_logprobs) * self.mask


def sample(
    model: CausalModel,
    adapter: str,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    seeds: Sequence[int],
    slots: int = 32,
) -> list[Completion]:
    """One completion a prompt from the untruncated distribution at temperature 1."""
    requests = [
        Request(prompt_ids=prompt, max_tokens=max_new_tokens, seed=seed, temperature=1.0, top_p=1.0)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    with model.using(adapter):
        return complete(model, stop_ids, requests, slots=slots)


def as_examples(prompts: Sequence[Sequence[int]], completions: Sequence[Completion]) -> list[Rendered]:
    """Prompt and completion in one sequence, the completion scored."""
    return [
        Rendered([*prompt, *each.token_ids], [False] * len(prompt) + [True] * len(each.token_ids))
        for prompt, each in zip(prompts, completions, strict=True)
    ]


def micro_batches(examples: Sequence[Rendered], members: Sequence[int], micro_tokens: int) -> list[list[int]]:
    """Cut a minibatch (indices into `examples`) into groups of similar length, at most `micro_tokens` tokens each."""
    lengths = [len(example.token_ids) for example in examples]
    return list(fill(sorted(members, key=lambda index: lengths[index]), lengths, micro_tokens))


@torch.inference_mode()
def score(
    model: CausalModel,
    completions: Sequence[Completion],
    examples: list[Rendered],
    groups: Sequence[Sequence[int]],
    *,
    policy: str,
    reference: str,
    value: ValueModel,
    reward: RewardModel,
) -> Rollout:
    """Everything PPO needs of sampled completions; the four adapters visit each micro-batch in turn."""
    lengths = [len(each.token_ids) for each in completions]
    size = (len(examples), max(lengths))
    logprobs, reference_logprobs, values = torch.zeros(size), torch.zeros(size), torch.zeros(size)
    scores = torch.zeros(len(examples))
    entropy = 0.0
    for group in groups:
        batch = flatten([examples[index] for index in group], model.device)
        rows = RowView(group, [lengths[index] for index in group])
        with model.using(policy):
            scored = token_scores(
                model.hidden(batch.token_ids, batch.layout)[batch.scored], model.head, batch.targets
            )
        rows.put(logprobs, scored.logprobs)
        entropy += float(scored.entropy.sum())
        with model.using(reference):
            states = model.hidden(batch.token_ids, batch.layout)[batch.scored]
        rows.put(reference_logprobs, token_scores(states, model.head, batch.targets).logprobs)
        rows.put(values, value.at(model, batch.token_ids, batch.layout, batch.scored))
        scores[list(group)] = reward.scores(model, batch).mean(dim=1).cpu()
    sampler = torch.zeros(size)
    for row, each in enumerate(completions):
        sampler[row, : len(each.logprobs)] = torch.tensor(each.logprobs)
    mask = torch.arange(size[1]) < torch.tensor(lengths)[:, None]
    ended = torch.tensor([each.finish_reason == "stop" for each in completions])
    return Rollout(
        examples, ended, mask, logprobs, reference_logprobs, sampler, values, scores, entropy / sum(lengths)
    )


@dataclass(frozen=True, slots=True)
class RowView:
    """Places of a micro-batch's flat completion tokens in a (batch, T) tensor: rows `members`, their first tokens."""

    members: Sequence[int]
    lengths: Sequence[int]

    def _index(self) -> tuple[Tensor, Tensor]:
        rows = torch.repeat_interleave(torch.tensor(self.members), torch.tensor(self.lengths))
        columns = torch.cat([torch.arange(length) for length in self.lengths])
        return rows, columns

    def put(self, target: Tensor, flat: Tensor) -> None:
        """Write flat values into their places."""
        target[self._index()] = flat.float().cpu()

    def take(self, source: Tensor) -> Tensor:
        """Read the values of this micro-batch in flat order."""
        return source[self._index()]

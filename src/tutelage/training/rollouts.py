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
from tutelage.errors import InvariantViolated, Sentence
from tutelage.models.generation import Completion, Request, complete
from tutelage.rendering import Rendered
from tutelage.training.actors import Models
from tutelage.training.distributed import collect, share, sum_tensors, world
from tutelage.training.flat import FlatBatch, flatten
from tutelage.training.reward_model import RewardModel
from tutelage.training.weights import Weights


@dataclass(frozen=True, slots=True)
class Rollout:
    """A batch of sampled completions, longest = T. Rows are completions; everything is fp32 on the CPU.

    examples: the sequences, with the mask on their completions.
    ended: (batch,) True where the policy stopped by itself.
    mask: (batch, T) True at completion tokens.
    logprobs, reference_logprobs, sampler_logprobs: (batch, T) of the sampled tokens.
    entropies: (batch, T) of the policy at each sampled place, in nats.
    values: (batch, T) value of the state before each token.
    scores: (batch,) reward at the last token; spread: (batch,) deviation among the reward model's members.
    """

    examples: list[Rendered]
    ended: Tensor
    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    sampler_logprobs: Tensor
    entropies: Tensor
    values: Tensor
    scores: Tensor
    spread: Tensor

    @property
    def kl(self) -> Tensor:
        """(batch, T) log-ratio of policy to reference at the sampled tokens; its sum over a row estimates the KL."""
        return (self.logprobs - self.reference_logprobs) * self.mask

    @property
    def entropy(self) -> float:
        """Mean over all sampled tokens, in nats."""
        return float(self.entropies[self.mask].mean())

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion."""
        lengths: list[int] = self.mask.sum(dim=1).tolist()
        return lengths


def sample(models: Models, policy: Weights, requests: Sequence[Request]) -> list[Completion]:
    """Every request's completion, in order. Raises InvariantViolated unless they ask for the whole distribution.

    Servers know adapters by name, and no more: what the base says itself is drawn here.
    """
    for request in requests:
        refuse_narrowing(request)
    if models.servers is not None and policy.adapter is not None:
        made = models.servers.complete(models.loaded, policy, requests) if world().is_first else []
        return collect(list(enumerate(made)), len(requests))
    mine = share(list(enumerate(requests)), lambda item: len(item[1].prompt_ids) + item[1].max_tokens)
    with policy.active():
        made = complete(policy.model, models.loaded.renderer.stop_ids, [request for _, request in mine])
    return collect([(place, each) for (place, _), each in zip(mine, made, strict=True)], len(requests))


def whole_distribution(
    prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_new_tokens: int
) -> list[Request]:
    """A request for each prompt: temperature 1, nothing cut off, nothing added."""
    return [
        Request(prompt_ids=prompt, max_tokens=max_new_tokens, seed=seed, temperature=1.0, top_p=1.0)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def refuse_narrowing(request: Request) -> None:
    """Rollouts come from the policy's own distribution. Raises InvariantViolated."""
    plain = Request(
        prompt_ids=request.prompt_ids,
        max_tokens=request.max_tokens,
        seed=request.seed,
        top_logprobs=request.top_logprobs,
    )
    if request != plain:
        raise InvariantViolated(
            Sentence(
                "a rollout was asked for at temperature {temperature}, top_p {top_p}, or with biases or"
                " penalties",
                temperature=request.temperature,
                top_p=request.top_p,
            ),
            where=Sentence("PPO's sampler"),
            hint="sample at temperature 1 from everything: otherwise the ratios are those of another distribution",
        )


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
    models: Models,
    policy: Weights,
    completions: Sequence[Completion],
    examples: list[Rendered],
    groups: Sequence[Sequence[int]],
) -> Rollout:
    """Everything PPO needs of completions that `policy` has sampled; the models visit each micro-batch in turn."""
    model = models.model
    lengths = [len(each.token_ids) for each in completions]
    size = (len(examples), max(lengths))
    logprobs, reference_logprobs, entropies, values = (torch.zeros(size) for _ in range(4))
    scores, spread = torch.zeros(len(examples)), torch.zeros(len(examples))
    for group in share(groups, lambda group: sum(len(examples[index].token_ids) for index in group)):
        batch = flatten([examples[index] for index in group], model.device)
        rows = RowView(group, [lengths[index] for index in group])
        scored = policy.token_scores(batch)
        rows.put(logprobs, scored.logprobs)
        rows.put(entropies, scored.entropy)
        rows.put(reference_logprobs, models.reference.token_scores(batch).logprobs)
        rows.put(values, models.value.at(model, batch.token_ids, batch.layout, batch.scored))
        members = models.reward.scores(model, batch).float().cpu()
        scores[list(group)] = members.mean(dim=1)
        spread[list(group)] = members.std(dim=1, correction=0)
    sum_tensors([logprobs, entropies, reference_logprobs, values, scores, spread])
    sampler = torch.zeros(size)
    for row, each in enumerate(completions):
        sampler[row, : len(each.logprobs)] = torch.tensor(each.logprobs)
    mask = torch.arange(size[1]) < torch.tensor(lengths)[:, None]
    ended = torch.tensor([each.finish_reason == "stop" for each in completions])
    return Rollout(
        examples, ended, mask, logprobs, reference_logprobs, sampler, entropies, values, scores, spread
    )


@torch.inference_mode()
def judge(
    models: Models, reward: RewardModel, examples: Sequence[Rendered], groups: Sequence[Sequence[int]]
) -> Tensor:
    """Another reward model's word on the same completions: (batch,)."""
    scores = torch.zeros(len(examples))
    for group in share(groups, lambda group: sum(len(examples[index].token_ids) for index in group)):
        batch: FlatBatch = flatten([examples[index] for index in group], models.model.device)
        scores[list(group)] = reward.scores(models.model, batch).mean(dim=1).float().cpu()
    sum_tensors([scores])
    return scores


@torch.inference_mode()
def probe(models: Models, token_ids: Sequence[int]) -> float:
    """The reference's mean log-probability of a text: a number to know the reference by."""
    batch = flatten([Rendered(list(token_ids), [True] * len(token_ids))], models.model.device)
    return float(models.reference.token_scores(batch).logprobs.mean())


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

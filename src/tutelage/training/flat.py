"""Flat batches: examples one after the other, with the places that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.datasets.preference import PreferenceExample
from tutelage.models.layout import Layout, sequences, trees
from tutelage.rendering import Rendered


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """Dialogues in a row. token_ids: (tokens,); scored: (n,) places whose next token is scored; targets: (n,)."""

    token_ids: Tensor
    layout: Layout
    scored: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Prompts, each followed by its completions. ends: (completions,) place of each completion's last token.

    `counts` holds the number of completions of each prompt.
    """

    token_ids: Tensor
    layout: Layout
    ends: Tensor
    counts: tuple[int, ...]


def flatten(examples: Sequence[Rendered], device: torch.device) -> FlatBatch:
    """Put examples into one row. The first token of an example is never a target."""
    token_ids = torch.tensor([token for example in examples for token in example.token_ids], device=device)
    mask = torch.tensor(
        [flag for example in examples for flag in (False, *example.completion_mask[1:])], device=device
    )
    targets = mask.nonzero()[:, 0]
    layout = sequences([len(example.token_ids) for example in examples]).to(device)
    return FlatBatch(token_ids, layout, targets - 1, token_ids[targets])


def flatten_trees(
    examples: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], device: torch.device
) -> TreeBatch:
    """Put (prompt, completions) into one row. Raises ValueError for an empty completion: it has no last token."""
    token_ids: list[int] = []
    ends: list[int] = []
    for prompt, completions in examples:
        token_ids += prompt
        for completion in completions:
            if not completion:
                raise ValueError("a completion has at least its end token")
            token_ids += completion
            ends.append(len(token_ids) - 1)
    layout = trees([(len(prompt), [len(each) for each in completions]) for prompt, completions in examples])
    return TreeBatch(
        torch.tensor(token_ids, device=device),
        layout.to(device),
        torch.tensor(ends, device=device),
        tuple(len(completions) for _, completions in examples),
    )


def preference_trees(examples: Sequence[PreferenceExample], device: torch.device) -> TreeBatch:
    """Comparisons as trees."""
    return flatten_trees([(example.prompt_ids, example.completions) for example in examples], device)

"""Which tokens of a flat batch attend to which: sequences, and trees of one prompt with its completions.

A batch is one flat row of tokens, so that linear layers never see padding. For attention alone, a `Layout`
gathers the tokens into rows: one row a sequence, right-padded, causal. Padding stands to the right of every real
token, so a causal mask keeps it out of sight. In a tree, the row of each completion repeats the prompt's
keys and values, and the prompt's own outputs are read from the first row: its linear layers run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """How `tokens` flat tokens form causal rows.

    positions: (tokens,) rotary position of each token.
    gather: (rows, longest) flat index of the token at each place; padding repeats index 0.
    scatter: (tokens,) index into the flattened (rows * longest) places from which a token's output is read.
    repeats: (2, n) tokens of prompts, and the further places where they stand; none for plain sequences.
    """

    positions: Tensor
    gather: Tensor
    scatter: Tensor
    repeats: Tensor

    @property
    def is_plain(self) -> bool:
        """True when the rows are the flat batch itself, cut evenly: nothing to gather."""
        return self.scatter.numel() == self.gather.numel()

    def rows(self, x: Tensor) -> Tensor:
        """(tokens, …) -> (rows, longest, …)."""
        if not self.is_plain:
            x = _Rows.apply(x, self)  # type: ignore[no-untyped-call]
        return x.view(*self.gather.shape, *x.shape[1:])

    def to(self, device: torch.device) -> Layout:
        """The same layout on another device."""
        parts = (self.positions, self.gather, self.scatter, self.repeats)
        return Layout(*(part.to(device) for part in parts))


class _Rows(torch.autograd.Function):
    """Tokens at their places. A token's gradient is read at its own place, and summed only where it stands again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return x.index_select(0, layout.gather.flatten())

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (g,) = outputs
        layout: Layout = ctx.layout
        to_x = g.index_select(0, layout.scatter)
        if layout.repeats.numel():
            tokens, places = layout.repeats
            _add_in_order(to_x, tokens, g.index_select(0, places))
        return to_x, None


def _add_in_order(target: Tensor, index: Tensor, source: Tensor) -> None:
    """Add rows of `source` to the rows of `target` that `index` names, with the same bits each time.

    On a GPU `index_add_` adds in any order, and `index_put_` in the order of the places.
    """
    if target.is_cuda:
        target.index_put_((index,), source, accumulate=True)
    else:
        target.index_add_(0, index, source)


def sequences(lengths: Sequence[int]) -> Layout:
    """Layout of sequences that stand one after the other and do not see each other."""
    return trees([(length, ()) for length in lengths])


def trees(shapes: Sequence[tuple[int, Sequence[int]]]) -> Layout:
    """Layout of trees, each a prompt's length and the lengths of its completions.

    In the flat batch a tree is its prompt followed by its completions. A completion sees the prompt and
    itself, never another completion.
    """
    rows: list[Tensor] = []
    owners: list[Tensor] = []  # for each row, True where this row computes the token's output
    positions: list[Tensor] = []
    start = 0
    for prompt, completions in shapes:
        edges = list(accumulate(completions, initial=start + prompt))
        prompt_ids = torch.arange(start, start + prompt)
        positions.append(torch.arange(prompt))
        for index, (first, last) in enumerate(pairwise(edges)):
            rows.append(torch.cat([prompt_ids, torch.arange(first, last)]))
            owners.append(torch.arange(prompt + last - first) >= (prompt if index else 0))
            positions.append(torch.arange(prompt, prompt + last - first))
        if not completions:
            rows.append(prompt_ids)
            owners.append(torch.ones(prompt, dtype=torch.bool))
        start = edges[-1]
    longest = max(len(row) for row in rows)
    gather = torch.zeros(len(rows), longest, dtype=torch.long)
    scatter = torch.empty(start, dtype=torch.long)
    repeats: list[Tensor] = []
    for index, (row, owner) in enumerate(zip(rows, owners, strict=True)):
        gather[index, : len(row)] = row
        places = torch.arange(index * longest, index * longest + len(row))
        scatter[row[owner]] = places[owner]
        repeats.append(torch.stack([row[~owner], places[~owner]]))
    return Layout(torch.cat(positions), gather, scatter, torch.cat(repeats, dim=1))

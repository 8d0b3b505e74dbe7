"""What the running completions are drawn with: one row a slot, on the model's device, updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.models.sampling import RowSampling

if TYPE_CHECKING:
    from tutelage.models.generation import Request


class Rows:
    """last: the token that each slot has drawn, not in its cache yet; places: how many tokens its cache holds."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._whole = torch.zeros(4, slots, dtype=torch.int64, device=device)
        self._shares = torch.ones(2, slots, device=device)
        self.last, self.places, self._seeds, self._drawn = self._whole
        self._temperatures, self._top_p = self._shares

    def put(self, first: int, requests: Sequence[Request]) -> None:
        """Fill the rows from `first` on for requests whose prompts are in the cache."""
        rows = slice(first, first + len(requests))
        lengths, seeds = [len(each.prompt_ids) for each in requests], [each.seed for each in requests]
        none = [0] * len(requests)
        self._whole[:, rows] = torch.tensor([none, lengths, seeds, none], device=self._whole.device)
        # A greedy row takes the best token: nothing beyond it is worth sorting.
        top_p = [each.top_p if each.temperature > 0 else 0.0 for each in requests]
        shares = [[each.temperature for each in requests], top_p]
        self._shares[:, rows] = torch.tensor(shares, device=self._shares.device)

    def move(self, source: int, target: int) -> None:
        """Bring a row to another slot."""
        self._whole[:, target] = self._whole[:, source]
        self._shares[:, target] = self._shares[:, source]

    def sampling(self, first: int, requests: Sequence[Request]) -> RowSampling:
        """How the rows from `first` on are drawn next; the requests are theirs."""
        rows = slice(first, first + len(requests))
        warm = [each for each in requests if each.temperature > 0]
        return RowSampling(
            temperature=self._temperatures[rows],
            top_p=self._top_p[rows],
            seed=self._seeds[rows],
            place=self._drawn[rows],
            any_greedy=len(warm) < len(requests),
            any_tempered=any(each.temperature != 1 for each in warm),
            any_cut=any(each.top_p < 1 for each in warm),
            any_whole=any(each.top_p >= 1 for each in warm),
        )

    def drew(self, first: int, tokens: Tensor) -> None:
        """Note what was drawn for the rows from `first` on."""
        rows = slice(first, first + len(tokens))
        self.last[rows] = tokens
        self._drawn[rows] += 1

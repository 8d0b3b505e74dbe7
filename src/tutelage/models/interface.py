"""What training and generation ask of a model, whoever's code computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.adapters import AdapterHost
from tutelage.models.layout import Layout


class Cache(Protocol):
    """What a model remembers of running sequences, one a slot."""

    def move(self, source: int, target: int, length: int) -> None:
        """Bring the first `length` tokens of a slot into another one; `source` is free afterwards."""

    def grown(self, length: int) -> Cache:
        """The same contents, with room for `length` tokens in every slot."""


class CausalModel(AdapterHost, ABC):
    """A causal language model with frozen weights, on which adapters train.

    head: (vocabulary, width), the matrix that turns states into logits.
    """

    head: Tensor

    @property
    @abstractmethod
    def context_length(self) -> int:
        """The most tokens that a sequence may have."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Size of a token's state."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @abstractmethod
    def hidden(self, token_ids: Tensor, layout: Layout) -> Tensor:
        """Final normalised states of a flat batch. token_ids: (tokens,) -> (tokens, width)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, vocabulary), in the model's dtype."""
        return F.linear(hidden, self.head)

    @abstractmethod
    def new_cache(self, slots: int, length: int) -> Cache:
        """Room for `slots` sequences of up to `length` tokens."""

    @abstractmethod
    def prefill(self, token_ids: Tensor, layout: Layout, cache: Any, slots: Tensor) -> Tensor:
        """Read whole prompts into slots of a cache that `new_cache` made. Returns states (tokens, width).

        layout: of plain sequences; the i-th goes into slot `slots[i]`.
        """

    @abstractmethod
    def step(self, token_ids: Tensor, cache: Any, places: Tensor) -> Tensor:
        """One more token in each of the first n slots. token_ids, places: (n,) -> states (n, width).

        places: how many tokens each of the slots holds before.
        """

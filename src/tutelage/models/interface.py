"""What training and generation ask of a model, whoever's code computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.models.adapters import AdapterHost
from tutelage.models.layout import Layout


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of a sequence, to be read into a slot that holds the first `start` tokens already."""

    token_ids: Sequence[int]
    slot: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """What a cache remembers of the first tokens of one sequence, taken out of its slot."""

    entries: Tensor

    @property
    def size(self) -> int:
        """In bytes."""
        return self.entries.nbytes


class Cache(Protocol):
    """What a model remembers of running sequences, one a slot.

    partial: whether it can go on from a part of what a slot holds. Where it cannot, `take` and `put` are never called,
    and `copy` only with all that a slot holds.
    """

    partial: bool

    def copy(self, source: int, target: int, length: int) -> None:
        """Make a slot begin with the first `length` tokens of another one."""

    def resized(self, length: int, slots: int) -> Cache:
        """The same contents in so many slots, with room for `length` tokens in each; what stood behind them is lost."""

    def take(self, slot: int, length: int) -> Span:
        """A copy of the first `length` tokens of a slot."""

    def put(self, slot: int, span: Span, length: int) -> None:
        """Make a slot begin with the first `length` tokens of a span."""

    def release(self) -> None:
        """Give back what the cache took of the model, which can be trained again."""


class CausalModel(AdapterHost, ABC):
    """A causal language model with frozen weights, on which adapters train.

    head: (vocabulary, width), the matrix that turns states into logits.
    recompute: keep only the states between layers for the backward pass, and compute the rest again there: less
    memory, a third more time.
    """

    head: Tensor
    recompute = False

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

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What the model was loaded in."""

    @abstractmethod
    def unfreeze(self) -> list[nn.Parameter]:
        """Make every weight trainable, kept in fp32, and return them; tied weights are one parameter.

        Products still run in `dtype`, where the model's code is this package's.
        """

    @abstractmethod
    def hidden(self, token_ids: Tensor, layout: Layout) -> Tensor:
        """Final normalised states of a flat batch. token_ids: (tokens,) -> (tokens, width)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, vocabulary), in the model's dtype."""
        return F.linear(hidden, self.head.to(hidden.dtype))

    @abstractmethod
    def new_cache(self, slots: int, length: int) -> Cache:
        """Room for `slots` sequences of up to `length` tokens, read and stepped with the adapter active now.

        The model cannot be trained before the cache is released.
        """

    @abstractmethod
    def read(self, pieces: Sequence[Piece], cache: Any) -> Tensor:
        """Read pieces of different sequences into slots of a cache that `new_cache` made.

        Returns the logits that follow each piece, (pieces, vocabulary).
        """

    @abstractmethod
    def step(self, token_ids: Tensor, cache: Any, places: Tensor) -> Tensor:
        """One more token in each of the first n slots. token_ids, places: (n,) -> logits (n, vocabulary).

        places: how many tokens each of the slots holds before.
        """


def thaw(modules: Iterable[nn.Module], *, tables: Collection[str] = ()) -> list[nn.Parameter]:
    """Turn buffers, but those named in `tables`, into parameters in fp32. One tensor is one parameter."""
    found = [
        (module, name, tensor)
        for module in modules
        for name, tensor in module.named_buffers(recurse=False, remove_duplicate=False)
        if name not in tables
    ]
    made = {id(tensor): nn.Parameter(tensor.float()) for _, _, tensor in found}
    for module, name, tensor in found:
        del module._buffers[name]
        module.register_parameter(name, made[id(tensor)])
    return list(made.values())

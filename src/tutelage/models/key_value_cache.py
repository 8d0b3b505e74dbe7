"""What a transformer remembers of running sequences: keys and values, a slot for each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.graphs import StepGraphs
from tutelage.models.interface import Span

if TYPE_CHECKING:
    from tutelage.models.decoding import Weights


class KeyValueCache:
    """Keys and values of running sequences.

    table: (layers, 2, slots, key_heads, length, head_width), keys before values. A step reads the whole length, since a
    product of a part would copy the part first.
    """

    partial = True

    def __init__(self, table: Tensor, weights: Weights) -> None:
        self.table = table
        self.weights = weights
        # None: the kernels of a step are launched one by one.
        self.graphs = StepGraphs() if table.is_cuda else None
        _, _, slots, heads, length, _ = table.shape
        first = torch.arange(2 * slots * heads, device=table.device) * length
        self._first = first.view(2, slots, heads).transpose(0, 1).flatten(1)

    @property
    def slots(self) -> int:
        return self.table.shape[2]

    @property
    def length(self) -> int:
        return self.table.shape[4]

    def lines(self) -> Tensor:
        """The same memory, a head's key or value a line: (layers, lines, head_width)."""
        return self.table.flatten(1, 4)

    def lines_of(self, slots: Tensor | slice, places: Tensor) -> Tensor:
        """Which lines of a layer belong to tokens at some places of slots: (tokens, 2 * key_heads), keys first."""
        return self._first[slots] + places[:, None]

    def copy(self, source: int, target: int, length: int) -> None:
        self.table[:, :, target, :, :length] = self.table[:, :, source, :, :length]

    def resized(self, length: int, slots: int) -> KeyValueCache:
        more = (0, 0, 0, length - self.length, 0, 0, 0, slots - self.slots)
        return KeyValueCache(F.pad(self.table, more), self.weights)

    def take(self, slot: int, length: int) -> Span:
        return Span(self.table[:, :, slot, :, :length].clone())

    def put(self, slot: int, span: Span, length: int) -> None:
        self.table[:, :, slot, :, :length] = span.entries[..., :length, :]

    def release(self) -> None:
        self.weights.release()

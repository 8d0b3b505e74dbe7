"""The weights that a model speaks with: one of its adapters, or all its own; some train, some are frozen."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.interface import CausalModel
from tutelage.models.logprobs import TokenScores, token_scores
from tutelage.models.saving import save_weights
from tutelage.registry.version import ADAPTER, WEIGHTS
from tutelage.training.distributed import parted, whole, world
from tutelage.training.flat import FlatBatch
from tutelage.training.sharding import shard, together


@dataclass(frozen=True, slots=True)
class Weights:
    """A model under one of its adapters; without one, as it is. `parameters` are what trains, none when frozen."""

    model: CausalModel
    adapter: str | None
    parameters: list[nn.Parameter]

    @property
    def kind(self) -> str:
        """The folder that these weights have in a run: `adapter` or `weights`."""
        return WEIGHTS if self.adapter is None else ADAPTER

    def active(self) -> AbstractContextManager[None]:
        """Let the model speak with these weights inside the block."""
        return self.model.using(self.adapter)

    def token_scores(self, batch: FlatBatch) -> TokenScores:
        """Log-probability of each target of a flat batch under these weights, and the entropy there."""
        with self.active():
            states = self.model.hidden(batch.token_ids, batch.layout)[batch.scored]
        return token_scores(states, self.model.head, batch.targets)

    def copy(self, name: str) -> Weights:
        """Others that begin the same and change by themselves: an adapter of this name, or another model."""
        if self.adapter is not None:
            self.model.copy_adapter(self.adapter, name)
            return adapter_weights(self.model, name)
        copies: dict[int, Any] = {}
        model = deepcopy(self.model, copies)
        return Weights(model, None, [copies[id(each)] for each in self.parameters])

    def sharded(self) -> Weights:
        """The same weights, with the model's layers split over the processes."""
        shard(self.model)
        if self.adapter is not None:
            return self
        return replace(self, parameters=[each for each in self.model.parameters() if each.requires_grad])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, exactly as it is in memory."""
        if self.adapter is not None:
            return self.model.adapter_tensors(self.adapter)
        return {str(index): whole(each.detach()).cpu() for index, each in enumerate(self.parameters)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave. Raises ModelError when an adapter does not fit."""
        if self.adapter is not None:
            self.model.set_adapter_tensors(self.adapter, tensors)
            return
        for index, parameter in enumerate(self.parameters):
            parameter.copy_(parted(tensors[str(index)], parameter))

    @torch.no_grad()
    def follow(self, other: Weights, decay: float) -> None:
        """Move towards others: a running average of them, one step further.

        Source: Ouyang et al. 2022 (2203.02155), appendix C.4.
        """
        for slow, fast in zip(self.parameters, other.parameters, strict=True):
            slow.lerp_(fast, 1 - decay)

    def save(self, folder: Path, *, base: str, source: Path) -> None:
        """Write an adapter in PEFT's format, or the model in the dtype that its products ran in.

        Every process calls it, and the first one writes.
        base: the name that the model was loaded by; source: its folder.
        """
        if self.adapter is None:
            together(self.model)
        if not world().is_first:
            return
        if self.adapter is not None:
            save_adapter(self.model, self.adapter, folder, base=base)
        else:
            save_weights(self.model, folder, source, dtype=self.model.dtype)


def new_adapter(
    model: CausalModel, name: str, shape: AdapterShape, *, seed: int, start: Path | None = None
) -> Weights:
    """An adapter that changes nothing yet, or one that goes on from the folder `start`."""
    if start is None:
        model.add_adapter(name, shape, seed=seed)
    else:
        load_adapter(model, name, start)
    return adapter_weights(model, name)


def adapter_weights(model: CausalModel, name: str) -> Weights:
    """The adapter of a model that is called so."""
    return Weights(model, name, model.adapter_parameters(name))


def whole_model(model: CausalModel, *, start: Path | None = None) -> Weights:
    """All weights, after folding in the adapter in the folder `start`."""
    if start is not None:
        load_adapter(model, "start", start)
        model.merge_adapter("start")
    return Weights(model, None, model.unfreeze())

"""What a stage trains: one adapter on a frozen base, or all weights of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel
from tutelage.models.saving import save_weights
from tutelage.registry.version import ADAPTER, WEIGHTS
from tutelage.training.distributed import parted, whole, world
from tutelage.training.sharding import shard, together


@dataclass(frozen=True, slots=True)
class Weights:
    """`parameters` of `model` that train. `adapter` is the name of theirs; None stands for the whole model."""

    model: CausalModel
    adapter: str | None
    parameters: list[nn.Parameter]

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

    def save(self, run: Path, loaded: LoadedModel, source: Path) -> None:
        """Write `adapter/` or `weights/` into a run's folder, the latter in the dtype that products ran in.

        Every process calls it, and the first one writes.
        source: the folder that the model was loaded from.
        """
        if self.adapter is None:
            together(self.model)
        if not world().is_first:
            return
        if self.adapter is not None:
            save_adapter(self.model, self.adapter, run / ADAPTER, base=loaded.name)
        else:
            save_weights(self.model, run / WEIGHTS, source, dtype=loaded.model.dtype)


def new_adapter(
    model: CausalModel, name: str, shape: AdapterShape, *, seed: int, start: Path | None = None
) -> Weights:
    """An adapter that changes nothing yet, or one that goes on from the folder `start`."""
    if start is None:
        model.add_adapter(name, shape, seed=seed)
    else:
        load_adapter(model, name, start)
    return Weights(model, name, model.adapter_parameters(name))


def whole_model(model: CausalModel, *, start: Path | None = None) -> Weights:
    """All weights, after folding in the adapter in the folder `start`."""
    if start is not None:
        load_adapter(model, "start", start)
        model.merge_adapter("start")
    return Weights(model, None, model.unfreeze())

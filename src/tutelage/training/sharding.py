"""A model's layers split over the processes (FSDP2): each holds a part of every layer, and all of one at a time.

Layers come together for their forward and their backward pass and are let go again. Frozen weights are split as
well as trained ones, so adapters train on a base that no single device could hold beside its gradients. What
lies outside the layers (embedding, head, last norm) and the adapters stay whole everywhere, and their gradients
are added up as without splitting. All processes pass through the layers equally often: `in_step` sees to it.

A sharded model trains and scores; it does not generate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from tutelage.errors import ConfigError
from tutelage.models.interface import CausalModel
from tutelage.models.transformer import Transformer
from tutelage.training.distributed import most, world

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Item = TypeVar("Item")


def shard(model: CausalModel) -> None:
    """Split every layer of a model over the processes, one after the other; of one process, leave it as it is.

    The model may be in the host's memory: each layer goes to the device that computes when it is split, the rest
    in the end. So no device ever holds the whole model.
    Parameters that were collected before are stale afterwards. Raises ConfigError for a model whose layers are not
    this package's own.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if world().size == 1:
        model.to(device)
        return
    if not isinstance(model, Transformer):
        raise ConfigError(
            "only the Llama family can be sharded",
            hint="leave out `shard`: each process then holds the model",
        )
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(
        param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    adapters = {parameter for layer in model.adapted_layers() for parameter in layer.adapters.parameters()}
    for block in model.blocks:
        _make_parameters(block)
        fully_shard(block, mp_policy=policy, ignored_params=adapters, reshard_after_forward=True)
        assert isinstance(block, FSDPModule)
        # Gradients are sums: losses are divided by the count of the whole step.
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)
    model.to(device)


def _make_parameters(block: nn.Module) -> None:
    """Frozen weights are buffers; only parameters can be split."""
    for module in block.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            del module._buffers[name]
            module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's layers are split."""
    return bool(_split_layers(model))


def together(model: nn.Module) -> None:
    """Bring all layers together for good, in the dtype they compute in: to be written. Every process calls it."""
    for layer in _split_layers(model):
        layer.unshard()


def _split_layers(model: nn.Module) -> list[FSDPModule]:
    loaded = sys.modules.get("torch.distributed.fsdp")  # slow to import; where nobody has, no layer is split
    return [] if loaded is None else [each for each in model.modules() if isinstance(each, loaded.FSDPModule)]


def in_step(model: nn.Module, groups: Sequence[Item], filler: Item) -> list[tuple[Item, float]]:
    """Each group with weight 1; with a sharded model, `filler` at weight 0 until all processes have equally many."""
    spare = most(len(groups)) - len(groups) if is_sharded(model) else 0
    return [(group, 1.0) for group in groups] + [(filler, 0.0)] * spare

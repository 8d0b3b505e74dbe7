"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors and JSON, never a pickle. It is written beside the last one and renamed
when it is whole, so a crash or a full disk leaves the older one. All randomness of a run comes from its seed
and the step's number, so there is no generator state to keep.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.errors import ModelError, TrainingError
from tutelage.training.distributed import world


@dataclass(frozen=True, slots=True)
class State:
    """What is kept: `step` is the next step to do; `scalars` are JSON values such as a KL coefficient."""

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, state: State) -> None:
    """Write `folder/checkpoint-STEP`, then remove the older ones. The first process writes; the others have the same.

    Raises TrainingError when the disk is full.
    """
    if not world().is_first:
        return
    final = folder / f"checkpoint-{state.step:06d}"
    draft = folder / f".{final.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in state.tensors.items()}, draft / "state.safetensors"
        )
        (draft / "state.json").write_text(json.dumps({"step": state.step, **state.scalars}), encoding="utf-8")
        for file in draft.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise TrainingError(
            f"the checkpoint cannot be written: {error}",
            where=str(final),
            hint="free some disk space and go on with --resume: the last checkpoint is still there",
        ) from error
    for other in folder.glob("checkpoint-*"):
        if other != final:
            shutil.rmtree(other)


def load_newest(folder: Path) -> State | None:
    """The newest checkpoint of a run, or None. Raises ModelError when it is broken."""
    found = sorted(folder.glob("checkpoint-*"))
    if not found:
        return None
    try:
        scalars = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        return State(scalars.pop("step"), load_file(found[-1] / "state.safetensors"), scalars)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"the checkpoint is broken: {error}",
            where=str(found[-1]),
            hint="delete that folder: the run then starts anew, or from an older checkpoint",
        ) from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, in the order of its parameters."""
    tensors: dict[str, Tensor] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return tensors


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` gave, into an optimizer over the same parameters."""
    for index, parameter in enumerate(_parameters(optimizer)):
        at = f"optimizer.{index}."
        state = {key[len(at) :]: value.clone() for key, value in tensors.items() if key.startswith(at)}
        if state:
            optimizer.state[parameter] = state


def prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put `name/` before every key."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def section(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `prefixed` put under `name`."""
    return {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

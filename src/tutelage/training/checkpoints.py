"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors and JSON, never a pickle. It is written beside the last ones and renamed
when it is whole, so a crash or a full disk leaves the older ones. All randomness of a run comes from its seed
and the step's number, so there is no generator state to keep.

Two are kept. A disk that fails can damage a file after it was written whole; because a run is the same whichever
of its checkpoints it goes on from, falling back to the one before costs time and nothing else. The oldest goes
before a new one is written, so there are never more than two on the disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.errors import ModelError, Sentence, TrainingError
from tutelage.registry.folders import sync
from tutelage.training.distributed import parted, whole, world
from tutelage.training.optimizer import AdamW

log = logging.getLogger(__name__)

FORMAT = 2
KEPT = 2
_TENSORS, _STATE = "state.safetensors", "state.json"
_SETTINGS = ("config.json", "plan.json")  # of the run; a checkpoint belongs to these


@dataclass(frozen=True, slots=True)
class State:
    """What is kept: `step` is the next step to do; `scalars` are JSON values such as a KL coefficient."""

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, state: State) -> None:
    """Write `folder/checkpoint-STEP`. The first process writes; the others have the same.

    Raises TrainingError when it cannot be written; the last one is then still there.
    """
    if not world().is_first:
        return
    final = folder / f"checkpoint-{state.step:06d}"
    draft = folder / f".{final.name}.partial"
    try:
        others = [checkpoint for checkpoint in _found(folder) if checkpoint != final]
        for old in [*folder.glob(".checkpoint-*.partial"), *others[: 1 - KEPT]]:
            shutil.rmtree(old)
        draft.mkdir(parents=True)
        _write(draft, state, _settings(folder))
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise TrainingError(
            Sentence("the checkpoint cannot be written: {error}", error=error),
            where=str(final),
            hint="free some disk space and go on with --resume: the last checkpoint is still there",
        ) from error


def load_newest(folder: Path) -> State | None:
    """The newest checkpoint of a run that is not broken, or None where there is none at all.

    A broken one is passed over with a warning. Raises ModelError when all are broken, or one is not this run's.
    """
    found = _found(folder)
    broken: list[str] = []
    for checkpoint in reversed(found):
        try:
            return _read(checkpoint, _settings(folder))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            broken.append(f"{checkpoint.name}: {error}")
            log.warning("the checkpoint %s is broken and passed over: %s", checkpoint, error)
    if not found:
        return None
    raise ModelError(
        Sentence("no checkpoint of this run can be read ({reasons})", reasons="; ".join(broken)),
        where=str(folder),
        hint="delete the folders checkpoint-*: with --resume the run then begins anew",
    )


def load_same(folder: Path, data: str) -> State | None:
    """As `load_newest`, of a run that keeps what it found out about its data, known by `digest_of`.

    People may have taken back some of the data since: what is kept then belongs to other rows, and the run begins anew.
    """
    state = load_newest(folder)
    if state is None:
        return None
    with resuming(folder):
        if state.scalars["data"] == data:
            return state
    log.warning("some of what the run %s was begun with has been taken back: it begins anew", folder.name)
    return None


def digest_of(texts: Iterable[Sequence[int]]) -> str:
    """What tells whether texts, in tokens, are the same, and does not tell their words."""
    digest = hashlib.sha256()
    for each in texts:
        digest.update(array("q", [len(each), *each]).tobytes())
    return digest.hexdigest()


def _found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-[0-9]*"), key=lambda found: int(found.name.rpartition("-")[2]))


def _write(folder: Path, state: State, settings: str) -> None:
    save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, folder / _TENSORS)
    content = {"format": FORMAT, "settings": settings, "step": state.step, "scalars": state.scalars}
    content["digest"] = _digest(folder, state.step, state.scalars)
    (folder / _STATE).write_text(json.dumps(content), encoding="utf-8")
    for file in (folder / _TENSORS, folder / _STATE, folder):
        sync(file)


def _read(folder: Path, settings: str) -> State:
    """Raises ModelError for a checkpoint of another run or program; for a broken one, what reading it raises."""
    content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ModelError(
            "the checkpoint was written by another version of tutelage",
            where=str(folder),
            hint="go on with that version, or delete the run and begin it anew",
        )
    if content["settings"] != settings:
        raise ModelError(
            "the checkpoint belongs to a run with other settings",
            where=str(folder),
            hint="move it back to the run it came from: this run goes on from its own checkpoints",
        )
    step, scalars = content["step"], content["scalars"]
    if content["digest"] != _digest(folder, step, scalars):
        raise ValueError("its content is not what was written")
    return State(step, load_file(folder / _TENSORS), scalars)


def _digest(folder: Path, step: int, scalars: dict[str, Any]) -> str:
    """SHA-256 over all that is kept."""
    with (folder / _TENSORS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps([step, scalars], sort_keys=True).encode())
    return digest.hexdigest()


def _settings(folder: Path) -> str:
    """A digest of what a run was begun with."""
    files = [folder / name for name in _SETTINGS if (folder / name).exists()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@contextmanager
def resuming(folder: Path) -> Iterator[None]:
    """Inside the block a run takes up its checkpoint.

    Raises ModelError when the checkpoint lacks something, or has it in other sizes.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, ModelError) as error:
        log.debug("what does not fit", exc_info=True)
        raise ModelError(
            "the checkpoint does not hold what this version of tutelage goes on from",
            where=str(folder),
            hint="go on with the version that wrote it, or delete the folders checkpoint-*: "
            "with --resume the run then begins anew",
        ) from error


def pack_optimizer(optimizer: AdamW) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, in the order of its parameters."""
    tensors: dict[str, Tensor] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{index}.{key}"] = whole(torch.as_tensor(value))
    return tensors


def unpack_optimizer(optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` gave, into an optimizer over the same parameters.

    Raises ModelError when it was another optimizer's, before anything has changed.
    """
    parameters = _parameters(optimizer)
    states: list[dict[str, Tensor]] = [{} for _ in parameters]
    for name, value in tensors.items():
        _, index, key = name.split(".", 2)
        if int(index) >= len(states) or (value.ndim and value.shape != parameters[int(index)].shape):
            raise ModelError(
                "the optimizer in the checkpoint does not fit this model: other layers or other sizes",
                hint="a checkpoint belongs to the run that wrote it; begin the run anew",
            )
        # Adam counts its steps on the CPU, wherever the weights are.
        device = value.device if key == "step" else parameters[int(index)].device
        states[int(index)][key] = parted(value.to(device, copy=True), parameters[int(index)])
    for parameter, state in zip(parameters, states, strict=True):
        if state:
            optimizer.state[parameter] = state


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, whatever becomes of them."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put `name/` before every key."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def section(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `prefixed` put under `name`."""
    return {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def _parameters(optimizer: AdamW) -> Sequence[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

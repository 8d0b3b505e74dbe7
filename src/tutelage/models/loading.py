"""Load a model by name: its weights in the fastest dtype of the machine, and its renderer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tutelage.errors import ConfigError, Sentence
from tutelage.models.adapters import load_adapter
from tutelage.models.foreign import load_foreign
from tutelage.models.four_bit import hold_in_four_bits
from tutelage.models.interface import CausalModel
from tutelage.models.locate import locate
from tutelage.models.transformer import Transformer, read_architecture, read_tensors
from tutelage.registry import ModelVersion
from tutelage.rendering import Renderer, load_renderer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, the renderer of its text, and the name it was asked for by."""

    name: str
    model: CausalModel
    renderer: Renderer

    def check_room(self, longest: Mapping[str, int]) -> None:
        """As the function of this name, for this model."""
        check_room(self.name, self.model.context_length, longest)


def check_room(model: str, room: int, longest: Mapping[str, int]) -> None:
    """Raises ConfigError when sequences do not fit into the model's context, which holds `room` tokens.

    longest: how many tokens a sequence may have, by the setting that allows it.
    """
    for setting, tokens in longest.items():
        if tokens > room:
            raise ConfigError(
                Sentence(
                    "{setting} is {tokens}, and the context of {name} holds {room}",
                    setting=setting,
                    tokens=tokens,
                    name=model,
                    room=room,
                ),
                hint=Sentence(
                    "set it to {room} or less: what is longer is then left out by whole turns, and counted",
                    room=room,
                ),
            )


def load_model(name: str, home: Path, *, dtype: str = "auto", on_host: bool = False) -> LoadedModel:
    """Load the model called `name` (see `locate`). dtype: `auto`, `bfloat16` or `float32`.

    The Llama family runs on this package's own code, other families on transformers'. `on_host` leaves the weights
    in the host's memory, whatever will compute with them.
    Raises ModelError when the model cannot be found or read, or does not work like other causal models.
    """
    folder = locate(name, home)
    shape = read_architecture(folder)
    renderer = load_renderer(folder)
    if name == "tiny":
        torch.set_num_threads(
            1
        )  # its layers are too small to share: the threads would only wait for each other
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = _dtype(name, device) if dtype == "auto" else DTYPES[dtype]
    if on_host:
        device = torch.device("cpu")
    if shape is None:
        return LoadedModel(name, load_foreign(folder, wanted, device), renderer)
    model = Transformer(shape, read_tensors(folder, wanted, device))
    return LoadedModel(name, model.to(device), renderer)


def load_version(
    version: ModelVersion, home: Path, *, dtype: str = "auto", for_chat: bool = False
) -> LoadedModel:
    """A published chat version: its own weights, or its base model with its adapter folded in.

    for_chat: hold weights that came from 4 bits in 4 bits as well, where a few streams are faster so.
    Raises ModelError when the base or the adapter cannot be read.
    """
    loaded = load_model(version.model if version.weights is None else str(version.weights), home, dtype=dtype)
    if for_chat:
        hold_in_four_bits(loaded.model.adapted_layers(), home)
    if version.adapter is not None:
        load_adapter(loaded.model, "published", version.adapter)
        loaded.model.merge_adapter("published")
    return loaded


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively, except for `tiny`, whose layers are too small to gain."""
    return torch.bfloat16 if has_fast_bfloat16(device) and name != "tiny" else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether this device multiplies bf16 matrices in hardware, by torch's own word."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

"""A model's own weights back into a Hugging Face folder: for full fine-tuning, and for merged exports.

The folder loads here, in transformers, and in whatever else reads its layout: the projections that are fused in
memory stand under their own names again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import ModelError, Sentence
from tutelage.models.adapters import AdaptedLinear
from tutelage.models.foreign import ForeignModel
from tutelage.models.interface import CausalModel
from tutelage.models.transformer import Block, Transformer
from tutelage.registry.folders import whole_folder

TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def save_weights(model: CausalModel, folder: Path, source: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the model as a Hugging Face folder; an older one at that place is replaced once the new one is whole.

    `source` is the folder the model was loaded from: it gives the config and the files of the tokenizer.
    Without `dtype`, every tensor keeps its own. Adapters are not written: merge what is to be kept.
    Raises ModelError when the folder cannot be written.
    """
    try:
        with whole_folder(folder, replace=True) as draft:
            write_weights(model, draft, source, dtype=dtype)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            Sentence("the weights cannot be written: {error}", error=error),
            where=str(folder),
            hint="make room there and do it again; nothing was left half-written",
        ) from error


def write_weights(
    model: CausalModel, folder: Path, source: Path, *, dtype: torch.dtype | None = None
) -> None:
    """As `save_weights`, into an empty folder that the caller takes care of."""
    if isinstance(model, ForeignModel):
        _write_foreign(model, folder, dtype)
    else:
        assert isinstance(model, Transformer)
        tensors = family_weights(model, dtype=dtype)
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("dtype", None)  # the name that newer versions of transformers use
        config["torch_dtype"] = str(tensors["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    copy_text_files(source, folder)


def family_weights(model: Transformer, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Every weight of a model of the Llama family under transformers' names, on the CPU.

    A head that is tied to the embedding is not among them.
    """
    found = dict(_named(model))
    return {name: _ready(tensor, dtype) for name, tensor in found.items()}


def copy_text_files(source: Path, folder: Path) -> None:
    """Copy what says how text becomes tokens, the chat template and the end tokens."""
    for name in TEXT_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
    if "tokenizer_class" not in config:  # else transformers takes the one that is usual for the architecture
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def _named(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    yield "model.embed_tokens.weight", model.embedding
    yield "model.norm.weight", model.norm
    if not model.shape.tied_head:
        yield "lm_head.weight", model.head
    for block in model.blocks:
        assert isinstance(block, Block)
        at = f"model.layers.{block.index}."
        yield at + "input_layernorm.weight", block.norm_in
        yield at + "post_attention_layernorm.weight", block.norm_out
        for name, norm in (("q_norm", block.norm_q), ("k_norm", block.norm_k)):
            if norm is not None:
                yield f"{at}self_attn.{name}.weight", norm
    for layer in model.adapted_layers():
        yield from _unfused(layer)


def _unfused(layer: AdaptedLinear) -> Iterator[tuple[str, Tensor]]:
    sizes = [size for _, size in layer.parts]
    for (name, _), weight in zip(layer.parts, torch.split(layer.weight, sizes), strict=True):
        yield f"{name}.weight", weight
    if layer.bias is not None:
        for (name, _), bias in zip(layer.parts, torch.split(layer.bias, sizes), strict=True):
            yield f"{name}.bias", bias


def _ready(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of its own, to be written: parts of a fused one share its memory."""
    return tensor.detach().to(device="cpu", dtype=dtype, copy=True).contiguous()


def _write_foreign(model: ForeignModel, folder: Path, dtype: torch.dtype | None) -> None:
    """Let transformers write its own network, with the adapted layers' weights where its linear layers were."""
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        twin: Any = AutoModelForCausalLM.from_config(model.network.config)
    weights = dict(model.network.state_dict())
    for layer in model.adapted_layers():
        weights |= dict(_unfused(layer))
        name = layer.parts[0][0]
        if isinstance(twin.get_submodule(name), Conv1D):
            weights[f"{name}.weight"] = weights[f"{name}.weight"].T
    ready = {name: _ready(tensor, dtype) for name, tensor in weights.items()}
    twin.load_state_dict(ready, strict=False, assign=True)
    twin.tie_weights()
    if dtype is not None:
        twin.config.dtype = dtype
    twin.save_pretrained(folder)

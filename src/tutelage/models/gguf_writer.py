"""A model of the Llama family as one GGUF file, for llama.cpp and what is built on it.

Left out: SentencePiece vocabularies and tokenizers without merges, which GGUF's byte-pair form cannot hold, and
types smaller than Q8_0, for which llama.cpp's own `llama-quantize` weighs what matters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch

from tutelage.errors import ModelError
from tutelage.models.gguf_layout import CONTROL, INNER, NORMAL, OUTER, SPLITTERS, UNUSED, USER_DEFINED
from tutelage.models.saving import family_weights
from tutelage.models.transformer import Architecture, Transformer, rotary_tables
from tutelage.tokenizer import TokenizerFolder, load_tokenizer

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
# A Mistral model is a Llama model to llama.cpp.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_OUTER = {theirs: ours for ours, theirs in OUTER.items()}
_INNER = {theirs: ours for ours, theirs in INNER.items()}
_INSTEAD = "write the model with --format safetensors instead"
_Array = np.ndarray[Any, Any]


def write_gguf(
    model: Transformer, source: Path, target: Path, *, kind: str, name: str, licence: str = ""
) -> None:
    """Write the model with its tokenizer and chat template. `kind` is one of TYPES, for matrices; vectors are fp32.

    `source` is the folder the model was loaded from. Raises ModelError when GGUF cannot hold its tokenizer.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(target, architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, model.shape)
    _add_text(writer, source, model.shape.vocabulary)
    for tensor, values, stored in _tensors(model, architecture, TYPES[kind][0]):
        writer.add_tensor(tensor, values, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, shape: Architecture) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    if shape.rope_scaling is not None and shape.rope_scaling["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling["factor"])


def _tensors(
    model: Transformer, architecture: str, wanted: gguf.GGMLQuantizationType
) -> Iterator[tuple[str, _Array, gguf.GGMLQuantizationType]]:
    """Name, stored values and type of every tensor."""
    shape = model.shape
    heads = {"attn_q": shape.heads, "attn_k": shape.key_heads}

    def store(entry: tuple[str, torch.Tensor]) -> tuple[str, _Array, gguf.GGMLQuantizationType]:
        name, part = _name(entry[0])
        values = entry[1].float().numpy()
        if architecture == "llama" and part in heads:
            values = _permute(values, heads[part])
        kind = _fitting(values, wanted)
        return name, gguf.quants.quantize(np.ascontiguousarray(values), kind), kind

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy leaves the interpreter lock while it computes
        yield from pool.map(store, family_weights(model).items())
    if shape.rope_scaling is not None and shape.rope_scaling["rope_type"] == "llama3":
        yield "rope_freqs.weight", _rope_factors(shape), gguf.GGMLQuantizationType.F32


def _fitting(values: _Array, wanted: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Vectors stay in fp32; rows that do not divide into blocks stay in fp16."""
    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return gguf.GGMLQuantizationType.F16 if values.shape[-1] % block else wanted


def _name(name: str) -> tuple[str, str]:
    """GGUF's name of a tensor, and of the part of the layer it belongs to."""
    if name in _OUTER:
        return _OUTER[name], ""
    _, _, layer, inner = name.split(".", 3)
    part, kind = inner.rsplit(".", 1)
    return f"blk.{layer}.{_INNER[part]}.{kind}", _INNER[part]


def _permute(weight: _Array, heads: int) -> _Array:
    """Interleave the two halves of each head's rotary dimensions, as GGUF's Llama has them."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _rope_factors(shape: Architecture) -> _Array:
    """By what each plain rotary frequency is divided."""
    first = replace(shape, context_length=2)
    plain, scaled = (
        torch.atan2(sin[1], cos[1])[: shape.head_width // 2]
        for cos, sin in (rotary_tables(replace(first, rope_scaling=None)), rotary_tables(first))
    )
    factors: _Array = (plain / scaled).numpy()
    return factors


def _add_text(writer: gguf.GGUFWriter, source: Path, vocabulary: int) -> None:
    raw = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    folder = load_tokenizer(source)
    tokens, kinds = _tokens(raw, vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_family(raw, source))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = raw["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_chat_template(folder.chat_template)
    _add_special(writer, folder, source)


def _family(raw: dict[str, Any], source: Path) -> str:
    """The name under which llama.cpp knows how this tokenizer cuts text. Raises ModelError when it does not."""
    steps = raw.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    for family, known in SPLITTERS.items():
        if raw["model"].get("type") == "BPE" and [*map(_meaning, steps)] == [*map(_meaning, known)]:
            if raw["model"]["merges"]:
                return family
            break
    raise ModelError("GGUF has no form for the model's tokenizer", where=str(source), hint=_INSTEAD)


def _meaning(step: dict[str, Any]) -> tuple[object, ...]:
    """What one step of cutting text does, however it is spelled."""
    match step.get("type"):
        case "ByteLevel":
            return "ByteLevel", step.get("use_regex", True), step.get("add_prefix_space", False)
        case "Digits":
            return "Digits", step["individual_digits"]
        case "Split":
            return "Split", step["pattern"].get("Regex"), step["behavior"], step.get("invert", False)
        case other:
            return (other,)


def _tokens(raw: dict[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """Texts and kinds by id; ids that the tokenizer does not use are filled up to the size of the embedding."""
    tokens = [f"[PAD{index}]" for index in range(vocabulary)]
    kinds = [UNUSED] * vocabulary
    for text, index in raw["model"]["vocab"].items():
        tokens[index], kinds[index] = text, NORMAL
    for added in raw.get("added_tokens", []):
        index = added["id"]
        tokens[index], kinds[index] = added["content"], CONTROL if added["special"] else USER_DEFINED
    return tokens, kinds


def _add_special(writer: gguf.GGUFWriter, folder: TokenizerFolder, source: Path) -> None:
    """The ids of the special tokens; a second end token is given as the end of a turn."""
    found = {key: folder.tokenizer.id_of(text) for key, text in folder.special_tokens.items()}
    end = found["eos_token"] if found.get("eos_token") in folder.stop_ids else min(folder.stop_ids)
    assert end is not None
    writer.add_eos_token_id(end)
    others = sorted(folder.stop_ids - {end})
    if others:
        writer.add_eot_token_id(others[0])
    writer.add_pad_token_id(folder.pad_id)
    for key, add in (("bos_token", writer.add_bos_token_id), ("unk_token", writer.add_unk_token_id)):
        index = found.get(key)
        if index is not None:
            add(index)
    own = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    begun = own.encode("a", add_special_tokens=True).ids != own.encode("a", add_special_tokens=False).ids
    writer.add_add_bos_token(begun and found.get("bos_token") is not None)

"""A GGUF file becomes a model folder in Hugging Face's layout: read and dequantised once, then cached.

Left out: SentencePiece vocabularies, scaled rotary positions, and architectures other than Llama and Qwen2/3;
the Hugging Face folders of such models load directly.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from tutelage.errors import ModelError, Sentence
from tutelage.models.gguf_layout import (
    CONTROL,
    INNER,
    OUTER,
    SPLITTERS,
    USER_DEFINED,
    byte_level,
)

_INSTEAD = "name the model's Hugging Face folder instead"


def convert(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file into `folder`: weights in bf16, configs, tokenizer and chat template.

    Raises ModelError when the file is no GGUF, or of an architecture or tokenizer that is not known here.
    """
    try:
        reader = gguf.GGUFReader(source)
        meta = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(
            Sentence("is not a readable GGUF file: {error}", error=error),
            where=str(source),
            hint="fetch the file again",
        ) from error
    try:
        _write_text_files(meta, folder)
        _write_model(reader, meta, folder)
    except KeyError as error:
        raise ModelError(
            Sentence("lacks the entry {error}", error=error), where=str(source), hint=_INSTEAD
        ) from error
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ModelError(
            Sentence("holds entries that contradict each other: {error}", error=error),
            where=str(source),
            hint="fetch the file again",
        ) from error
    except ModelError as error:
        raise ModelError(error.message, where=str(source), hint=error.hint) from error


def _write_model(reader: gguf.GGUFReader, meta: dict[str, Any], folder: Path) -> None:
    config = _config(meta)
    tensors = _tensors(reader, config)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    config["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)


def _config(meta: dict[str, Any]) -> dict[str, Any]:
    architecture = meta["general.architecture"]
    if architecture not in ("llama", "qwen2", "qwen3"):
        raise ModelError(
            Sentence(
                "holds a model of the architecture {architecture!r}, which is not read from GGUF",
                architecture=architecture,
            ),
            hint=_INSTEAD,
        )
    if meta.get(f"{architecture}.rope.scaling.type", "none") != "none":
        raise ModelError("scales its rotary positions, which is not read from GGUF", hint=_INSTEAD)

    def value(key: str) -> Any:
        return meta[f"{architecture}.{key}"]

    heads = value("attention.head_count")
    width = value("embedding_length")
    return {
        "architectures": [f"{architecture.capitalize()}ForCausalLM"],
        "model_type": architecture,
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": meta.get(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": meta.get(f"{architecture}.attention.key_length", width // heads),
        "hidden_act": "silu",
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": round(value("attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": meta.get(f"{architecture}.rope.freq_base", 10000.0),
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "bfloat16",
    }


def _tensors(reader: gguf.GGUFReader, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}

    def read(tensor: gguf.ReaderTensor) -> tuple[str, torch.Tensor]:
        name, part = _name(tensor.name)
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        if config["model_type"] == "llama" and part in heads:
            values = _unpermute(values, heads[part])
        return name, torch.from_numpy(values).to(torch.bfloat16).contiguous()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy leaves the interpreter lock while it computes
        return dict(pool.map(read, reader.tensors))


def _name(name: str) -> tuple[str, str]:
    """Hugging Face's name of a tensor, and GGUF's name of the part of the layer it belongs to."""
    if name in OUTER:
        return OUTER[name], ""
    pieces = name.split(".")
    if len(pieces) != 4 or pieces[0] != "blk" or pieces[2] not in INNER:
        raise ModelError(
            Sentence("holds the tensor {name}, which is not known here", name=name), hint=_INSTEAD
        )
    return f"model.layers.{pieces[1]}.{INNER[pieces[2]]}.{pieces[3]}", pieces[2]


def _unpermute(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo GGUF's interleaving of the two halves of each head's rotary dimensions."""
    shape = weight.shape
    return weight.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _write_text_files(meta: dict[str, Any], folder: Path) -> None:
    if "tokenizer.chat_template" not in meta:
        raise ModelError(
            "the model has no chat template", hint="choose a chat model (often named …-Instruct)"
        )
    tokens = meta["tokenizer.ggml.tokens"]
    named = {
        f"{key}_token": tokens[meta[f"tokenizer.ggml.{gguf_key}_token_id"]]
        for key, gguf_key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{gguf_key}_token_id" in meta
    }
    ends = {meta["tokenizer.ggml.eos_token_id"], meta.get("tokenizer.ggml.eot_token_id")} - {None}
    _write_json(folder / "tokenizer.json", _tokenizer(meta))
    _write_json(folder / "tokenizer_config.json", {**named, "chat_template": meta["tokenizer.chat_template"]})
    _write_json(folder / "generation_config.json", {"eos_token_id": sorted(ends)})


def _tokenizer(meta: dict[str, Any]) -> dict[str, Any]:
    family = meta.get("tokenizer.ggml.pre")
    if meta.get("tokenizer.ggml.model") != "gpt2" or family not in SPLITTERS:
        raise ModelError(
            Sentence("has a tokenizer of the family {family!r}, which is not read from GGUF", family=family),
            hint=_INSTEAD,
        )
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": index, "content": tokens[index], "special": kind == CONTROL, **flags}
        for index, kind in enumerate(kinds)
        if kind in (CONTROL, USER_DEFINED)
    ]
    merges = [merge.split(" ", 1) for merge in meta["tokenizer.ggml.merges"]]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if family == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITTERS[family]},
        "decoder": byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
            "ignore_merges": family == "llama-bpe",
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

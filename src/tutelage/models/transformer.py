"""The Llama family (Llama, SmolLM, Mistral, Qwen2, Qwen3) in plain torch, with fused projections.

One module serves training (a flat batch and its `Layout`) and generation (slots of a `KeyValueCache`).
Left out: mixtures of experts, sliding windows shorter than the context (the context is cut to the window
instead), dropout (every recipe here runs without it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.errors import ModelError, Sentence
from tutelage.models import decoding
from tutelage.models.adapters import AdaptedLinear, AdapterSwitch
from tutelage.models.interface import CausalModel, Piece, thaw
from tutelage.models.kernels import attend_rows, gated, rms_norm, rotate
from tutelage.models.key_value_cache import KeyValueCache
from tutelage.models.layout import Layout

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Sizes of a model of the family, from its config.json."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    context_length: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    tied_head: bool


class Block(nn.Module):
    """One layer: attention over grouped keys, then the gated feed-forward, each on a normalised residual."""

    def __init__(
        self, index: int, shape: Architecture, tensors: dict[str, Tensor], switch: AdapterSwitch
    ) -> None:
        super().__init__()
        self.index = index
        self.shape = shape
        at = f"model.layers.{index}."

        def fused(inputs: int, outputs: dict[str, int]) -> AdaptedLinear:
            parts = [(at + name, size) for name, size in outputs.items()]
            weights = [take(tensors, f"{part}.weight", size, inputs) for part, size in parts]
            biases = [tensors.pop(f"{part}.bias", None) for part, _ in parts]
            given = [bias for bias in biases if bias is not None]
            bias = torch.cat(given) if len(given) == len(parts) else None
            return AdaptedLinear(torch.cat(weights), bias, parts, switch)

        width, inner = shape.width, shape.inner
        queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
        norm_in = take(tensors, at + "input_layernorm.weight", width)
        norm_out = take(tensors, at + "post_attention_layernorm.weight", width)
        self.register_buffer("norm_in", norm_in, persistent=False)
        self.register_buffer("norm_out", norm_out, persistent=False)
        self.register_buffer("norm_q", tensors.pop(at + "self_attn.q_norm.weight", None), persistent=False)
        self.register_buffer("norm_k", tensors.pop(at + "self_attn.k_norm.weight", None), persistent=False)
        self.norm_in: Tensor
        self.norm_out: Tensor
        self.norm_q: Tensor | None
        self.norm_k: Tensor | None
        self.qkv = fused(
            width, {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        )
        self.attention_out = fused(queries, {"self_attn.o_proj": width})
        self.gate_up = fused(width, {"mlp.gate_proj": inner, "mlp.up_proj": inner})
        self.down = fused(inner, {"mlp.down_proj": width})

    def normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.shape.norm_epsilon)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, values: (tokens, heads, head_width) each."""
        shape = self.shape
        qkv = self.qkv(self.normalise(x, self.norm_in))
        qkv = qkv.view(x.shape[0], shape.heads + 2 * shape.key_heads, shape.head_width)
        rotated, values = qkv.split([shape.heads + shape.key_heads, shape.key_heads], dim=1)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = rotated.split([shape.heads, shape.key_heads], dim=1)
            rotated = torch.cat([self.normalise(q, self.norm_q), self.normalise(k, self.norm_k)], dim=1)
        rotated = rotate(rotated, cos, sin)
        return rotated[:, : shape.heads], rotated[:, shape.heads :], values

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after this layer. attended: (tokens, heads * head_width)."""
        x = x + self.attention_out(attended)
        out: Tensor = x + self.down(gated(self.gate_up(self.normalise(x, self.norm_out))))
        return out

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        """x: (tokens, width). Attention runs over the rows of `layout`."""
        return self.finish(x, attend_rows(*self.project(x, cos, sin), layout))


class Transformer(CausalModel):
    """A decoder of the Llama family."""

    def __init__(self, shape: Architecture, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.shape = shape
        embedding = take(tensors, "model.embed_tokens.weight", shape.vocabulary, shape.width)
        self.register_buffer("embedding", embedding, persistent=False)
        self.register_buffer("norm", take(tensors, "model.norm.weight", shape.width), persistent=False)
        self.embedding: Tensor
        self.norm: Tensor
        head = (
            self.embedding
            if shape.tied_head
            else take(tensors, "lm_head.weight", shape.vocabulary, shape.width)
        )
        self.register_buffer("head", head, persistent=False)
        self.blocks = nn.ModuleList(Block(i, shape, tensors, self.switch) for i in range(shape.layers))
        cos, sin = rotary_tables(shape)
        self.register_buffer("cos", cos.to(self.embedding.dtype), persistent=False)
        self.register_buffer("sin", sin.to(self.embedding.dtype), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As every module does when it moves to another device or dtype; a tied head stays the embedding."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.shape.tied_head:
            self.head = self.embedding
        return self

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    @property
    def width(self) -> int:
        return self.shape.width

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.cos.dtype

    def unfreeze(self) -> list[nn.Parameter]:
        return thaw(self.modules(), tables=("cos", "sin"))

    def hidden(self, token_ids: Tensor, layout: Layout) -> Tensor:
        x, cos, sin = self._start(token_ids, layout.positions)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, layout, use_reentrant=False)
            else:
                x = block(x, cos, sin, layout)
        return self._end(x)

    def new_cache(self, slots: int, length: int) -> KeyValueCache:
        return decoding.new_cache(self, slots, length)

    def read(self, pieces: Sequence[Piece], cache: KeyValueCache) -> Tensor:
        return decoding.read(self, pieces, cache)

    def step(self, token_ids: Tensor, cache: KeyValueCache, places: Tensor) -> Tensor:
        if cache.graphs is None:
            return decoding.step(self, token_ids, cache, places)
        # The last slot is never stepped: it is there for prompts that are read in several portions.
        slots = cache.slots - 1
        return cache.graphs.run(lambda t, p: decoding.step(self, t, cache, p), token_ids, places, slots=slots)

    def _start(self, token_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.embedding(token_ids, self.embedding).to(self.cos.dtype)
        return x, self.cos[positions][:, None], self.sin[positions][:, None]

    def _end(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.norm, self.shape.norm_epsilon)


def take(tensors: dict[str, Tensor], name: str, *size: int) -> Tensor:
    """Remove a tensor from `tensors`. Raises ModelError when it is missing or of another size."""
    if name not in tensors:
        raise ModelError(
            Sentence("the weights lack the tensor {name}", name=name), hint="fetch the model again"
        )
    found = tensors.pop(name)
    if found.shape != size:
        raise ModelError(
            Sentence(
                "the tensor {name} has the size {found}, and the model's config says {size}",
                name=name,
                found=tuple(found.shape),
                size=size,
            ),
            hint="fetch the model again: its config and its weights do not belong together",
        )
    return found


def rotary_tables(shape: Architecture) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions: (context_length, head_width / 2) each, fp32.

    Source: Su et al. 2021 (arXiv 2104.09864); Llama 3's scaling as in its released configuration.
    """
    steps = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    frequencies = shape.rope_theta**-steps
    scaling = shape.rope_scaling
    if scaling is not None and scaling["rope_type"] == "linear":
        frequencies = frequencies / scaling["factor"]
    elif scaling is not None:
        wavelengths = 2 * math.pi / frequencies
        original = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        smooth = ((original / wavelengths - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (smooth + (1 - smooth) / scaling["factor"])
    angles = torch.outer(torch.arange(shape.context_length, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def read_architecture(folder: Path) -> Architecture | None:
    """Sizes from config.json, or None when the model is not of this family. Raises ModelError when it is broken."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in FAMILIES or config.get("hidden_act", "silu") != "silu":
            return None
        # transformers 5 writes the rotary settings into one section, earlier versions side by side.
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            return None
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        positions = config["max_position_embeddings"]
        return Architecture(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            key_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_width=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            context_length=min(positions, window) if window else positions,
            norm_epsilon=config["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
            rope_scaling=None if kind == "default" else {**rope, "rope_type": kind},
            tied_head=config.get("tie_word_embeddings", False),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            Sentence("the model's config cannot be read: {error}", error=repr(error)),
            where=str(folder / "config.json"),
            hint="fetch the model again",
        ) from error


def read_tensors(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """All tensors of a folder's model*.safetensors. Raises ModelError when there are none or one is broken."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(
            "the model folder has no model.safetensors",
            where=str(folder),
            hint="save the model with save_pretrained(safe_serialization=True); pickled weights are never loaded",
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                Sentence("the weights cannot be read: {error}", error=error),
                where=str(path),
                hint="fetch them again",
            ) from error
    return tensors

"""The Llama family reading and writing one token after the other: slots of a key-value cache, no gradients.

What a token costs beside its weights is kept small: rotary angles and masks are looked up once a step, nothing is
made anew in a layer, and an adapter is cast, scaled and stacked once, when the cache is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.adapters import AdaptedLinear, LowRank
from tutelage.models.interface import Piece, Span
from tutelage.models.layout import sequences

if TYPE_CHECKING:
    from tutelage.models.transformer import Architecture, Block, Transformer


class KeyValueCache:
    """Keys and values of running sequences: (layers, slots, 2 * key_heads, length, head_width), the keys first.

    `layers` are the weights that fill it, with the adapter that was active when the cache was made.
    """

    partial = True

    def __init__(self, content: Tensor, layers: Sequence[Layer]) -> None:
        self.content = content
        self.layers = layers

    def copy(self, source: int, target: int, length: int) -> None:
        self.content[:, target, :, :length] = self.content[:, source, :, :length]

    def grown(self, length: int) -> KeyValueCache:
        return KeyValueCache(F.pad(self.content, (0, 0, 0, length - self.content.shape[3])), self.layers)

    def take(self, slot: int, length: int) -> Span:
        return Span(self.content[:, slot, :, :length].clone())

    def put(self, slot: int, span: Span, length: int) -> None:
        self.content[:, slot, :, :length] = span.content[:, :, :length]

    def flat(self, slots: Tensor, places: Tensor) -> Tensor:
        """Where tokens keep their keys and values in a layer that is flattened to (all, head_width)."""
        _, _, heads, length, _ = self.content.shape
        head = torch.arange(heads, device=slots.device)
        return (((slots * heads)[:, None] + head) * length + places[:, None]).flatten()


class Projection:
    """A frozen linear layer with the active adapter ready to be applied: y = x W' + b + (x A') B'."""

    __slots__ = ("bias", "down", "up", "weight")

    def __init__(self, layer: AdaptedLinear, dtype: torch.dtype) -> None:
        self.weight = layer.weight.detach().to(dtype)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.down: Tensor | None = None
        self.up: Tensor | None = None
        adapter = layer.active_adapter()
        if adapter is not None:
            self.down, self.up = _stacked(adapter, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.down is not None and self.up is not None:
            y.addmm_(F.linear(x, self.down), self.up)
        return y


def _stacked(adapter: LowRank, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A scaled, (parts * rank, in), and the transposed B of all parts as one matrix, (parts * rank, outputs)."""
    down = (adapter.a.detach() * adapter.scale).to(dtype)
    return down, torch.block_diag(*(b.detach().T for b in adapter.b)).to(dtype).contiguous()


class Layer:
    """One layer, ready to run without gradients. See `Block`, which computes the same with them."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self.shape = block.shape
        self.norm_in = block.norm_in.detach().to(dtype)
        self.norm_out = block.norm_out.detach().to(dtype)
        self.norm_q = None if block.norm_q is None else block.norm_q.detach().to(dtype)
        self.norm_k = None if block.norm_k is None else block.norm_k.detach().to(dtype)
        self.qkv = Projection(block.qkv, dtype)
        self.attention_out = Projection(block.attention_out, dtype)
        self.gate_up = Projection(block.gate_up, dtype)
        self.down = Projection(block.down, dtype)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated queries, rotated keys, values: (tokens, heads + 2 * key_heads, head_width)."""
        shape = self.shape
        qkv = self.qkv(self._normalise(x, self.norm_in))
        qkv = qkv.view(x.shape[0], shape.heads + 2 * shape.key_heads, shape.head_width)
        if self.norm_q is not None and self.norm_k is not None:
            q, k, v = qkv.split([shape.heads, shape.key_heads, shape.key_heads], dim=1)
            qkv = torch.cat([self._normalise(q, self.norm_q), self._normalise(k, self.norm_k), v], dim=1)
        rotated = qkv[:, : shape.heads + shape.key_heads]
        left, right = rotated.chunk(2, dim=-1)
        turned = torch.cat([right, left], dim=-1)
        rotated.mul_(cos).addcmul_(turned, sin)
        return qkv

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after this layer. attended: (tokens, heads * head_width)."""
        x = self.attention_out(attended).add_(x)
        gate, up = self.gate_up(self._normalise(x, self.norm_out)).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up)).add_(x)

    def _normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.norm_epsilon)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Where the tokens of some pieces stand, as attention needs it.

    gather: (rows, longest piece) flat index of the token at each place, padding repeats 0; scatter: (tokens,)
    index into the flattened gather; slots: (rows,); mask: (rows, 1, longest piece, longest context), additive, or
    None when every piece begins its sequence.
    """

    gather: Tensor
    scatter: Tensor
    slots: Tensor
    mask: Tensor | None


def new_cache(model: Transformer, slots: int, length: int) -> KeyValueCache:
    shape = model.shape
    size = (shape.layers, slots, 2 * shape.key_heads, length, shape.head_width)
    dtype = model.cos.dtype
    layers = [Layer(cast("Block", block), dtype) for block in model.blocks]
    return KeyValueCache(torch.zeros(size, dtype=dtype, device=model.device), layers)


def step(model: Transformer, token_ids: Tensor, cache: KeyValueCache, places: Tensor, longest: int) -> Tensor:
    """One more token in each of the first n slots; see `CausalModel.step`."""
    shape, n = model.shape, token_ids.shape[0]
    x = F.embedding(token_ids, model.embedding).to(cache.content.dtype)
    cos, sin = _angles(model, places)
    mask = _mask(places[:, None], longest, x.dtype)[:, :, None]
    there = cache.flat(torch.arange(n, device=places.device), places)
    for layer, kept in zip(cache.layers, cache.content, strict=True):
        qkv = layer.project(x, cos, sin)
        kept.view(-1, shape.head_width).index_copy_(
            0, there, qkv[:, shape.heads :].reshape(-1, shape.head_width)
        )
        # The queries that share a key head stand as rows of one small matrix: no key is ever repeated.
        queries = qkv[:, : shape.heads].reshape(n, shape.key_heads, -1, shape.head_width)
        keys, values = kept[:n, :, :longest].chunk(2, dim=1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = layer.finish(x, attended.reshape(n, -1))
    return _end(model, x)


def read(model: Transformer, pieces: Sequence[Piece], cache: KeyValueCache) -> Tensor:
    """Read pieces of sequences into their slots; see `CausalModel.read`."""
    shape, device = model.shape, model.device
    token_ids = torch.tensor([token for piece in pieces for token in piece.token_ids], device=device)
    places = torch.cat([torch.arange(p.start, p.start + len(p.token_ids)) for p in pieces]).to(device)
    x = F.embedding(token_ids, model.embedding).to(cache.content.dtype)
    cos, sin = _angles(model, places)
    reading = _reading(pieces, x.dtype, device)
    counts = torch.tensor([len(piece.token_ids) for piece in pieces], device=device)
    there = cache.flat(reading.slots.repeat_interleave(counts, output_size=len(token_ids)), places)
    for layer, kept in zip(cache.layers, cache.content, strict=True):
        qkv = layer.project(x, cos, sin)
        kept.view(-1, shape.head_width).index_copy_(
            0, there, qkv[:, shape.heads :].reshape(-1, shape.head_width)
        )
        x = layer.finish(x, _attend(qkv, kept, reading, shape))
    return _end(model, x[counts.cumsum(0) - 1])


def _reading(pieces: Sequence[Piece], dtype: torch.dtype, device: torch.device) -> _Reading:
    layout = sequences([len(piece.token_ids) for piece in pieces]).to(device)
    slots = torch.tensor([piece.slot for piece in pieces], device=device)
    if not any(piece.start for piece in pieces):
        return _Reading(layout.gather, layout.scatter, slots, None)
    starts = torch.tensor([piece.start for piece in pieces], device=device)
    context = max(piece.start + len(piece.token_ids) for piece in pieces)
    places = starts[:, None] + torch.arange(layout.gather.shape[1], device=device)
    return _Reading(layout.gather, layout.scatter, slots, _mask(places, context, dtype)[:, None])


def _attend(qkv: Tensor, kept: Tensor, reading: _Reading, shape: Architecture) -> Tensor:
    """Attention of pieces over their sequences: (tokens, heads * head_width)."""
    rows = qkv.index_select(0, reading.gather.flatten()).view(*reading.gather.shape, *qkv.shape[1:])
    if reading.mask is None:
        q, k, v = rows.transpose(1, 2).split([shape.heads, shape.key_heads, shape.key_heads], dim=1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    else:
        keys, values = kept[reading.slots, :, : reading.mask.shape[-1]].chunk(2, dim=1)
        q = rows[:, :, : shape.heads].transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=reading.mask, enable_gqa=True)
    flat = attended.transpose(1, 2).reshape(reading.gather.numel(), -1)
    return flat.index_select(0, reading.scatter)


def _angles(model: Transformer, places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines at some places, (tokens, 1, head_width) each: x * cos + swapped halves of x * sin."""
    half = model.shape.head_width // 2
    cos, sin = model.cos[places, None, :half], model.sin[places, None, :half]
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def _mask(places: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """0 where the token at a place may look, -inf ahead of it. (..., q) -> (..., q, longest)."""
    ahead = torch.arange(longest, device=places.device) > places[..., None]
    return torch.zeros(ahead.shape, dtype=dtype, device=places.device).masked_fill_(ahead, -math.inf)


def _end(model: Transformer, x: Tensor) -> Tensor:
    return F.rms_norm(x, (model.shape.width,), model.norm.to(x.dtype), model.shape.norm_epsilon)

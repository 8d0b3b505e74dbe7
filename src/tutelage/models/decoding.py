"""The Llama family reading and writing one token after the other: slots of a key-value cache, no gradients.

What a token costs beside its weights is kept small: rotary angles and masks are looked up once a step, and weights are
packed, adapters cast, scaled and stacked once, when the cache is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.adapters import AdaptedLinear
from tutelage.models.four_bit import MOST_ROWS
from tutelage.models.interface import Piece
from tutelage.models.kernels import attend_rows, rms_norm_twice
from tutelage.models.key_value_cache import KeyValueCache
from tutelage.models.layout import sequences
from tutelage.models.packing import can_pack, pack, product, unpack

if TYPE_CHECKING:
    from tutelage.models.transformer import Architecture, Block, Transformer

_FEW_SCORES = 4096  # up to here the one call of torch's fused attention costs less than three on a CPU


class Projection:
    """A linear layer with the active adapter ready to be applied: y = x W' + b + (x A') B', all packed."""

    __slots__ = ("_borrowed", "bias", "down", "few", "up", "weight")

    def __init__(self, layer: AdaptedLinear, dtype: torch.dtype) -> None:
        self._borrowed: AdaptedLinear | None = None
        weight = layer.weight.detach().to(dtype)
        if can_pack(weight):
            weight = pack(weight)
            if layer.weight.dtype == dtype:  # the layer's own: two copies of a model are one too many
                layer.weight, self._borrowed = weight, layer
        self.weight = weight
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.few = layer.few
        self.down: Tensor | None = None
        self.up: Tensor | None = None
        adapter = layer.active_adapter()
        if adapter is not None:
            down, up = adapter.matrices(dtype)
            self.down, self.up = (pack(m) if can_pack(m) else m for m in (down * adapter.scale, up))

    def __call__(self, x: Tensor) -> Tensor:
        few = self.few if len(x) <= MOST_ROWS else None
        y = product(x, self.weight, self.bias) if few is None else few(x)
        if self.down is not None and self.up is not None:
            y.add_(product(product(x, self.down, None), self.up, None))
        return y

    def release(self) -> None:
        """Give the layer its weights back as they were."""
        if self._borrowed is not None:
            self._borrowed.weight, self._borrowed = unpack(self.weight), None


class Weights:
    """Everything of a model that reading and stepping need, in the dtype of its computation.

    The layers of the model keep their weights packed until `release`: they compute as before, but cannot be trained.
    """

    def __init__(self, model: Transformer) -> None:
        dtype = model.cos.dtype
        self.embedding = model.embedding.detach()
        # A pair of halves turns as x * cos + swapped halves of x * sin.
        self.cos, self.sin = model.cos.repeat(1, 2), torch.cat([-model.sin, model.sin], dim=-1)
        self.norm = _twice(model.norm, dtype)
        head = model.head.detach().to(dtype)
        self.head = pack(head) if can_pack(head) else head
        self.layers = [Layer(cast("Block", block), dtype) for block in model.blocks]

    def logits(self, x: Tensor, epsilon: float) -> Tensor:
        """Of states before the last norm: (rows, width) -> (rows, vocabulary)."""
        return product(rms_norm_twice(x, self.norm, epsilon), self.head, None)

    def release(self) -> None:
        for layer in self.layers:
            for projection in (layer.qkv, layer.attention_out, layer.gate_up, layer.down):
                projection.release()


class Layer:
    """One layer, ready to run without gradients. See `Block`, which computes the same with them."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self.shape = block.shape
        self.norm_in = _twice(block.norm_in, dtype)
        self.norm_out = _twice(block.norm_out, dtype)
        self.norm_q = None if block.norm_q is None else _twice(block.norm_q, dtype)
        self.norm_k = None if block.norm_k is None else _twice(block.norm_k, dtype)
        self.qkv = Projection(block.qkv, dtype)
        self.attention_out = Projection(block.attention_out, dtype)
        self.gate_up = Projection(block.gate_up, dtype)
        self.down = Projection(block.down, dtype)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated queries, rotated keys, and values: (tokens, heads + 2 * key_heads, head_width)."""
        shape = self.shape
        parts = [shape.heads, shape.key_heads, shape.key_heads]
        qkv = self.qkv(self._normalise(x, self.norm_in)).view(x.shape[0], sum(parts), shape.head_width)
        if self.norm_q is not None and self.norm_k is not None:
            q, k, v = torch.split(qkv, parts, dim=1)
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
        return rms_norm_twice(x, weight, self.shape.norm_epsilon)


def _twice(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights of a norm as `rms_norm_twice` takes them."""
    return weight.detach().to(dtype).repeat(2)


def new_cache(model: Transformer, slots: int, length: int) -> KeyValueCache:
    shape, weights = model.shape, Weights(model)
    size = (shape.layers, 2, slots, shape.key_heads, length, shape.head_width)
    return KeyValueCache(torch.zeros(size, dtype=model.cos.dtype, device=model.device), weights)


def step(model: Transformer, token_ids: Tensor, cache: KeyValueCache, places: Tensor) -> Tensor:
    """One more token in each of the first n slots; see `CausalModel.step`."""
    shape, n = model.shape, token_ids.shape[0]
    x, cos, sin = _start(cache.weights, token_ids, places)
    written = cache.lines_of(slice(0, n), places)
    # The queries that share a key head stand as rows of one small matrix: no key is ever repeated.
    groups = shape.heads // shape.key_heads
    mask = _mask(places, cache.length, x.dtype)[:, None, None].expand(-1, shape.key_heads, groups, -1)
    mask = mask.reshape(n * shape.key_heads, groups, -1)
    seen = cache.table[:, :, :n].flatten(2, 3)
    for layer, lines, (keys, values) in zip(cache.weights.layers, cache.lines(), seen, strict=True):
        qkv = layer.project(x, cos, sin)
        lines[written] = qkv[:, shape.heads :]
        q = qkv[:, : shape.heads].reshape(n * shape.key_heads, groups, -1)
        x = layer.finish(x, _attended(q, keys, values, mask).view(n, -1))
    return cache.weights.logits(x, shape.norm_epsilon)


def read(model: Transformer, pieces: Sequence[Piece], cache: KeyValueCache) -> Tensor:
    """Read pieces of sequences into their slots; see `CausalModel.read`."""
    shape, device = model.shape, model.device
    counts = [len(piece.token_ids) for piece in pieces]
    token_ids = torch.tensor([token for piece in pieces for token in piece.token_ids], device=device)
    places = torch.cat([torch.arange(p.start, p.start + len(p.token_ids)) for p in pieces]).to(device)
    slots = torch.tensor([piece.slot for piece in pieces], device=device)
    slots = slots.repeat_interleave(torch.tensor(counts, device=device), output_size=len(token_ids))
    x, cos, sin = _start(cache.weights, token_ids, places)
    written = cache.lines_of(slots, places)
    begin = not any(piece.start for piece in pieces)
    layout = sequences(counts).to(device) if begin else None
    masks = [] if begin else [_piece_mask(piece, shape, x) for piece in pieces]
    for layer, lines, seen in zip(cache.weights.layers, cache.lines(), cache.table, strict=True):
        qkv = layer.project(x, cos, sin)
        lines[written] = qkv[:, shape.heads :]
        q, k, v = torch.split(qkv, [shape.heads, shape.key_heads, shape.key_heads], dim=1)
        if layout is not None:
            attended = attend_rows(q, k, v, layout)
        else:
            attended = _attend_pieces(q, seen, pieces, masks)
        x = layer.finish(x, attended)
    ends = torch.tensor(counts, device=device).cumsum(0) - 1
    return cache.weights.logits(x[ends], shape.norm_epsilon)


def _attend_pieces(q: Tensor, seen: Tensor, pieces: Sequence[Piece], masks: Sequence[Tensor]) -> Tensor:
    """Attention of pieces over all that their slots hold: (tokens, heads * head_width).

    seen: a layer's keys and values, (2, slots, key_heads, length, head_width).
    """
    found = []
    for part, piece, mask in zip(
        torch.split(q, [len(p.token_ids) for p in pieces]), pieces, masks, strict=True
    ):
        tokens, heads, width = part.shape
        keys, values = seen[:, piece.slot, :, : mask.shape[-1]]
        grouped = part.transpose(0, 1).reshape(len(keys), -1, width)
        attended = _attended(grouped, keys, values, mask).view(heads, tokens, width)
        found.append(attended.transpose(0, 1).reshape(tokens, -1))
    return torch.cat(found)


def _piece_mask(piece: Piece, shape: Architecture, x: Tensor) -> Tensor:
    """What the tokens of a piece may look at: (key_heads, groups * tokens, start + tokens)."""
    end = piece.start + len(piece.token_ids)
    mask = _mask(torch.arange(piece.start, end, device=x.device), end, x.dtype)
    return mask.repeat(shape.heads // shape.key_heads, 1).expand(shape.key_heads, -1, -1)


def _attended(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """q: (heads, rows, width); keys, values: (heads, n, width); mask: (heads, rows, n)."""
    if mask.numel() <= _FEW_SCORES and not q.is_cuda:
        return F.scaled_dot_product_attention(q[None], keys[None], values[None], mask[None])[0]
    scores = torch.baddbmm(mask, q, keys.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
    return torch.bmm(torch.softmax(scores, dim=-1), values)


def _start(weights: Weights, token_ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First states of tokens, (tokens, width), and the angles of their places, (tokens, 1, head_width) each."""
    x = F.embedding(token_ids, weights.embedding).to(weights.cos.dtype)
    return x, weights.cos[places, None], weights.sin[places, None]


def _mask(places: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """0 where the token at a place may look, -inf ahead of it. (n,) -> (n, longest)."""
    ahead = torch.arange(longest, device=places.device) > places[:, None]
    return torch.zeros(ahead.shape, dtype=dtype, device=places.device).masked_fill_(ahead, -math.inf)

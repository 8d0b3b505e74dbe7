"""The Llama family reading and writing one token after the other: slots of a key-value cache, no gradients.

What a token costs beside its weights is kept small: rotary angles and masks are looked up once a step, and weights are
packed, adapters cast, scaled and stacked once, when the cache is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.adapters import AdaptedLinear
from tutelage.models.graphs import StepGraphs
from tutelage.models.interface import Piece, Span
from tutelage.models.kernels import attend_rows
from tutelage.models.layout import sequences
from tutelage.models.packing import can_pack, pack, product, unpack

if TYPE_CHECKING:
    from tutelage.models.transformer import Architecture, Block, Transformer


class KeyValueCache:
    """Keys and values of running sequences.

    keys: (layers, slots, key_heads, head_width, length), each head's keys as the columns of a matrix: products with a
    few queries read them fastest so; values: (layers, slots, key_heads, length, head_width). A step reads the whole
    length, since a product of a part would copy the part first.
    """

    partial = True

    def __init__(self, keys: Tensor, values: Tensor, weights: Weights) -> None:
        self.keys = keys
        self.values = values
        self.weights = weights
        # None: the kernels of a step are launched one by one.
        self.graphs = StepGraphs() if keys.is_cuda else None

    def copy(self, source: int, target: int, length: int) -> None:
        self.keys[:, target, ..., :length] = self.keys[:, source, ..., :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def resized(self, length: int) -> KeyValueCache:
        more = length - self.keys.shape[-1]
        return KeyValueCache(F.pad(self.keys, (0, more)), F.pad(self.values, (0, 0, 0, more)), self.weights)

    def take(self, slot: int, length: int) -> Span:
        return Span(self.keys[:, slot, ..., :length].clone(), self.values[:, slot, :, :length].clone())

    def put(self, slot: int, span: Span, length: int) -> None:
        self.keys[:, slot, ..., :length] = span.keys[..., :length]
        self.values[:, slot, :, :length] = span.values[:, :, :length]

    def release(self) -> None:
        self.weights.release()


class Projection:
    """A linear layer with the active adapter ready to be applied: y = x W' + b + (x A') B', all packed."""

    __slots__ = ("_borrowed", "bias", "down", "up", "weight")

    def __init__(self, layer: AdaptedLinear, dtype: torch.dtype) -> None:
        self._borrowed: AdaptedLinear | None = None
        weight = layer.weight.detach().to(dtype)
        if can_pack(weight):
            weight = pack(weight)
            if layer.weight.dtype == dtype:  # the layer's own: two copies of a model are one too many
                layer.weight, self._borrowed = weight, layer
        self.weight = weight
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.down: Tensor | None = None
        self.up: Tensor | None = None
        adapter = layer.active_adapter()
        if adapter is not None:
            down, up = adapter.matrices(dtype)
            self.down, self.up = (pack(m) if can_pack(m) else m for m in (down * adapter.scale, up))

    def __call__(self, x: Tensor) -> Tensor:
        y = product(x, self.weight, self.bias)
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
        self.norm = model.norm.detach().to(dtype)
        head = model.head.detach().to(dtype)
        self.head = pack(head) if can_pack(head) else head
        self.layers = [Layer(cast("Block", block), dtype) for block in model.blocks]

    def logits(self, x: Tensor, epsilon: float) -> Tensor:
        """Of states before the last norm: (rows, width) -> (rows, vocabulary)."""
        return product(F.rms_norm(x, (x.shape[-1],), self.norm, epsilon), self.head, None)

    def release(self) -> None:
        for layer in self.layers:
            for projection in (layer.qkv, layer.attention_out, layer.gate_up, layer.down):
                projection.release()


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

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, values: (tokens, heads, head_width) each."""
        shape = self.shape
        parts = [shape.heads, shape.key_heads, shape.key_heads]
        qkv = self.qkv(self._normalise(x, self.norm_in)).view(x.shape[0], sum(parts), shape.head_width)
        q, k, v = torch.split(qkv, parts, dim=1)
        rotated = qkv[:, : shape.heads + shape.key_heads]
        if self.norm_q is not None and self.norm_k is not None:
            rotated = torch.cat([self._normalise(q, self.norm_q), self._normalise(k, self.norm_k)], dim=1)
            q, k = torch.split(rotated, parts[:2], dim=1)
        left, right = rotated.chunk(2, dim=-1)
        turned = torch.cat([right, left], dim=-1)
        rotated.mul_(cos).addcmul_(turned, sin)
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after this layer. attended: (tokens, heads * head_width)."""
        x = self.attention_out(attended).add_(x)
        gate, up = self.gate_up(self._normalise(x, self.norm_out)).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up)).add_(x)

    def _normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.norm_epsilon)


def new_cache(model: Transformer, slots: int, length: int) -> KeyValueCache:
    shape, weights = model.shape, Weights(model)
    size = (shape.layers, slots, shape.key_heads)
    settings: dict[str, Any] = {"dtype": model.cos.dtype, "device": model.device}
    keys = torch.zeros(*size, shape.head_width, length, **settings)
    return KeyValueCache(keys, torch.zeros(*size, length, shape.head_width, **settings), weights)


def step(model: Transformer, token_ids: Tensor, cache: KeyValueCache, places: Tensor) -> Tensor:
    """One more token in each of the first n slots; see `CausalModel.step`."""
    shape, n = model.shape, token_ids.shape[0]
    x = F.embedding(token_ids, cache.weights.embedding).to(cache.keys.dtype)
    cos, sin = _angles(model, places)
    slots = torch.arange(n, device=places.device)
    # The queries that share a key head stand as rows of one small matrix: no key is ever repeated.
    groups = shape.heads // shape.key_heads
    mask = _mask(places, cache.keys.shape[-1], x.dtype)[:, None, None].expand(-1, shape.key_heads, groups, -1)
    mask = mask.reshape(n * shape.key_heads, groups, -1)
    for layer, keys, values in zip(cache.weights.layers, cache.keys, cache.values, strict=True):
        q, k, v = layer.project(x, cos, sin)
        keys[slots, :, :, places] = k
        values[slots, :, places] = v
        grouped = q.reshape(n * shape.key_heads, groups, -1)
        x = layer.finish(
            x, _attended(grouped, keys[:n].flatten(0, 1), values[:n].flatten(0, 1), mask).view(n, -1)
        )
    return cache.weights.logits(x, shape.norm_epsilon)


def read(model: Transformer, pieces: Sequence[Piece], cache: KeyValueCache) -> Tensor:
    """Read pieces of sequences into their slots; see `CausalModel.read`."""
    counts = [len(piece.token_ids) for piece in pieces]
    device = model.device
    token_ids = torch.tensor([token for piece in pieces for token in piece.token_ids], device=device)
    places = torch.cat([torch.arange(p.start, p.start + len(p.token_ids)) for p in pieces]).to(device)
    slots = torch.tensor([piece.slot for piece in pieces], device=device)
    slots = slots.repeat_interleave(torch.tensor(counts, device=device), output_size=len(token_ids))
    x = F.embedding(token_ids, cache.weights.embedding).to(cache.keys.dtype)
    cos, sin = _angles(model, places)
    begin = not any(piece.start for piece in pieces)
    layout = sequences(counts).to(device) if begin else None
    masks = [] if begin else [_piece_mask(piece, model.shape, x) for piece in pieces]
    for layer, keys, values in zip(cache.weights.layers, cache.keys, cache.values, strict=True):
        q, k, v = layer.project(x, cos, sin)
        keys[slots, :, :, places] = k
        values[slots, :, places] = v
        if layout is not None:
            attended = attend_rows(q, k, v, layout)
        else:
            attended = _attend_pieces(q, keys, values, pieces, masks)
        x = layer.finish(x, attended)
    ends = torch.tensor(counts, device=device).cumsum(0) - 1
    return cache.weights.logits(x[ends], model.shape.norm_epsilon)


def _attend_pieces(
    q: Tensor, keys: Tensor, values: Tensor, pieces: Sequence[Piece], masks: Sequence[Tensor]
) -> Tensor:
    """Attention of pieces over all that their slots hold: (tokens, heads * head_width)."""
    found = []
    for part, piece, mask in zip(
        torch.split(q, [len(p.token_ids) for p in pieces]), pieces, masks, strict=True
    ):
        tokens, heads, width = part.shape
        seen = keys[piece.slot, ..., : mask.shape[-1]], values[piece.slot, :, : mask.shape[-1]]
        grouped = part.transpose(0, 1).reshape(len(seen[0]), -1, width)
        attended = _attended(grouped, *seen, mask).view(heads, tokens, width)
        found.append(attended.transpose(0, 1).reshape(tokens, -1))
    return torch.cat(found)


def _piece_mask(piece: Piece, shape: Architecture, x: Tensor) -> Tensor:
    """What the tokens of a piece may look at: (key_heads, groups * tokens, start + tokens)."""
    end = piece.start + len(piece.token_ids)
    mask = _mask(torch.arange(piece.start, end, device=x.device), end, x.dtype)
    return mask.repeat(shape.heads // shape.key_heads, 1).expand(shape.key_heads, -1, -1)


def _attended(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """q: (heads, rows, width); keys: (heads, width, n); values: (heads, n, width); mask: (heads, rows, n)."""
    scores = torch.baddbmm(mask, q, keys, alpha=1 / math.sqrt(q.shape[-1]))
    return torch.bmm(torch.softmax(scores, dim=-1), values)


def _angles(model: Transformer, places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines at some places, (tokens, 1, head_width) each: x * cos + swapped halves of x * sin."""
    cos, sin = model.cos[places, None], model.sin[places, None]
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def _mask(places: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """0 where the token at a place may look, -inf ahead of it. (n,) -> (n, longest)."""
    ahead = torch.arange(longest, device=places.device) > places[:, None]
    return torch.zeros(ahead.shape, dtype=dtype, device=places.device).masked_fill_(ahead, -math.inf)

"""The pieces of a layer that are not one matrix product, each with its backward pass written out.

Autograd would take each piece apart into many passes over memory, and keep what lies between them. Here every piece
keeps what its backward needs and nothing else. All of them are plain torch, and run on any device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.models.layout import Layout

QUERY_BLOCK = 256
KEPT_SHARES = 1 << 24  # elements of attention shares that one layer keeps for its backward pass


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension. Source: Zhang and Sennrich 2019 (1910.07467)."""
    if x.is_cuda:  # there torch has one kernel for it
        return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), epsilon)
    out: Tensor = _RMSNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return out


def rms_norm_twice(x: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    """As `rms_norm`, without gradients. weights: the norm's weights twice, one after the other.

    On a CPU, torch makes a dozen passes of this norm and one of layer normalisation, which is the same for numbers
    whose mean is 0, as that of x and -x together is.
    """
    width = x.shape[-1]
    if x.is_cuda:
        return F.rms_norm(x, (width,), weights[:width], epsilon)
    return torch.layer_norm(torch.cat([x, -x], dim=-1), (2 * width,), weights, None, epsilon)[..., :width]


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of (tokens, 2 * inner) -> (tokens, inner). Source: Shazeer 2020 (2002.05202)."""
    out: Tensor = _Gated.apply(gate_up)  # type: ignore[no-untyped-call]
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions. x: (tokens, heads, head_width); cos, sin: (tokens, 1, head_width / 2).

    Source: Su et al. 2021 (2104.09864), the two halves of a head as the pairs.
    """
    out: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention with grouped keys. q: (rows, T, heads, width); k, v: (rows, T, key_heads, width) -> like q.

    On a CPU the products run in the model's dtype as whole matrices, three times as fast as torch's fused kernel at
    training lengths; elsewhere the fused kernel runs.
    """
    if q.device.type != "cpu":
        asked, keys, values = (each.transpose(1, 2) for each in (q, k, v))
        fused = F.scaled_dot_product_attention(asked, keys, values, is_causal=True, enable_gqa=True)
        return fused.transpose(1, 2)
    out: Tensor = _Attend.apply(q, k, v)  # type: ignore[no-untyped-call]
    return out


def attend_rows(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """`attend` over the rows of a layout. q, k, v: (tokens, heads, width) -> (tokens, heads * width)."""
    out = attend(*(layout.rows(each) for each in (q, k, v))).reshape(layout.gather.numel(), -1)
    return out if layout.is_plain else out.index_select(0, layout.scatter)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = lengths.mul_(lengths).div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return x.to(torch.float32, copy=True).mul_(scale).mul_(weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (g,) = outputs
        x, weight, scale = ctx.saved_tensors
        size = x.shape[-1]
        # Layer normalisation with a mean of 0 is this norm, but for one term of its gradient: torch's kernel takes
        # the mean of g * weight out, and it is put back.
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            g.contiguous(),
            x,
            [size],
            torch.zeros_like(scale),
            scale,
            weight.float(),
            None,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )
        if dx is not None:
            mean = (g @ weight.to(g.dtype)).float().unsqueeze(-1) / size
            dx.add_(mean.mul_(scale).to(dx.dtype))
        return dx, None if dw is None else dw.to(weight.dtype), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        (g,) = outputs
        (gate_up,) = ctx.saved_tensors
        gradient = torch.empty_like(gate_up)
        (gate, up), (to_gate, to_up) = gate_up.chunk(2, dim=-1), gradient.chunk(2, dim=-1)
        active = F.silu(gate)
        torch.mul(g, active, out=to_up)
        torch.ops.aten.silu_backward.grad_input(torch.mul(g, up, out=active), gate, grad_input=to_gate)
        return gradient


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(outputs[0], cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    """Each pair (first, second) of x turned by its angle, or back."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (first, second), (to_first, to_second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin, value=direction)
    return out


class _Attend(torch.autograd.Function):
    """Softmax attention over blocks of queries, so that keys ahead of a block are never touched.

    The queries that share a key head stand below each other as rows of one matrix: no key is ever repeated.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, length, heads, width = q.shape
        groups = heads // k.shape[2]
        queries = _by_key_head(q, groups)
        keys, values = _by_key_head(k, 1).flatten(1, 2), _by_key_head(v, 1).flatten(1, 2)
        out = torch.empty_like(queries)
        keep = any(ctx.needs_input_grad) and len(keys) * groups * length * length <= KEPT_SHARES
        kept = []
        for block in _blocks(length):
            shares = _shares(queries, keys, block)
            part = torch.bmm(shares, values[:, : block.stop])
            out[:, :, block] = part.view(len(keys), groups, -1, width)
            if keep:
                kept.append(shares)
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.shape = q.shape
        return _by_token(out, rows)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, *kept = ctx.saved_tensors
        rows, length, _, width = ctx.shape
        groups, scale = queries.shape[1], 1 / math.sqrt(width)
        gradients = _by_key_head(outputs[0], groups)
        to_queries, to_keys, to_values = torch.empty_like(queries), keys, values
        # The last block sees all keys: its part of their gradients is what the others are added to.
        for index, block in reversed(list(enumerate(_blocks(length)))):
            shares = kept[index] if kept else _shares(queries, keys, block)
            g, asked = gradients[:, :, block].flatten(1, 2), queries[:, :, block].flatten(1, 2)
            seen = slice(0, block.stop)
            to_shares = torch.bmm(g, values[:, seen].transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype).mul_(scale)
            if block.stop == length:
                to_values = torch.bmm(shares.transpose(1, 2), g)
                to_keys = torch.bmm(to_scores.transpose(1, 2), asked)
            else:
                to_values[:, seen].baddbmm_(shares.transpose(1, 2), g)
                to_keys[:, seen].baddbmm_(to_scores.transpose(1, 2), asked)
            part = torch.bmm(to_scores, keys[:, seen])
            to_queries[:, :, block] = part.view(len(keys), groups, -1, width)
        return (
            _by_token(to_queries, rows),
            _by_token(to_keys[:, None], rows),
            _by_token(to_values[:, None], rows),
        )


def _blocks(length: int) -> list[slice]:
    return [slice(first, min(first + QUERY_BLOCK, length)) for first in range(0, length, QUERY_BLOCK)]


def _shares(queries: Tensor, keys: Tensor, block: slice) -> Tensor:
    """Softmax of a block's scores over the keys up to its end: (rows * key_heads, groups * block, block.stop)."""
    asked = queries[:, :, block]
    size = asked.shape[2]
    ahead = torch.full((size, size), -math.inf, dtype=keys.dtype, device=keys.device).triu_(1)
    mask = F.pad(ahead, (block.start, 0)).repeat(asked.shape[1], 1)
    scale = 1 / math.sqrt(keys.shape[-1])
    scores = torch.baddbmm(mask, asked.flatten(1, 2), keys[:, : block.stop].transpose(1, 2), alpha=scale)
    return torch.softmax(scores, dim=-1)


def _by_key_head(x: Tensor, groups: int) -> Tensor:
    """(rows, T, heads, width) -> (rows * key_heads, groups, T, width), contiguous."""
    rows, length, heads, width = x.shape
    split = x.reshape(rows, length, heads // groups, groups, width)
    return split.permute(0, 2, 3, 1, 4).reshape(-1, groups, length, width)


def _by_token(x: Tensor, rows: int) -> Tensor:
    """The inverse of `_by_key_head`."""
    _, groups, length, width = x.shape
    split = x.view(rows, -1, groups, length, width)
    return split.permute(0, 3, 1, 2, 4).reshape(rows, length, -1, width)

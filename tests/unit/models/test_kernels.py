"""Every kernel against the plain formula in fp64: values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.models import kernels
from tutelage.models.kernels import attend, gated, rms_norm, rms_norm_twice, rotate


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: Sequence[Tensor], dtype: torch.dtype
) -> None:
    """Outputs and the gradients of all inputs agree; `plain` runs in fp64."""
    given_inputs = [each.to(dtype).requires_grad_() for each in inputs]
    exact_inputs = [each.detach().double().requires_grad_() for each in given_inputs]
    out, exact = ours(*given_inputs), plain(*exact_inputs)
    outer = random(*exact.shape, seed=9)
    out.backward(outer.to(dtype))
    exact.backward(outer.to(dtype).double())
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-5
    for mine, right in [
        (out, exact),
        *((a.grad, b.grad) for a, b in zip(given_inputs, exact_inputs, strict=True)),
    ]:
        assert mine is not None
        assert right is not None
        torch.testing.assert_close(
            mine.double(), right, atol=tolerance * float(right.detach().abs().max()), rtol=0
        )


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def plain_gated(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    groups = q.shape[2] // k.shape[2]
    k, v = (each.repeat_interleave(groups, dim=2) for each in (k, v))
    scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / math.sqrt(q.shape[-1])
    ahead = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    return torch.einsum("rhqk,rkhd->rqhd", scores.masked_fill(ahead, -math.inf).softmax(-1), v)


DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 24), (5, 3, 8)])
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    inputs = [random(*shape) + 0.5, random(shape[-1], seed=1)]
    agree(lambda x, weight: rms_norm(x, weight, 1e-5), plain_norm, inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (5, 3, 8)])
def test_rms_norm_without_gradients(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, weight = (random(*shape) + 0.5).to(dtype), random(shape[-1], seed=1).to(dtype)
    out, exact = rms_norm_twice(x, weight.repeat(2), 1e-5), plain_norm(x.double(), weight.double())
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), exact, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gated(dtype: torch.dtype) -> None:
    agree(gated, plain_gated, [random(6, 20) * 3], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotate_turns_pairs_by_their_angle(dtype: torch.dtype) -> None:
    angles = random(5, 1, 4, seed=3)

    def plain(x: Tensor) -> Tensor:
        pairs = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    agree(
        lambda x: rotate(x, angles.cos().to(dtype), angles.sin().to(dtype)), plain, [random(5, 3, 8)], dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype: torch.dtype) -> None:
    agree(
        attend,
        plain_attention,
        [random(2, 9, 6, 8), random(2, 9, 2, 8, seed=1), random(2, 9, 2, 8, seed=2)],
        dtype,
    )


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 11),
    key_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    block=st.integers(1, 5),
    keep=st.booleans(),
)
def test_attention_is_the_same_however_it_is_cut(
    rows: int, length: int, key_heads: int, groups: int, block: int, keep: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "QUERY_BLOCK", block)
        patch.setattr(kernels, "KEPT_SHARES", 1 << 24 if keep else 0)
        keys = [random(rows, length, key_heads, 4, seed=seed) for seed in (1, 2)]
        agree(attend, plain_attention, [random(rows, length, key_heads * groups, 4), *keys], torch.float32)


def test_attention_agrees_with_the_fused_kernel() -> None:
    q, k, v = (
        random(2, 300, 6, 16).float(),
        random(2, 300, 3, 16, seed=1).float(),
        random(2, 300, 3, 16, seed=2).float(),
    )
    rows = (each.transpose(1, 2) for each in (q, k, v))
    fused = F.scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(attend(q, k, v), fused, atol=1e-5, rtol=1e-5)

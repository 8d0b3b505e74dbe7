"""Weights in the layout that the processor's own matrix product (oneDNN) wants, laid out once and not at every product.

With few rows at a time, laying out costs more than multiplying: packed, a product of bf16 matrices takes half the time
for 1 to 16 rows, and three quarters for 32. Packing loses nothing: unpacked, every number is the same again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FEWEST = 4  # oneDNN multiplies four rows with a large matrix in less time than one, two or three
_LARGE = 1 << 18


def can_pack(weight: Tensor) -> bool:
    """Whether packing makes products with this matrix faster: bf16 on a CPU that torch multiplies with oneDNN."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and not weight.is_mkldnn
    return plain and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def pack(weight: Tensor) -> Tensor:
    """The matrix (outputs, inputs), packed. Only `product` and `unpack` can read it."""
    # Outside inference mode, so that what is unpacked later can be trained on.
    with torch.inference_mode(False), torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        return packed


def unpack(weight: Tensor) -> Tensor:
    """The matrix that was packed."""
    with torch.inference_mode(False), torch.no_grad():
        return weight.to_dense()


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias, of a packed matrix or a plain one. x: (rows, inputs)."""
    if not weight.is_mkldnn:
        return F.linear(x, weight, bias)
    rows = x.shape[0]
    if rows < _FEWEST and weight.numel() > _LARGE:
        x = F.pad(x, (0, 0, 0, _FEWEST - rows))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y[:rows]

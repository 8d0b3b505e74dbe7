"""Matrices that were stored in 4 bits, held in 4 bits once more beside the wider ones, for products with few rows.

One row times a matrix takes as long as the matrix takes to be read. Files of the kind Q4_1 hold groups of 32 numbers
as d * q + m with q from 0 to 15. Their smallest and largest numbers give d and m back, so nothing is quantised that was
not before: what remains is a rounding of d and m like the one of every number in bf16. A matrix that no such groups
explain stays as it is. An adapter stays beside: folded in, its sum with the matrix would need more than 4 bits.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.models.packing import can_pack, pack, product

if TYPE_CHECKING:
    from tutelage.models.adapters import AdaptedLinear

log = logging.getLogger(__name__)

MOST_ROWS = 3  # with four, products in bf16 are as fast
_GROUP = 32
_SAMPLE = 40  # layers that are measured: more than the caches of a processor hold
_ROUNDS = 5
_LARGEST_ERROR = 0.004  # of a matrix, relative: rounding to bf16 makes 0.0017, other matrices in 4 bits 0.08


@dataclass(frozen=True, slots=True)
class FourBitLinear:
    """y = x W^T + bias + (x down) up for few rows.

    codes: (outputs, inputs / 2), in the layout of torch's product; scales: (groups, outputs, 2), d and m + 8 d;
    down: (inputs, rank), up: (rank, outputs), both fp32: so small, they are multiplied faster than in bf16.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None
    down: Tensor | None = None
    up: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.codes, _GROUP, self.scales)
        if self.bias is not None:
            y.add_(self.bias)
        if self.down is not None and self.up is not None:
            y.add_(x.float().mm(self.down).mm(self.up))
        return y

    def beside(self, down: Tensor, up: Tensor) -> FourBitLinear:
        """With a low-rank pair beside it: down (rank, inputs), up (outputs, rank)."""
        if self.down is not None and self.up is not None:
            down, up = torch.cat([self.down.t(), down]), torch.cat([self.up.t(), up], dim=1)
        return replace(self, down=down.float().t().contiguous(), up=up.float().t().contiguous())


@torch.no_grad()
def four_bit(weight: Tensor, bias: Tensor | None) -> FourBitLinear | None:
    """The layer in 4 bits, or None where that would lose more than bf16 does, or torch has no product for it."""
    outputs, inputs = weight.shape
    if weight.device.type != "cpu" or outputs % 16 or inputs % _GROUP:
        return None
    groups = weight.float().view(outputs, -1, _GROUP)
    least, most = groups.aminmax(dim=-1, keepdim=True)
    d = ((most - least) / 15).clamp_(min=torch.finfo(torch.float32).tiny)
    q = (groups - least).div_(d).round_()
    d, zero = d.to(weight.dtype), (least + 8 * d).to(weight.dtype)
    error = torch.linalg.vector_norm((q - 8).mul_(d).add_(zero).sub_(groups))
    if not error <= _LARGEST_ERROR * torch.linalg.vector_norm(groups):
        return None
    codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.int().view(outputs, inputs), 1)
    return FourBitLinear(codes, torch.cat([d, zero], dim=-1).transpose(0, 1).contiguous(), bias)


def hold_in_four_bits(layers: Iterable[AdaptedLinear], home: Path) -> None:
    """Give layers their form for few rows, where they have one and it is faster on this machine.

    That is measured once, and kept in `home/measured.json`. Adapters that are merged later are merged into both forms.
    """
    layers = list(layers)
    file, key = home / "measured.json", f"four-bit {_machine()} {layers[0].weight.dtype}"
    known = _read(file)
    if known.get(key) is False:
        return
    found = [(layer, four_bit(layer.weight, layer.bias)) for layer in layers]
    pairs = [(layer, narrow) for layer, narrow in found if narrow is not None]
    if not pairs:
        return
    if key not in known:
        known[key] = _pays(pairs[:_SAMPLE])
        _write(file, known)
    if known[key]:
        for layer, narrow in pairs:
            layer.few = narrow


@torch.inference_mode()
def _pays(pairs: Sequence[tuple[AdaptedLinear, FourBitLinear]]) -> bool:
    """Whether one row takes less time in 4 bits than as the layers' own weights do; the best of some rounds of each."""
    rows = [torch.ones(1, layer.weight.shape[1], dtype=layer.weight.dtype) for layer, _ in pairs]
    own = [pack(layer.weight) if can_pack(layer.weight) else layer.weight for layer, _ in pairs]
    narrow_seconds, own_seconds = [], []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for x, (_, narrow) in zip(rows, pairs, strict=True):
            narrow(x)
        between = time.perf_counter()
        for x, weight in zip(rows, own, strict=True):
            product(x, weight, None)
        narrow_seconds.append(between - began)
        own_seconds.append(time.perf_counter() - between)
    return min(narrow_seconds) < min(own_seconds)


def _machine() -> str:
    """What the measurement depends on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {capability} {torch.get_num_threads()} threads, torch {torch.__version__}"


def _read(file: Path) -> dict[str, Any]:
    """What was measured before; nothing where the file is missing or broken."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(file: Path, known: dict[str, Any]) -> None:
    """All or nothing. Where it cannot be written, the next start measures again."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(partial, file)
    except OSError as error:
        log.info("what was measured could not be kept in %s: %s", file, error)

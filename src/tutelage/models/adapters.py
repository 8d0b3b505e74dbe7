"""Low-rank adapters: several of them, by name, on one frozen base; on disk in PEFT's format.

A linear layer may be the fusion of several projections of one input (q, k, v). Each projection keeps its own
pair of matrices, as PEFT has it, and one product with all the A matrices serves them together.

Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1: W x + (alpha / r) B A x, B starting at zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tutelage.errors import ModelError, Sentence
from tutelage.models.four_bit import FourBitLinear
from tutelage.models.packing import product
from tutelage.registry.folders import sync


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Rank and alpha of an adapter; it adds (alpha / rank) * B A to every linear layer."""

    rank: int = 16
    alpha: int = 32

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"the rank of an adapter is at least 1, not {self.rank}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


# Settings of PEFT that change what an adapter computes, and the value that changes nothing.
_PLAIN: dict[str, object] = {
    "peft_type": "LORA",
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": [],
}


class AdapterSwitch:
    """Which adapter the layers of one model apply; None is the bare base."""

    def __init__(self) -> None:
        self.active: str | None = None
        self.shapes: dict[str, AdapterShape] = {}


class LowRank(nn.Module):
    """One adapter of one (fused) linear layer. `a`: (parts * rank, in); `b[i]`: (out of part i, rank)."""

    def __init__(
        self, inputs: int, outputs: Sequence[int], shape: AdapterShape, device: torch.device
    ) -> None:
        super().__init__()
        self.scale = shape.scale
        self.a = nn.Parameter(torch.empty(len(outputs) * shape.rank, inputs, device=device))
        self.b = nn.ParameterList(torch.zeros(out, shape.rank, device=device) for out in outputs)

    def reset(self, generator: torch.Generator) -> None:
        """A uniform as PEFT draws it, B zero: the adapter changes nothing yet."""
        bound = 1 / math.sqrt(self.a.shape[1])
        with torch.no_grad():
            self.a.copy_((torch.rand(self.a.shape, generator=generator) * 2 - 1) * bound)
            for part in self.b:
                part.zero_()

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A (parts * rank, in), and all of B as one block-diagonal matrix (out, parts * rank), in `dtype`."""
        parts = [part.detach().to(dtype) for part in self.b]
        b = torch.block_diag(*parts) if len(parts) > 1 else parts[0]  # type: ignore[no-untyped-call]
        return self.a.detach().to(dtype), b


class _Adapted(torch.autograd.Function):
    """y = x W^T + bias + scale * (x A^T) B^T, the second product added in place. B's parts come last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, low: LowRank, *_: Tensor) -> Tensor:
        a, b = low.matrices(x.dtype)
        weight = weight.to(x.dtype)
        y = product(x, weight, None if bias is None else bias.to(x.dtype))
        inner = F.linear(x, a).mul_(low.scale)
        y.addmm_(inner, b.t())
        ctx.save_for_backward(x, weight, inner, a, b)
        ctx.low = low
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = outputs
        x, weight, inner, a, b = ctx.saved_tensors
        low: LowRank = ctx.low
        to_inner = (g @ b).mul_(low.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (g @ weight).addmm_(to_inner, a)
        if not any(ctx.needs_input_grad[4:]):
            return (to_x, None, None, None, *[None] * len(ctx.needs_input_grad[4:]))
        to_a, to_b = to_inner.t() @ x, g.t() @ inner
        outs, rank = [len(part) for part in low.b], low.b[0].shape[1]
        blocks = zip(to_b.split(outs), range(0, rank * len(outs), rank), strict=True)
        parts = [rows[:, first : first + rank].to(low.b[0].dtype) for rows, first in blocks]
        return to_x, None, None, None, to_a.to(low.a.dtype), *parts


class AdaptedLinear(nn.Module):
    """A frozen linear layer, fused of named `parts`, that adds the active adapter of its model.

    weight: (sum of the parts' outputs, in); bias: (outputs,) or None. `parts` holds the Hugging Face name and
    the number of outputs of each projection.
    few: the same layer for few rows without gradients, adapters apart, where that is faster. It does not learn.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, parts: Sequence[tuple[str, int]], switch: AdapterSwitch
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.weight: Tensor
        self.bias: Tensor | None
        self.parts = tuple(parts)
        self.few: FourBitLinear | None = None
        self.adapters = nn.ModuleDict()
        self._switch = switch

    def forward(self, x: Tensor) -> Tensor:
        low = self.active_adapter()
        if low is None:
            return product(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        flat = x.flatten(0, -2)
        y: Tensor = _Adapted.apply(flat, self.weight, self.bias, low, low.a, *low.b)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)

    def active_adapter(self) -> LowRank | None:
        """What `forward` adds now."""
        name = self._switch.active
        adapter = self.adapters[name] if name is not None and name in self.adapters else None
        assert adapter is None or isinstance(adapter, LowRank)
        return adapter

    @torch.no_grad()
    def merge(self, name: str) -> None:
        """Add the adapter to the weights for good, in fp32, and drop it."""
        adapter = self.adapters.pop(name)
        assert isinstance(adapter, LowRank)
        downs = adapter.a.float().chunk(len(adapter.b))
        delta = torch.cat([b.float() @ a for a, b in zip(downs, adapter.b, strict=True)])
        self.weight = (self.weight.float() + adapter.scale * delta).to(self.weight.dtype)
        if self.few is not None:
            down, up = adapter.matrices(torch.float32)
            self.few = self.few.beside(down * adapter.scale, up)


class AdapterHost(nn.Module):
    """A model whose linear layers take adapters. Subclasses build their layers with `self.switch`."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = AdapterSwitch()

    def adapted_layers(self) -> Iterator[AdaptedLinear]:
        """Every layer that takes adapters, in a fixed order."""
        return (module for module in self.modules() if isinstance(module, AdaptedLinear))

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Apply `adapter` (None: the bare base) inside the block."""
        if adapter is not None and adapter not in self.switch.shapes:
            raise KeyError(f"no adapter {adapter!r}; there are {sorted(self.switch.shapes)}")
        before, self.switch.active = self.switch.active, adapter
        try:
            yield
        finally:
            self.switch.active = before

    def add_adapter(self, name: str, shape: AdapterShape, *, seed: int) -> None:
        """A new adapter that changes nothing yet. The same seed gives the same A matrices."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.adapted_layers():
            device = layer.weight.device
            low = LowRank(layer.weight.shape[1], [out for _, out in layer.parts], shape, device)
            low.reset(generator)
            layer.adapters[name] = low
        self.switch.shapes[name] = shape

    def copy_adapter(self, source: str, target: str) -> None:
        """Add `target` with the weights of `source`; `target` is overwritten when it exists."""
        if target not in self.switch.shapes:
            self.add_adapter(target, self.switch.shapes[source], seed=0)
        with torch.no_grad():
            for old, new in zip(
                self.adapter_parameters(source), self.adapter_parameters(target), strict=True
            ):
                new.copy_(old)

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter."""
        for layer in self.adapted_layers():
            del layer.adapters[name]
        del self.switch.shapes[name]

    def adapter_parameters(self, name: str) -> list[nn.Parameter]:
        """Trainable tensors of an adapter, in a fixed order."""
        return [p for layer in self.adapted_layers() for p in layer.adapters[name].parameters()]

    def merge_adapter(self, name: str) -> None:
        """Fold an adapter into the base: faster to run, no longer to be taken off."""
        for layer in self.adapted_layers():
            layer.merge(name)
        del self.switch.shapes[name]

    def adapter_tensors(self, name: str) -> dict[str, Tensor]:
        """The adapter under PEFT's names, fp32, on the CPU."""
        tensors: dict[str, Tensor] = {}
        for layer in self.adapted_layers():
            low = layer.adapters[name]
            assert isinstance(low, LowRank)
            for (part, _), a, b in zip(layer.parts, low.a.chunk(len(low.b)), low.b, strict=True):
                at = f"base_model.model.{part}"
                tensors[f"{at}.lora_A.weight"] = a.detach().cpu().contiguous()
                tensors[f"{at}.lora_B.weight"] = b.detach().cpu().contiguous()
        return tensors

    def set_adapter_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Fill an adapter that was added before. Raises ModelError when the names or shapes do not fit."""
        expected = self.adapter_tensors(name)
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in expected.items()}:
            raise ModelError(
                "the adapter does not fit this model: other layers or other sizes",
                hint="an adapter belongs to the base it was trained on; see `tutelage versions show`",
            )
        with torch.no_grad():
            for layer in self.adapted_layers():
                low = layer.adapters[name]
                assert isinstance(low, LowRank)
                at = [f"base_model.model.{part}" for part, _ in layer.parts]
                low.a.copy_(torch.cat([tensors[f"{part}.lora_A.weight"] for part in at]))
                for part, b in zip(at, low.b, strict=True):
                    b.copy_(tensors[f"{part}.lora_B.weight"])


def save_adapter(model: AdapterHost, name: str, folder: Path, *, base: str) -> None:
    """Write an adapter as PEFT does: adapter_config.json and adapter_model.safetensors.

    Raises ModelError when it cannot be written.
    """
    shape = model.switch.shapes[name]
    parts = sorted({part.rsplit(".", 1)[-1] for layer in model.adapted_layers() for part, _ in layer.parts})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": parts,
        "inference_mode": True,
    }
    tensors = model.adapter_tensors(name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the block writes into a folder is on the disk when it ends.

    A full disk, or a folder that may not be written to, becomes a ModelError that names the folder.
    """
    try:
        yield
        for file in (*filter(Path.is_file, folder.iterdir()), folder):
            sync(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            Sentence("the adapter cannot be written: {error}", error=error),
            where=str(folder),
            hint="make room there; a run then goes on from its last checkpoint with --resume",
        ) from error


def load_adapter(model: AdapterHost, name: str, folder: Path) -> None:
    """Add an adapter from a folder in PEFT's format. Raises ModelError when it is broken or does not fit."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        shape = AdapterShape(int(config["r"]), int(config["lora_alpha"]))
        odd = {
            key: config[key] for key, plain in _PLAIN.items() if config.get(key, plain) not in (plain, None)
        }
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            Sentence("the adapter cannot be read: {error}", error=error),
            where=str(folder),
            hint="publish the run again, or roll back",
        ) from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ModelError(
            "the adapter holds what is no number",
            where=str(folder),
            hint="name another run or version: what this one computes is no number either",
        )
    if odd:
        raise ModelError(
            Sentence(
                "the adapter is not plain LoRA: {differences}",
                differences=", ".join(f"{key} = {value!r}" for key, value in odd.items()),
            ),
            where=str(folder),
            hint="only one rank and one alpha for all linear layers are read; merge it into its base instead",
        )
    model.add_adapter(name, shape, seed=0)
    try:
        model.set_adapter_tensors(name, tensors)
    except ModelError as error:
        model.drop_adapter(name)
        raise ModelError(error.message, where=str(folder), hint=error.hint) from error

"""Models outside the Llama family, computed by transformers (the extra `hub`), with this package's adapters.

Right, not fast: trees repeat their prompts, and running sequences are read and stepped one after the other.
Left out: models that add something to the product of state and head (a bias, a scale, a soft cap).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tutelage.errors import ModelError, Sentence
from tutelage.models.adapters import AdaptedLinear
from tutelage.models.interface import CausalModel, Piece, Span, thaw
from tutelage.models.layout import Layout, sequences

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_OTHER = (
    "choose another model; the Llama family (Llama, SmolLM, Mistral, Qwen2, Qwen3) runs without transformers"
)


class SlotCaches:
    """transformers' own cache of each running sequence. They grow by themselves, and not all can be cut."""

    partial = False

    def __init__(self, slots: int) -> None:
        self.caches: list[Any] = [None] * slots

    def copy(self, source: int, target: int, length: int) -> None:
        self.caches[target] = deepcopy(self.caches[source])

    def resized(self, length: int, slots: int) -> SlotCaches:
        resized = SlotCaches(slots)
        resized.caches[: len(self.caches)] = self.caches[:slots]
        return resized

    def take(self, slot: int, length: int) -> Span:
        raise NotImplementedError("these caches are only copied whole")

    def put(self, slot: int, span: Span, length: int) -> None:
        raise NotImplementedError("these caches are only copied whole")

    def release(self) -> None:
        """Nothing was taken."""


class ForeignModel(CausalModel):
    """A causal model of transformers, its linear layers replaced by ones that take adapters.

    Raises ModelError when its logits are not the product of its last states and its head.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.requires_grad_(False)
        output = network.get_output_embeddings()
        _adapt(network, self, keep=output)
        self.network = network.eval()
        self.register_buffer("head", output.weight.detach(), persistent=False)
        self._dtype: torch.dtype = self.head.dtype
        self._context_length = _context_length(network.config)
        self._check()

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def width(self) -> int:
        return self.head.shape[1]

    @property
    def device(self) -> torch.device:
        return self.head.device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def unfreeze(self) -> list[nn.Parameter]:
        self.float()  # transformers' code computes in the dtype of the weights
        thaw(self.adapted_layers())
        del self._buffers["head"]
        self.head = self.network.get_output_embeddings().weight
        return [parameter.requires_grad_() for parameter in self.network.parameters()]

    def hidden(self, token_ids: Tensor, layout: Layout) -> Tensor:
        # Rows are causal and padded on the right: no real token sees padding, so they need no mask.
        rows = token_ids[layout.gather]
        states: Tensor = self.network.base_model(input_ids=rows, use_cache=False).last_hidden_state
        return states.flatten(0, 1).index_select(0, layout.scatter)

    def new_cache(self, slots: int, length: int) -> SlotCaches:
        return SlotCaches(slots)

    def read(self, pieces: Sequence[Piece], cache: SlotCaches) -> Tensor:
        ends = []
        for piece in pieces:
            if not piece.start:
                cache.caches[piece.slot] = None
            token_ids = torch.tensor(piece.token_ids, device=self.device)
            ends.append(self._read(token_ids, cache, piece.slot)[-1])
        return self.logits(torch.stack(ends))

    def step(self, token_ids: Tensor, cache: SlotCaches, places: Tensor) -> Tensor:
        states = [self._read(token, cache, slot) for slot, token in enumerate(token_ids[:, None])]
        return self.logits(torch.cat(states))

    def _read(self, token_ids: Tensor, cache: SlotCaches, slot: int) -> Tensor:
        """Append tokens to the sequence in a slot. token_ids: (tokens,) -> (tokens, width)."""
        before = cache.caches[slot]
        out = self.network.base_model(input_ids=token_ids[None], past_key_values=before, use_cache=True)
        cache.caches[slot] = out.past_key_values
        states: Tensor = out.last_hidden_state[0]
        return states

    @torch.no_grad()
    def _check(self) -> None:
        """Compare with the network's own logits: in one pass, which must agree, and token by token, nearly."""
        probe = torch.arange(4, device=self.device)
        expected = self.network(input_ids=probe[None], use_cache=False).logits[0].float()
        cache = self.new_cache(1, len(probe))
        stepped = torch.cat([self._read(token, cache, 0) for token in probe[:, None]])
        whole = self.hidden(probe, sequences([len(probe)]).to(self.device))
        for states, tolerance in ((whole, 1e-3), (stepped, 0.05)):
            error = (self.logits(states).float() - expected).abs().max() / expected.abs().max()
            if not error <= tolerance:
                raise ModelError(
                    "the model's logits are not the product of its last states and its head", hint=_OTHER
                )


def _adapt(network: nn.Module, host: CausalModel, *, keep: nn.Module) -> None:
    """Put an AdaptedLinear in the place of every linear layer but `keep`, under the name PEFT knows it by."""
    from transformers.pytorch_utils import Conv1D

    linear = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not keep
    ]
    for name, layer in linear:
        weight = layer.weight.detach()
        weight = weight if isinstance(layer, nn.Linear) else weight.T.contiguous()
        bias = None if layer.bias is None else layer.bias.detach()
        above, _, own = name.rpartition(".")
        adapted = AdaptedLinear(weight, bias, [(name, len(weight))], host.switch)
        setattr(network.get_submodule(above), own, adapted)


def _context_length(config: Any) -> int:
    for name in _CONTEXT_NAMES:
        found = getattr(config, name, None)
        if isinstance(found, int) and found > 0:
            return found
    raise ModelError("the model's config does not say how long its context is", hint=_OTHER)


def load_foreign(folder: Path, dtype: torch.dtype, device: torch.device) -> ForeignModel:
    """Read a model folder with transformers; pickled weights and code in the folder are never run.

    Raises ModelError when transformers is missing, when it cannot read the folder, or when the model does not
    work like other causal models.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise ModelError(
            "a model outside the Llama family needs the package transformers",
            where=str(folder),
            hint="pip install 'tutelage[hub]', or choose Llama, SmolLM, Mistral, Qwen2 or Qwen3",
        ) from error
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            Sentence("transformers cannot read the model: {error}", error=error),
            where=str(folder),
            hint=_OTHER,
        ) from error
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(
            Sentence("the weights lack {names}", names=names), where=str(folder), hint="fetch the model again"
        )
    try:
        return ForeignModel(network.to(device))
    except ModelError as error:
        raise ModelError(error.message, where=str(folder), hint=error.hint) from error
    except (AttributeError, TypeError) as error:  # no output layer, no cache, other arguments
        raise ModelError(
            Sentence("the model does not work like other causal models: {error}", error=error),
            where=str(folder),
            hint=_OTHER,
        ) from error

"""Packed weights: the same numbers, laid out for the processor; a model that generates can be trained afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tutelage.models.adapters import AdapterShape
from tutelage.models.generation import Batch, Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.layout import sequences
from tutelage.models.loading import load_model
from tutelage.models.packing import can_pack, pack, product, unpack

packs = can_pack(torch.zeros(2, 2, dtype=torch.bfloat16))
pytestmark = pytest.mark.skipif(not packs, reason="torch multiplies without oneDNN here")
TOKENS = torch.tensor([5, 17, 3, 44, 96, 8, 8, 21, 60])
REQUEST = Request(prompt_ids=(5, 6, 7), max_tokens=6, seed=0)


def random(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).bfloat16()


@pytest.mark.parametrize("rows", [1, 3, 4, 33])
@pytest.mark.parametrize("size", [(96, 64), (50, 30), (1, 7)])
def test_a_packed_product_is_the_plain_one(rows: int, size: tuple[int, int]) -> None:
    weight, bias, x = random(*size), random(size[0]), random(rows, size[1])
    packed = pack(weight)
    for b in (bias, None):
        assert_close(product(x, packed, b), product(x, weight, b), atol=0.1, rtol=0.02)
    assert torch.equal(unpack(packed), weight)
    assert not can_pack(packed)


@pytest.fixture
def coarse(home: Path) -> CausalModel:
    model = load_model("tiny", home, dtype="bfloat16").model
    model.add_adapter("policy", AdapterShape(rank=2, alpha=4), seed=0)
    for index, parameter in enumerate(model.adapter_parameters("policy")):
        numbers = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        parameter.data.copy_(0.1 * numbers)
    return model


def logits(model: CausalModel) -> torch.Tensor:
    return model.logits(model.hidden(TOKENS, sequences([len(TOKENS)])))


def test_generating_leaves_a_model_as_it_was(coarse: CausalModel) -> None:
    before = [layer.weight for layer in coarse.adapted_layers()]
    with coarse.using("policy"), torch.inference_mode():
        expected = logits(coarse)
        complete(coarse, frozenset(), [REQUEST])
        assert torch.equal(logits(coarse), expected)
    for layer, weight in zip(coarse.adapted_layers(), before, strict=True):
        assert torch.equal(layer.weight, weight)
        assert layer.weight.stride() == weight.stride()
    with coarse.using("policy"):
        logits(coarse).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in coarse.adapter_parameters("policy"))


def test_a_failure_leaves_a_model_as_it_was(coarse: CausalModel) -> None:
    def broken(finished: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(coarse, frozenset(), [REQUEST], progress=broken)
    assert not any(layer.weight.is_mkldnn for layer in coarse.adapted_layers())


def test_a_model_that_generates_is_computed_as_before(coarse: CausalModel) -> None:
    with torch.inference_mode(), coarse.using("policy"):
        expected = logits(coarse)
        batch, second = (Batch(coarse, frozenset(), slots=1) for _ in range(2))
        assert all(layer.weight.is_mkldnn for layer in coarse.adapted_layers())
        assert_close(logits(coarse), expected, atol=0.1, rtol=0.02)
        second.close()
        batch.add(REQUEST)
        while batch.busy:
            batch.step()
        batch.close()
    assert not any(layer.weight.is_mkldnn for layer in coarse.adapted_layers())


def test_all_weights_can_be_trained_after_generating(coarse: CausalModel) -> None:
    weights = coarse.unfreeze()
    before = [weight.detach().clone() for weight in weights]
    complete(coarse, frozenset(), [REQUEST])
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    assert weights[0].dtype == torch.float32
    logits(coarse).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in weights)


def test_samples_have_the_log_probabilities_of_one_pass(coarse: CausalModel) -> None:
    with coarse.using("policy"), torch.inference_mode():
        made = complete(coarse, frozenset(), [Request(prompt_ids=TOKENS.tolist(), max_tokens=30, seed=3)])[0]
        token_ids = torch.tensor([*TOKENS, *made.token_ids])
        states = coarse.hidden(token_ids, sequences([len(token_ids)]))
        logs = coarse.logits(states).float().log_softmax(dim=-1)
    expected = logs[:-1].gather(1, token_ids[1:, None])[len(TOKENS) - 1 :, 0]
    assert_close(torch.tensor(made.logprobs), expected, atol=0.2, rtol=0)
    assert float((torch.tensor(made.logprobs) - expected).abs().mean()) < 0.03

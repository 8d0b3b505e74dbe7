"""The Llama family against transformers' own code, on small random models in fp32."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import ModelError
from tutelage.models.adapters import AdapterShape
from tutelage.models.interface import CausalModel, Piece
from tutelage.models.layout import sequences, trees
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.transformer import Transformer, read_architecture, read_tensors

FAMILIES = ["llama", "llama, untied, with biases", "llama 3 rope", "linear rope", "mistral", "qwen2", "qwen3"]


def random_ids(*lengths: int, vocabulary: int = 97) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, vocabulary, (length,), generator=generator) for length in lengths]


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def logits(model: CausalModel, token_ids: Tensor) -> Tensor:
    return model.logits(model.hidden(token_ids, sequences([len(token_ids)])))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_equal_transformers(pair: Callable[[str], Any], family: str) -> None:
    both = pair(family)
    (token_ids,) = random_ids(60)
    expected = both.theirs(token_ids[None]).logits[0]
    assert expected.std() > 0.1
    close(logits(both.ours, token_ids), expected)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_pieces_and_steps_equal_one_pass(pair: Callable[[str], Any], family: str) -> None:
    model = pair(family).ours
    token_ids = random_ids(20, 9, 14)
    cache = model.new_cache(4, 32)
    # Slot 2 holds the first sequence, slot 0 the second: slots are named, not counted.
    slots = (2, 0, 1)
    starts = [0] * 3
    for counts in ((12, 5, 4), (4, 0, 6)):
        pieces = [
            Piece(ids[start : start + count].tolist(), slot, start)
            for ids, slot, start, count in zip(token_ids, slots, starts, counts, strict=True)
            if count
        ]
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
        expected = [
            whole(model, token_ids[slots.index(p.slot)])[p.start + len(p.token_ids) - 1] for p in pieces
        ]
        close(model.read(pieces, cache), model.logits(torch.stack(expected)))
    ordered = [token_ids[1], token_ids[2], token_ids[0]]
    for step in range(4):
        places = torch.tensor([len(ids) - 4 + step for ids in ordered])
        last = torch.stack([ids[place] for ids, place in zip(ordered, places, strict=True)])
        expected = [whole(model, ids)[place] for ids, place in zip(ordered, places, strict=True)]
        close(model.step(last, cache, places), model.logits(torch.stack(expected)))


@torch.no_grad()
def test_a_sequence_goes_on_in_another_slot_and_from_a_span(pair: Callable[[str], Any]) -> None:
    model = pair("qwen3").ours
    (token_ids,) = random_ids(12)
    cache = model.new_cache(3, 16)
    model.read([Piece(token_ids[:10].tolist(), 1)], cache)
    span = cache.take(1, 9)
    assert span.size == 9 * 2 * 2 * 16 * 2 * 4
    cache.copy(1, 0, 7)
    cache = cache.resized(40, cache.slots)
    cache.put(2, span, 8)
    rest = [Piece(token_ids[start:].tolist(), slot, start) for slot, start in ((0, 7), (2, 8))]
    close(model.read(rest, cache), model.logits(whole(model, token_ids)[-1].expand(2, -1)))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.no_grad()
def test_an_adapter_is_read_and_stepped_as_it_is_trained(
    pair: Callable[[str], Any], tmp_path: Path, family: str
) -> None:
    shape = read_architecture(pair(family).folder)
    assert shape is not None
    model = Transformer(shape, read_tensors(pair(family).folder, torch.float32, torch.device("cpu")))
    model.add_adapter("policy", AdapterShape(rank=3, alpha=6), seed=0)
    for index, parameter in enumerate(model.adapter_parameters("policy")):
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    (token_ids,) = random_ids(12)
    bare = whole(model, token_ids)
    with model.using("policy"):
        adapted = whole(model, token_ids)
        cache = model.new_cache(1, 16)
    assert (bare - adapted).abs().max() > 0.1
    close(model.read([Piece(token_ids[:11].tolist(), 0)], cache), model.logits(adapted[10:11]))
    close(model.step(token_ids[11:], cache, torch.tensor([11])), model.logits(adapted[11:]))


def whole(model: Transformer, token_ids: Tensor) -> Tensor:
    return model.hidden(token_ids, sequences([len(token_ids)]))


@torch.no_grad()
def test_packed_sequences_equal_separate_ones(pair: Callable[[str], Any]) -> None:
    model = pair("qwen3").ours
    parts = random_ids(5, 17, 1, 9)
    packed = model.hidden(torch.cat(parts), sequences([len(part) for part in parts]))
    close(packed, torch.cat([whole(model, part) for part in parts]))


@torch.no_grad()
def test_sequences_of_one_length_need_no_gathering(pair: Callable[[str], Any]) -> None:
    model = pair("llama").ours
    parts = random_ids(6, 6, 6)
    layout = sequences([6, 6, 6])
    assert layout.is_plain
    close(model.hidden(torch.cat(parts), layout), torch.cat([whole(model, part) for part in parts]))


@torch.no_grad()
def test_trees_equal_separate_passes(pair: Callable[[str], Any]) -> None:
    model = pair("llama, untied, with biases").ours
    first, a, b, c, second, d = random_ids(7, 3, 8, 1, 4, 5)
    layout = trees([(7, (3, 8, 1)), (4, (5,))])
    states = model.hidden(torch.cat([first, a, b, c, second, d]), layout)
    expected = [whole(model, torch.cat([first, a]))]
    expected += [whole(model, torch.cat([first, each]))[7:] for each in (b, c)]
    expected += [whole(model, torch.cat([second, d]))]
    close(states, torch.cat(expected))


def test_no_weight_of_the_base_can_be_trained(tiny: LoadedModel) -> None:
    assert not list(tiny.model.parameters())


def test_the_window_of_a_model_cuts_its_context(
    pair: Callable[[str], Any], tmp_path: Path, change_config: Callable[..., None]
) -> None:
    assert pair("mistral").ours.context_length == 64
    (tmp_path / "config.json").write_text((pair("mistral").folder / "config.json").read_text())
    change_config(tmp_path, use_sliding_window=False)
    shape = read_architecture(tmp_path)
    assert shape is not None
    assert shape.context_length == 128


@pytest.mark.parametrize("version_of_transformers", [4, 5])
def test_rotary_settings_are_read_as_either_version_writes_them(
    tiny_copy: Path, change_config: Callable[..., None], version_of_transformers: int
) -> None:
    if version_of_transformers == 5:
        rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}
        change_config(tiny_copy, rope_theta=None, rope_parameters=rope)
    else:
        change_config(tiny_copy, rope_theta=7.0, rope_scaling={"type": "linear", "factor": 2.0})
    shape = read_architecture(tiny_copy)
    assert shape is not None
    assert shape.rope_theta == 7.0
    assert shape.rope_scaling is not None
    assert shape.rope_scaling["rope_type"] == "linear"


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gpt2"},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    ],
)
def test_other_families_are_told_apart(
    tiny_copy: Path, change_config: Callable[..., None], change: dict[str, object]
) -> None:
    change_config(tiny_copy, **change)
    assert read_architecture(tiny_copy) is None


def test_a_config_without_sizes_is_refused(tiny_copy: Path, change_config: Callable[..., None]) -> None:
    change_config(tiny_copy, hidden_size=None)
    with pytest.raises(ModelError, match="hidden_size") as caught:
        read_architecture(tiny_copy)
    assert caught.value.hint


def test_weights_that_are_missing_or_cut_off_are_refused(tiny_copy: Path, home: Path) -> None:
    weights = tiny_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(str(tiny_copy), home)
    weights.unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_model(str(tiny_copy), home)


def test_a_missing_tensor_is_named(tiny_copy: Path, home: Path, change_config: Callable[..., None]) -> None:
    change_config(tiny_copy, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"model.layers.2"):
        load_model(str(tiny_copy), home)


def test_tensors_of_another_size_than_the_config_says_are_refused(
    tiny_copy: Path, home: Path, change_config: Callable[..., None]
) -> None:
    change_config(tiny_copy, num_attention_heads=2)
    with pytest.raises(ModelError, match="q_proj"):
        load_model(str(tiny_copy), home)


def test_weights_beside_the_models_own_are_not_read(tiny_copy: Path) -> None:
    (tiny_copy / "consolidated.safetensors").write_bytes(b"another copy, in another form")
    assert read_tensors(tiny_copy, torch.float32, torch.device("cpu"))


def test_bfloat16_is_near_fp32(home: Path, tiny: LoadedModel) -> None:
    token_ids = torch.tensor(tiny.renderer.completion("hello there"))
    coarse = load_model("tiny", home, dtype="bfloat16").model
    states = logits(coarse, token_ids)
    assert states.dtype == torch.bfloat16
    assert_close(states.float(), logits(tiny.model, token_ids), atol=0.1, rtol=0.1)


def test_a_tied_head_stays_tied_when_the_model_moves(pair: Callable[[str], Any]) -> None:
    model = deepcopy(pair("llama").ours).to(torch.bfloat16)
    assert model.head is model.embedding
    assert len({id(each) for each in model.unfreeze()}) == len(list(model.parameters()))
    assert model.head is model.embedding

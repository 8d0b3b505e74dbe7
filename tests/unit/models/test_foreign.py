"""Models outside the Llama family: transformers computes, the interface stays the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import ModelError
from tutelage.models import tiny as tiny_model
from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.foreign import ForeignModel, load_foreign
from tutelage.models.generation import Batch, Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.layout import sequences, trees
from tutelage.models.loading import load_model
from tutelage.models.logprobs import token_scores

TOKENS = torch.tensor([5, 17, 3, 44, 96, 8, 8, 21, 60])
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5},
    "gpt_neox": {"hidden_dropout": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, random_network: Callable[..., Any], family: str) -> Path:
    folder = tmp_path_factory.mktemp(family)
    tiny_model.write_text_files(folder)
    random_network(family, FAMILIES[family]).save_pretrained(folder)
    return folder


@pytest.fixture
def model(folder: Path, home: Path) -> CausalModel:
    return load_model(str(folder), home, dtype="float32").model


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return network(folder)


def network(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def logits(model: CausalModel, token_ids: Tensor = TOKENS) -> Tensor:
    return model.logits(model.hidden(token_ids, sequences([len(token_ids)])))


def fill(model: CausalModel, name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters(name):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def test_logits_equal_transformers(model: CausalModel, theirs: Any) -> None:
    assert isinstance(model, ForeignModel)
    expected = theirs(TOKENS[None]).logits[0]
    assert expected.std() > 0.1
    close(logits(model), expected)
    assert model.width == 32
    assert model.context_length == 128


@torch.no_grad()
def test_packed_sequences_and_trees_equal_separate_passes(model: CausalModel) -> None:
    layout = trees([(3, (2, 1)), (2, ()), (1, ())])
    expected = [logits(model, TOKENS[:5]), logits(model, TOKENS[[0, 1, 2, 5]])[3:]]
    expected += [logits(model, TOKENS[6:8]), logits(model, TOKENS[8:])]
    close(model.logits(model.hidden(TOKENS, layout)), torch.cat(expected))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_greedy_completions_equal_transformers_generate(model: CausalModel, theirs: Any, slots: int) -> None:
    prompts = [[5, 9, 33, 7], [88, 14, 3], [60] * 9]
    limits = [4, 12, 8]
    requests = [
        Request(prompt_ids=prompt, max_tokens=limit, seed=0, temperature=0.0)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    found = complete(model, frozenset({2}), requests, slots=slots)
    for request, ours in zip(requests, found, strict=True):
        ids = torch.tensor([request.prompt_ids])
        settings = {"do_sample": False, "max_new_tokens": request.max_tokens, "eos_token_id": 2}
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert list(ours.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_a_cancelled_completion_leaves_the_others_alone(model: CausalModel) -> None:
    def request(seed: int) -> Request:
        return Request(prompt_ids=[5, 9, 3 + seed], max_tokens=10, seed=seed)

    batch = Batch(model, frozenset(), slots=2)
    first, second, third = (batch.add(request(seed)) for seed in range(3))
    drawn: dict[int, list[int]] = {first: [], second: [], third: []}
    for step in range(40):
        if step == 2:
            batch.cancel(first)
        for token in batch.step():
            drawn[token.key].append(token.token_id)
    expected = complete(model, frozenset(), [request(1), request(2)])
    assert [tuple(drawn[key]) for key in (second, third)] == [each.token_ids for each in expected]


def test_adapters_train(model: CausalModel) -> None:
    model.add_adapter("sft", AdapterShape(rank=4, alpha=8), seed=0)
    optimizer = torch.optim.Adam(model.adapter_parameters("sft"), lr=0.02)
    losses = []
    for _ in range(8):
        with model.using("sft"):
            hidden = model.hidden(TOKENS, sequences([len(TOKENS)]))[:-1]
        loss = -token_scores(hidden, model.head, TOKENS[1:]).logprobs.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not any(p.grad is not None for name, p in model.named_parameters() if "adapters" not in name)


def test_peft_reads_our_adapter_and_we_read_it_again(
    folder: Path, home: Path, model: CausalModel, tmp_path: Path
) -> None:
    from peft import PeftModel

    model.add_adapter("sft", AdapterShape(rank=3, alpha=12), seed=0)
    fill(model, "sft")
    save_adapter(model, "sft", tmp_path, base="x")
    again = load_model(str(folder), home, dtype="float32").model
    load_adapter(again, "copy", tmp_path)
    theirs = PeftModel.from_pretrained(network(folder), tmp_path)
    with torch.no_grad(), model.using("sft"), again.using("copy"):
        adapted = logits(model)
        close(adapted, theirs(TOKENS[None]).logits[0])
        assert torch.equal(logits(again), adapted)
        again.merge_adapter("copy")
        again.switch.active = None
        close(logits(again), adapted)
        model.switch.active = None
        assert (logits(model) - adapted).abs().max() > 0.1


def test_lost_weights_are_not_made_up(folder: Path, home: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "dense_h_to_4h.weight" in name or "c_fc.weight" in name)
    save_file(
        {n: t for n, t in tensors.items() if n != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="the weights lack") as caught:
        load_model(str(tmp_path), home)
    assert caught.value.where == str(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot read"):
        load_model(str(tmp_path), home)


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ("cohere", {"logit_scale": 0.5}),
        ("gemma2", {"final_logit_softcapping": 5.0, "head_dim": 8}),
        ("gptj", {"rotary_dim": 4}),
    ],
)
def test_a_model_that_does_more_to_its_logits_is_refused(
    random_network: Callable[..., Any], tmp_path: Path, home: Path, other: str, changes: dict[str, Any]
) -> None:
    tiny_model.write_text_files(tmp_path)
    random_network(other, changes).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not the product") as caught:
        load_model(str(tmp_path), home, dtype="float32")
    assert caught.value.hint
    assert caught.value.where == str(tmp_path)


def test_a_model_without_keys_and_values_is_refused(
    random_network: Callable[..., Any], tmp_path: Path, home: Path
) -> None:
    tiny_model.write_text_files(tmp_path)
    random_network("mamba", {"state_size": 4, "n_positions": 64}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not work like") as caught:
        load_model(str(tmp_path), home, dtype="float32")
    assert caught.value.where == str(tmp_path)


def test_training_goes_on_after_generation(model: CausalModel) -> None:
    model.add_adapter("policy", AdapterShape(rank=2, alpha=4), seed=0)
    with model.using("policy"):
        complete(model, frozenset(), [Request(prompt_ids=[5, 6], max_tokens=3, seed=0)])
        logits(model).sum().backward()
    assert all(parameter.grad is not None for parameter in model.adapter_parameters("policy"))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="transformers") as caught:
        load_foreign(tmp_path, torch.float32, torch.device("cpu"))
    assert "tutelage[hub]" in caught.value.hint


def test_a_folder_that_transformers_does_not_know_is_refused(
    tiny_copy: Path, home: Path, change_config: Callable[..., None]
) -> None:
    change_config(tiny_copy, model_type="no_such_family")
    with pytest.raises(ModelError, match="cannot read") as caught:
        load_model(str(tiny_copy), home)
    assert caught.value.where == str(tiny_copy)

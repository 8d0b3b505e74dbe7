"""Adapters against PEFT's own: the same tensors give the same logits and gradients, and files go both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import ModelError
from tutelage.models import adapters
from tutelage.models.adapters import AdapterHost, AdapterShape, load_adapter, save_adapter
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel
from tutelage.models.transformer import Transformer, read_architecture, read_tensors

SHAPE = AdapterShape(rank=3, alpha=12)
TOKENS = torch.tensor([5, 17, 3, 44, 96, 8, 8, 21, 60])


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def logits(model: Transformer) -> Tensor:
    return model.logits(model.hidden(TOKENS, sequences([len(TOKENS)])))


def fill(model: AdapterHost, name: str, seed: int = 1) -> None:
    """Random B matrices: the adapter changes something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapter_parameters(name):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def read(folder: Path) -> Transformer:
    shape = read_architecture(folder)
    assert shape is not None
    return Transformer(shape, read_tensors(folder, torch.float32, torch.device("cpu")))


@pytest.fixture
def folder(pair: Callable[[str], Any]) -> Path:
    """A model with biases, head width of its own, grouped keys."""
    found: Path = pair("llama, untied, with biases").folder
    return found


@pytest.fixture
def model(folder: Path) -> Transformer:
    ours = read(folder)
    ours.add_adapter("policy", SHAPE, seed=7)
    fill(ours, "policy")
    return ours


def peft_model(folder: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True)


def test_peft_reads_our_adapter_and_computes_the_same(
    folder: Path, model: Transformer, tmp_path: Path
) -> None:
    save_adapter(model, "policy", tmp_path, base="somebody/a-model")
    theirs = peft_model(folder, tmp_path)
    with model.using("policy"):
        ours = logits(model)
    expected = theirs(TOKENS[None]).logits[0]
    close(ours, expected)

    weight = 0.05 * torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    (ours * weight).sum().backward()
    (expected * weight).sum().backward()
    gradients = {
        name.replace(".default", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if "lora_" in name
    }
    assert gradients.keys() == model.adapter_tensors("policy").keys()
    for layer in model.adapted_layers():
        low: Any = layer.adapters["policy"]
        for (part, _), a, b in zip(layer.parts, low.a.grad.chunk(len(low.b)), low.b, strict=True):
            close(a, gradients[f"base_model.model.{part}.lora_A.weight"])
            close(b.grad, gradients[f"base_model.model.{part}.lora_B.weight"])


def test_we_read_an_adapter_that_peft_saved(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(
        r=3, lora_alpha=12, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(base, config)
    theirs.save_pretrained(tmp_path)
    ours = read(folder)
    load_adapter(ours, "theirs", tmp_path)
    with torch.no_grad(), ours.using("theirs"):
        close(logits(ours), theirs(TOKENS[None]).logits[0])


def test_saving_and_loading_changes_nothing(folder: Path, model: Transformer, tmp_path: Path) -> None:
    save_adapter(model, "policy", tmp_path, base="x")
    again = read(folder)
    load_adapter(again, "copy", tmp_path)
    assert again.switch.shapes["copy"] == SHAPE
    saved, loaded = model.adapter_tensors("policy"), again.adapter_tensors("copy")
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


@torch.no_grad()
def test_a_merged_adapter_answers_like_an_unmerged_one(model: Transformer) -> None:
    bare = logits(model)
    with model.using("policy"):
        adapted = logits(model)
    assert (adapted - bare).abs().max() > 0.1
    model.merge_adapter("policy")
    close(logits(model), adapted)
    assert "policy" not in model.switch.shapes
    assert not list(model.parameters())


@torch.no_grad()
def test_a_new_adapter_changes_nothing_yet(model: Transformer) -> None:
    bare = logits(model)
    model.add_adapter("new", SHAPE, seed=0)
    with model.using("new"):
        assert torch.equal(logits(model), bare)


def test_the_seed_of_an_adapter_repeats_it(own_tiny: LoadedModel) -> None:
    model = own_tiny.model
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model.add_adapter(name, SHAPE, seed=seed)
    a, b, c = (model.adapter_parameters(name) for name in "abc")
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])


@torch.no_grad()
def test_adapters_of_one_base_do_not_touch_each_other(model: Transformer) -> None:
    with model.using("policy"):
        before = logits(model)
    model.copy_adapter("policy", "reference")
    fill(model, "policy", seed=2)
    with model.using("reference"):
        close(logits(model), before)
    with model.using("policy"):
        assert (logits(model) - before).abs().max() > 0.1
        with model.using(None):
            bare = logits(model)
        assert not torch.equal(logits(model), bare)
    model.copy_adapter("policy", "reference")
    with model.using("reference"):
        assert (logits(model) - before).abs().max() > 0.1


def test_an_unknown_adapter_is_named(model: Transformer) -> None:
    with pytest.raises(KeyError, match="sft"), model.using("sft"):
        pass
    assert model.switch.active is None


def test_the_adapter_is_put_back_after_an_error(model: Transformer) -> None:
    with pytest.raises(RuntimeError), model.using("policy"):
        raise RuntimeError
    assert model.switch.active is None


def _cut_off(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _no_object(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("[]")


def _fewer_layers(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[2:]), folder / "adapter_model.safetensors")


def _no_number(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0] = torch.nan
    save_file(tensors, folder / "adapter_model.safetensors")


def _config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_off, "cannot be read"),
        (_no_weights, "cannot be read"),
        (_no_object, "cannot be read"),
        (_fewer_layers, "does not fit"),
        (_no_number, "is no number"),
        (_config(r=4), "does not fit"),
        (_config(r=0), "cannot be read"),
        (_config(peft_type="IA3"), "peft_type"),
        (_config(use_rslora=True), "use_rslora"),
        (_config(use_dora=True), "use_dora"),
        (_config(rank_pattern={"q_proj": 8}), "rank_pattern"),
        (_config(modules_to_save=["lm_head"]), "modules_to_save"),
        (_config(bias="all"), "bias"),
    ],
)
def test_an_adapter_that_would_not_be_applied_as_trained_is_refused(
    model: Transformer, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_adapter(model, "policy", tmp_path, base="x")
    damage(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load_adapter(model, "broken", tmp_path)
    assert caught.value.hint
    assert caught.value.where == str(tmp_path)
    assert "broken" not in model.switch.shapes


def test_what_is_saved_is_on_the_disk(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run says that it is finished after its adapter: that must not come to the disk first."""
    synced: list[str] = []
    monkeypatch.setattr(adapters, "sync", lambda path: synced.append(path.name))
    save_adapter(model, "policy", tmp_path / "made", base="x")
    assert sorted(synced) == ["adapter_config.json", "adapter_model.safetensors", "made"]

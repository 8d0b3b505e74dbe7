"""Weights written back: transformers and this package read them and compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from tutelage.dialogue import Message
from tutelage.errors import ModelError, NotFound
from tutelage.models import saving
from tutelage.models import tiny as tiny_model
from tutelage.models.adapters import AdapterShape
from tutelage.models.interface import CausalModel
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel, load_model, load_version
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.registry import Registry

TOKENS = torch.tensor([5, 60, 7, 7, 33, 90])


@torch.no_grad()
def logits(model: CausalModel, adapter: str | None = None) -> Tensor:
    with model.using(adapter):
        return model.logits(model.hidden(TOKENS, sequences([len(TOKENS)])))


@torch.no_grad()
def their_logits(folder: Path) -> Tensor:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: Tensor = network(input_ids=TOKENS[None]).logits[0]
    return found


def adapt(model: CausalModel) -> None:
    """An adapter that changes something."""
    model.add_adapter("mine", AdapterShape(4, 8), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.adapter_parameters("mine"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize(
    "family",
    ["llama", "llama, untied, with biases", "llama 3 rope", "linear rope", "mistral", "qwen2", "qwen3"],
)
def test_transformers_reads_a_merged_model_of_every_family(
    pair: Callable[[str], Any], tmp_path: Path, home: Path, family: str
) -> None:
    source = pair(family).folder
    tiny_model_text(source)
    model = load_model(str(source), home, dtype="float32").model
    adapt(model)
    expected = logits(model, "mine")
    assert not torch.allclose(expected, logits(model), atol=1e-2)
    model.merge_adapter("mine")
    save_weights(model, tmp_path / "out", source)
    assert_close(their_logits(tmp_path / "out"), expected, atol=1e-4, rtol=1e-4)
    assert_close(logits(load_model(str(tmp_path / "out"), home, dtype="float32").model), logits(model))


@pytest.mark.parametrize(("family", "changes"), [("gpt2", {}), ("gpt_neox", {})])
def test_transformers_reads_a_merged_model_of_its_own(
    random_network: Callable[..., Any], tmp_path: Path, home: Path, family: str, changes: dict[str, Any]
) -> None:
    source = tmp_path / "source"
    random_network(family, changes).save_pretrained(source)
    tiny_model_text(source)
    model = load_model(str(source), home, dtype="float32").model
    adapt(model)
    model.merge_adapter("mine")
    expected = logits(model)
    save_weights(model, tmp_path / "out", source)
    assert_close(their_logits(tmp_path / "out"), expected, atol=1e-4, rtol=1e-4)
    assert_close(logits(load_model(str(tmp_path / "out"), home, dtype="float32").model), expected)


def tiny_model_text(folder: Path) -> None:
    """Give a folder a tokenizer, and leave its config."""
    config = (folder / "config.json").read_text()
    tiny_model.write_text_files(folder)
    (folder / "config.json").write_text(config)


def test_the_text_files_come_along_and_transformers_reads_them(
    tiny: LoadedModel, tiny_copy: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    save_weights(tiny.model, tmp_path / "out", tiny_copy)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    said = [{"role": "user", "content": "Ça va, 你好?"}]
    rendered = theirs.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert rendered == tiny.renderer.prompt([Message("user", "Ça va, 你好?")])
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_as_asked_and_named_in_the_config(
    tiny: LoadedModel, tiny_copy: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    save_weights(tiny.model, tmp_path / "out", tiny_copy, dtype=dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == str(dtype)[6:]


def test_what_cannot_be_written_leaves_the_older_folder(
    tiny: LoadedModel, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exports" / "out"
    save_weights(tiny.model, out, tiny_copy)
    before = (out / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(ModelError, match="No space left") as raised:
        save_weights(tiny.model, out, tiny_copy, dtype=torch.bfloat16)
    assert raised.value.where == str(out)
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_whole_model_is_published_served_and_trained_further(tmp_path: Path) -> None:
    tuned = load_model("tiny", tmp_path, dtype="float32")
    adapt(tuned.model)
    tuned.model.merge_adapter("mine")
    save_weights(tuned.model, tmp_path / "run" / "weights", locate("tiny", tmp_path))
    version = Registry(tmp_path).publish(kind="chat", model="tiny", weights=tmp_path / "run" / "weights")
    served = load_version(version, tmp_path, dtype="float32")
    assert torch.equal(logits(served.model), logits(tuned.model))
    assert locate(version.name, tmp_path) == version.weights
    base_of_the_next = load_model(version.name, tmp_path, dtype="float32")
    assert torch.equal(logits(base_of_the_next.model), logits(tuned.model))


def test_a_version_without_weights_of_its_own_is_no_base(tmp_path: Path) -> None:
    version = Registry(tmp_path).publish(kind="chat", model="tiny")
    with pytest.raises(ModelError, match="stands on tiny") as raised:
        locate(version.name, tmp_path)
    assert raised.value.hint == "name tiny as the model"
    with pytest.raises(NotFound, match="v7"):
        locate("v7", tmp_path)

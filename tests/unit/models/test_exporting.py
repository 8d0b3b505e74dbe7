"""Versions as files: what other programs load answers as the version does here; a folder is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import Conflict, InvalidRequest, ModelError
from tutelage.models import tiny
from tutelage.models.adapters import AdapterShape, save_adapter
from tutelage.models.bases import describe_base
from tutelage.models.exporting import ExportRequest, export_version
from tutelage.models.interface import CausalModel
from tutelage.models.layout import sequences
from tutelage.models.loading import load_model, load_version
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.registry import ModelVersion, Registry

TOKENS = torch.tensor([5, 60, 7, 7, 33, 90])


@torch.no_grad()
def logits(model: CausalModel) -> Tensor:
    return model.logits(model.hidden(TOKENS, sequences([len(TOKENS)])))


def publish(home: Path, folder: Path, *, kind: Any = "chat", model: str = "tiny") -> ModelVersion:
    """A version with an adapter that changes something."""
    loaded = load_model(model, home, dtype="float32").model
    loaded.add_adapter("mine", AdapterShape(4, 8), seed=1)
    with torch.no_grad():
        for parameter in loaded.adapter_parameters("mine"):
            parameter.add_(0.05)
    save_adapter(loaded, "mine", folder, base=model)
    return Registry(home).publish(kind=kind, model=model, files=folder, snapshot="abc", run="sft-0001")


@pytest.fixture(scope="module")
def version(home: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return publish(home, tmp_path_factory.mktemp("run") / "adapter")


def test_a_merged_folder_answers_as_the_version_does(
    version: ModelVersion, home: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    files = export_version(ExportRequest(version, "safetensors", "f32"), tmp_path / "out", home)
    expected = logits(load_version(version, home, dtype="float32").model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(theirs(input_ids=TOKENS[None]).logits[0], expected, atol=1e-4, rtol=1e-4)
    assert {path.name for path in files} >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert all(path.is_file() for path in files)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'library_name: "transformers"' in card
    assert "`abc`, which is no longer there" in card


def test_an_adapter_works_in_peft_and_names_its_base(
    version: ModelVersion, home: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_version(ExportRequest(version, "peft"), tmp_path / "out", home)
    base = AutoModelForCausalLM.from_pretrained(locate("tiny", home), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    expected = logits(load_version(version, home, dtype="float32").model)
    with torch.no_grad():
        assert_close(theirs(input_ids=TOKENS[None]).logits[0], expected, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == 2
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


def test_a_version_that_holds_all_weights_is_exported_from_them(
    version: ModelVersion, home: Path, tmp_path: Path
) -> None:
    tuned = load_version(version, home, dtype="float32").model
    save_weights(tuned, tmp_path / "weights", locate("tiny", home))
    whole = Registry(home).publish(kind="chat", model="tiny", weights=tmp_path / "weights")
    export_version(ExportRequest(whole, "safetensors", "f32"), tmp_path / "out", home)
    again = load_model(str(tmp_path / "out"), home, dtype="float32").model
    assert torch.equal(logits(again), logits(tuned))
    with pytest.raises(InvalidRequest, match="no adapter"):
        export_version(ExportRequest(whole, "peft"), tmp_path / "no", home)


def test_an_adapter_on_a_version_goes_out_merged_alone(
    version: ModelVersion, home: Path, tmp_path: Path
) -> None:
    save_weights(load_version(version, home).model, tmp_path / "weights", locate("tiny", home))
    base = Registry(home).publish(kind="chat", model="tiny", weights=tmp_path / "weights")
    above = publish(home, tmp_path / "adapter", model=base.name)
    with pytest.raises(InvalidRequest, match=f"stands on {base.name}") as raised:
        export_version(ExportRequest(above, "peft"), tmp_path / "no", home)
    assert "safetensors" in raised.value.hint
    export_version(ExportRequest(above, "safetensors", "f32"), tmp_path / "out", home)
    merged = load_model(str(tmp_path / "out"), home, dtype="float32").model
    assert_close(logits(merged), logits(load_version(above, home, dtype="float32").model))


@pytest.mark.parametrize(
    ("form", "kind", "message"),
    [("safetensors", "q8_0", "no type"), ("peft", "f16", "no type"), ("gguf", "q2_k", "no type")],
)
def test_a_type_that_a_form_does_not_have(
    version: ModelVersion, home: Path, tmp_path: Path, form: Any, kind: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as raised:
        export_version(ExportRequest(version, form, kind), tmp_path / "out", home)
    assert raised.value.hint
    assert not (tmp_path / "out").exists()


def test_a_reward_model_has_no_other_form_than_its_own(home: Path, tmp_path: Path) -> None:
    judge = publish(home, tmp_path / "adapter", kind="reward")
    with pytest.raises(InvalidRequest, match="reward model"):
        export_version(ExportRequest(judge, "gguf"), tmp_path / "out", home)
    export_version(ExportRequest(judge, "peft"), tmp_path / "out", home)
    assert "tutelage score" in (tmp_path / "out" / "README.md").read_text()


def test_nothing_is_written_over(version: ModelVersion, home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Conflict, match="something already") as raised:
        export_version(ExportRequest(version, "peft"), tmp_path / "out", home)
    assert raised.value.where == str(tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("form", ["peft", "safetensors"])
def test_a_full_disk_leaves_nothing(
    version: ModelVersion, home: Path, tmp_path: Path, files_of_at_most: Any, form: Any
) -> None:
    with files_of_at_most(10_000), pytest.raises(ModelError, match="cannot be written") as raised:
        export_version(ExportRequest(version, form), tmp_path / "exports" / "out", home)
    assert raised.value.where == str(tmp_path / "exports" / "out")
    assert "room" in raised.value.hint
    assert list((tmp_path / "exports").iterdir()) == []


def test_what_is_known_of_bases(home: Path, tmp_path: Path, version: ModelVersion) -> None:
    assert describe_base("builtin", home).name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    folder = tmp_path / "some-model"
    folder.mkdir()
    assert (describe_base(str(folder), home).name, describe_base(str(folder), home).licence) == (
        "some-model",
        None,
    )
    (folder / "README.md").write_text("---\nlanguage: [en]\nlicense: mit\n---\n# A model\nlicense: none")
    assert describe_base(str(folder), home).licence == "mit"
    (folder / "README.md").write_text("# A model\n\nlicense: gpl")
    assert describe_base(str(folder), home).licence is None
    assert describe_base("owner/never-fetched", home).licence is None
    above = describe_base(version.name, home)
    assert (above.name, above.licence) == ("tiny", "apache-2.0")
    assert version.name in above.remark


def test_a_gguf_file_holds_the_tuned_model(
    bpe_folder: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    version = publish(home, tmp_path / "adapter", model=str(bpe_folder()))
    _, file = export_version(ExportRequest(version, "gguf", "f32"), tmp_path / "out", home)
    assert file.name == f"source-{version.name}-f32.gguf"
    again = load_model(str(file), home, dtype="float32").model
    tuned = load_version(version, home, dtype="float32").model
    assert_close(logits(again), logits(tuned), atol=0.05, rtol=0.05)  # our reader keeps bf16
    assert f"llama-server -m {file.name}" in (tmp_path / "out" / "README.md").read_text()


def test_a_model_of_another_family_is_not_written_as_gguf(
    random_network: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gpt"
    folder.mkdir()
    tiny.write_text_files(folder)
    random_network("gpt2", {}).save_pretrained(folder)
    version = Registry(home).publish(kind="chat", model=str(folder))
    with pytest.raises(ModelError, match="not of the Llama family") as raised:
        export_version(ExportRequest(version, "gguf"), tmp_path / "out", home)
    assert "safetensors" in raised.value.hint

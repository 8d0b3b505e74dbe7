"""GGUF files that this package writes: its own reader, and llama.cpp where it is there, find the same model in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tutelage.dialogue import Message
from tutelage.errors import ModelError
from tutelage.models.gguf_writer import TYPES, write_gguf
from tutelage.models.loading import load_model
from tutelage.models.saving import family_weights
from tutelage.models.transformer import Transformer


def load(folder: Path, home: Path) -> Transformer:
    model = load_model(str(folder), home, dtype="float32").model
    assert isinstance(model, Transformer)
    return model


def export(folder: Path, target: Path, home: Path, *, kind: str = "f32") -> Path:
    write_gguf(load(folder, home), folder, target, kind=kind, name="mine v1", licence="apache-2.0")
    return target


@pytest.mark.parametrize(
    ("model_type", "family", "changes"),
    [
        ("llama", "smollm", {"tie_word_embeddings": True}),
        ("llama", "llama-bpe", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
        ("mistral", "gpt-2", {}),
        ("qwen2", "qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("qwen3", "qwen2", {"tie_word_embeddings": True}),
    ],
)
def test_the_reader_finds_the_weights_and_the_words_again(
    bpe_folder: Callable[..., Path],
    tmp_path: Path,
    home: Path,
    model_type: str,
    family: str,
    changes: dict[str, Any],
) -> None:
    source = bpe_folder(model_type, family, **changes)
    again = load_model(str(export(source, tmp_path / "out.gguf", home)), tmp_path, dtype="float32")
    assert isinstance(again.model, Transformer)
    written = family_weights(load(source, home), dtype=torch.bfloat16)  # the reader keeps bf16
    assert_close(family_weights(again.model, dtype=torch.bfloat16), written, atol=0, rtol=0)
    ours = load_model(str(source), home).renderer
    said = [
        Message("user", "<|im_end|>it's 12345"),
        Message("assistant", "der Fluß, 什么, élan — naïve\n\n  the end"),
    ]
    assert again.renderer.example(said) == ours.example(said)
    assert (again.renderer.stop_ids, again.renderer.pad_id) == (ours.stop_ids, ours.pad_id)


@pytest.mark.parametrize(("kind", "error"), [("f32", 0), ("f16", 1e-3), ("bf16", 4e-3), ("q8_0", 5e-3)])
def test_matrices_have_the_type_that_was_asked_for(
    bpe_folder: Callable[..., Path], tmp_path: Path, home: Path, kind: str, error: float
) -> None:
    source = bpe_folder(intermediate_size=80)
    weights = family_weights(load(source, home))
    found = {t.name: t for t in gguf.GGUFReader(export(source, tmp_path / "out", home, kind=kind)).tensors}
    assert {t.tensor_type.name for t in found.values() if t.name.endswith("norm.weight")} == {"F32"}
    assert found["blk.0.attn_v.weight"].tensor_type == TYPES[kind][0]
    # 80 columns are no whole number of Q8_0's blocks of 32.
    assert found["blk.0.ffn_down.weight"].tensor_type.name == ("F16" if kind == "q8_0" else kind.upper())
    for ours, theirs in (("self_attn.v_proj", "attn_v"), ("mlp.down_proj", "ffn_down")):
        tensor = found[f"blk.1.{theirs}.weight"]
        expected = weights[f"model.layers.1.{ours}.weight"].numpy()
        read = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.abs(read - expected).max() <= error * np.abs(expected).max()


def test_llama_3s_rotary_scaling_comes_as_factors(
    bpe_folder: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    reader = gguf.GGUFReader(export(bpe_folder(rope_parameters=rope), tmp_path / "out", home))
    factors = next(t for t in reader.tensors if t.name == "rope_freqs.weight").data
    assert_close(torch.tensor(factors[[0, -1]]), torch.tensor([1.0, 8.0]))
    assert (np.diff(factors) >= -1e-6).all()


def test_what_the_file_says_of_itself(bpe_folder: Callable[..., Path], tmp_path: Path, home: Path) -> None:
    fields = gguf.GGUFReader(export(bpe_folder(), tmp_path / "out", home, kind="q8_0")).fields
    said = {key: fields[key].contents() for key in ("general.name", "general.license", "general.file_type")}
    assert said == {"general.name": "mine v1", "general.license": "apache-2.0", "general.file_type": 7}
    assert (
        fields["tokenizer.ggml.padding_token_id"].contents()
        != fields["tokenizer.ggml.eos_token_id"].contents()
    )


def test_every_end_token_comes_along(bpe_folder: Callable[..., Path], tmp_path: Path, home: Path) -> None:
    source = bpe_folder()
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    again = load_model(str(export(source, tmp_path / "out.gguf", home)), tmp_path)
    assert again.renderer.stop_ids == {1, 2}


def unknown_steps(raw: dict[str, Any]) -> None:
    raw["pre_tokenizer"] = {"type": "Whitespace"}


def no_merges(raw: dict[str, Any]) -> None:
    raw["model"]["merges"] = []


@pytest.mark.parametrize("change", [unknown_steps, no_merges])
def test_a_tokenizer_that_gguf_cannot_hold_is_refused(
    bpe_folder: Callable[..., Path], tmp_path: Path, home: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    source = bpe_folder()
    raw = json.loads((source / "tokenizer.json").read_text())
    change(raw)
    (source / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="no form for the model's tokenizer") as raised:
        export(source, tmp_path / "out", home)
    assert raised.value.where == str(source)
    assert "safetensors" in raised.value.hint
    assert not (tmp_path / "out").exists()

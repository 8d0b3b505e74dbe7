"""GGUF files written by the gguf package's own writer, read back as model folders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tutelage.errors import ModelError
from tutelage.models import tiny as tiny_model
from tutelage.models.gguf_reader import convert
from tutelage.models.layout import sequences
from tutelage.models.loading import load_model

Change = Callable[[dict[str, Any], dict[str, np.ndarray[Any, Any]]], None]
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in OUTER:
        return f"{OUTER[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{INNER[part]}.{kind}"


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The order in which GGUF keeps the rows of Llama's queries and keys."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model: Path, target: Path, change: Change = lambda meta, tensors: None) -> Path:
    """Write a folder's model as GGUF; `change` may tamper with entries and tensors before."""
    config = json.loads((model / "config.json").read_text())
    family = config["model_type"]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        theirs = gguf_name(name)
        part = theirs.split(".")[-2]
        values = tensor.float().numpy()
        tensors[theirs] = permuted(values, heads[part]) if family == "llama" and part in heads else values
    rope = config.get("rope_parameters") or config
    meta = {
        "general.architecture": family,
        f"{family}.block_count": config["num_hidden_layers"],
        f"{family}.context_length": config["max_position_embeddings"],
        f"{family}.embedding_length": config["hidden_size"],
        f"{family}.feed_forward_length": config["intermediate_size"],
        f"{family}.attention.head_count": config["num_attention_heads"],
        f"{family}.attention.head_count_kv": config["num_key_value_heads"],
        f"{family}.attention.key_length": config.get("head_dim")
        or config["hidden_size"] // config["num_attention_heads"],
        f"{family}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{family}.rope.freq_base": float(rope["rope_theta"]),
        **text_entries(config["vocab_size"]),
    }
    change(meta, tensors)
    writer = gguf.GGUFWriter(target, meta.pop("general.architecture"))
    for key, value in meta.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
        add.get(type(value), writer.add_array)(key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def text_entries(vocabulary: int) -> dict[str, Any]:
    known = json.loads(tiny_model.tokenizer_json())["model"]["vocab"]
    tokens = [*sorted(known, key=known.__getitem__), "hi"]
    tokens += [f"[PAD{index}]" for index in range(len(tokens), vocabulary)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (vocabulary - 3)],
        "tokenizer.ggml.merges": ["h i"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": tiny_model.CHAT_TEMPLATE,
    }


@pytest.mark.parametrize("family", ["tiny", "llama, untied, with biases", "qwen2", "qwen3"])
@torch.no_grad()
def test_a_converted_model_gives_the_same_logits(
    pair: Callable[[str], Any], tiny_copy: Path, tmp_path_factory: pytest.TempPathFactory, family: str
) -> None:
    original = tiny_copy if family == "tiny" else pair(family).folder
    files = tmp_path_factory.mktemp("gguf")
    source = write_gguf(original, files / "model.gguf")
    (files / "converted").mkdir()
    convert(source, files / "converted")
    # The converted weights are bf16: compare with the original rounded the same way.
    tiny_model.write_text_files(files)
    (files / "config.json").write_text((original / "config.json").read_text())
    rounded = {n: t.bfloat16() for n, t in load_file(original / "model.safetensors").items()}
    save_file(rounded, files / "model.safetensors")
    token_ids = torch.tensor([5, 60, 7, 7, 33, 90])
    layout = sequences([6])
    expected, found = (
        loaded.logits(loaded.hidden(token_ids, layout))
        for loaded in (load_model(str(f), files, dtype="float32").model for f in (files, files / "converted"))
    )
    assert expected.std() > 0.05
    assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_text_of_a_converted_model(tiny_copy: Path, tmp_path: Path, home: Path) -> None:
    loaded = load_model(str(write_gguf(tiny_copy, tmp_path / "model.gguf")), home)
    assert loaded.renderer.stop_ids == {1, 2}
    assert loaded.renderer.pad_id == 0
    assert loaded.renderer.completion("hihi") == [259, 259]
    assert loaded.renderer.decode(loaded.renderer.completion("élan 什么 123")) == "élan 什么 123"
    assert loaded.renderer.tokenizer.encode("<|im_end|>", special=True) == [2]


def without(key: str) -> Change:
    return lambda meta, tensors: meta.pop(key)


def entry(key: str, value: object) -> Change:
    return lambda meta, tensors: meta.update({key: value})


def tensor(name: str) -> Change:
    return lambda meta, tensors: tensors.update({name: np.ones(4, dtype=np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry("general.architecture", "gemma3"), "architecture"),
        (entry("tokenizer.ggml.model", "llama"), "tokenizer"),
        (entry("tokenizer.ggml.pre", "tekken"), "'tekken'"),
        (without("tokenizer.chat_template"), "no chat template"),
        (without("tokenizer.ggml.eos_token_id"), "eos_token_id"),
        (without("llama.block_count"), "block_count"),
        (entry("llama.rope.scaling.type", "yarn"), "rotary"),
        (tensor("rope_freqs.weight"), "rope_freqs"),
        (tensor("blk.0.ffn_gate_exps.weight"), "ffn_gate_exps"),
    ],
)
def test_what_cannot_be_read_right_is_refused(
    tiny_copy: Path, tmp_path: Path, change: Change, message: str
) -> None:
    source = write_gguf(tiny_copy, tmp_path / "model.gguf", change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(source), tmp_path / "home")
    assert caught.value.where == str(source)
    assert caught.value.hint
    assert not list((tmp_path / "home" / "models").iterdir())


@pytest.mark.parametrize("kept", [0, 3, 100, 20000, 100000])
def test_a_file_that_is_cut_off_or_no_gguf_is_refused(tiny_copy: Path, tmp_path: Path, kept: int) -> None:
    source = write_gguf(tiny_copy, tmp_path / "model.gguf")
    source.write_bytes(source.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a readable GGUF") as caught:
        load_model(str(source), tmp_path / "home")
    assert caught.value.hint
    source.write_text("once upon a time, in a file that is no model")
    with pytest.raises(ModelError, match="not a readable GGUF"):
        load_model(str(source), tmp_path / "home")


@given(place=st.integers(0, 9000), byte=st.integers(0, 255), kept=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_refused_or_read_never_tripped_over(
    damaged: Path, place: int, byte: int, kept: float
) -> None:
    content = bytearray((damaged / "model.gguf").read_bytes())
    content[place] = byte
    (damaged / "other.gguf").write_bytes(content if kept > 0.5 else content[: int(2 * kept * len(content))])
    with tempfile.TemporaryDirectory() as folder, suppress(ModelError):
        convert(damaged / "other.gguf", Path(folder))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    tiny_model.write(folder)
    write_gguf(folder, folder / "model.gguf")
    return folder

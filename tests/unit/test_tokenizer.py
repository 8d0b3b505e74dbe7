"""Reading a model folder's text files, whole and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import ModelError
from tutelage.models import tiny
from tutelage.tokenizer import HuggingFaceTokenizer, load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_text_files(tmp_path)
    return tmp_path


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    kept = {key: value for key, value in {**content, **changes}.items() if value is not None}
    path.write_text(json.dumps(kept))


def test_tiny(folder: Path) -> None:
    read = load_tokenizer(folder)
    assert read.stop_ids == {2}
    assert read.pad_id == 0
    assert read.vocabulary == 259
    assert read.special_tokens["eos_token"] == "<|im_end|>"


def test_special_tokens_are_read_only_where_they_are_asked_for(folder: Path) -> None:
    tokenizer = load_tokenizer(folder).tokenizer
    assert tokenizer.encode("<|im_end|>", special=True) == [2]
    assert len(tokenizer.encode("<|im_end|>", special=False)) == len("<|im_end|>")


def test_truncation_and_padding_of_the_file_are_switched_off(folder: Path) -> None:
    change(
        folder / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|pad|>",
        },
    )
    tokenizer = load_tokenizer(folder).tokenizer
    assert len(tokenizer.encode("hello", special=True)) == 5


def test_every_file_may_name_end_tokens(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[2, 1])
    change(folder / "config.json", eos_token_id=7)
    read = load_tokenizer(folder)
    assert read.stop_ids == {1, 2, 7}
    assert read.pad_id == 0


def test_a_model_that_pads_with_its_end_token_gets_another(folder: Path) -> None:
    change(folder / "tokenizer_config.json", pad_token="<|im_end|>")
    assert load_tokenizer(folder).pad_id == 0


def test_a_model_whose_special_tokens_all_end_answers_is_refused(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[0, 1, 2])
    with pytest.raises(ModelError, match="pads with its end token"):
        load_tokenizer(folder)


def test_the_end_token_may_stand_in_the_tokenizers_config_alone(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token={"content": "<|im_start|>", "special": True})
    assert load_tokenizer(folder).stop_ids == {1}


def test_a_template_may_be_a_file_or_one_of_several(folder: Path) -> None:
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    change(folder / "tokenizer_config.json", chat_template=several)
    assert load_tokenizer(folder).chat_template == "b"
    (folder / "chat_template.jinja").write_text("c")
    assert load_tokenizer(folder).chat_template == "c"


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _no_object(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


def _no_tokenizer_inside(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}')


def _binary(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe")


def _no_template(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template=None)


def _nameless_templates(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template=[{"template": "a"}, "b"])


def _binary_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")


def _no_end_token(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token=None)


@pytest.mark.parametrize(
    "damage",
    [
        _no_tokenizer,
        _broken_json,
        _no_object,
        _no_tokenizer_inside,
        _binary,
        _no_template,
        _nameless_templates,
        _binary_template,
        _no_end_token,
    ],
)
def test_a_broken_folder_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    assert str(folder) in caught.value.where
    assert caught.value.hint


@given(st.text(max_size=40))
def test_the_bytes_of_its_tokens_are_the_bytes_of_a_text(text: str) -> None:
    tokenizer = HuggingFaceTokenizer(tiny.tokenizer_json())
    ids = tokenizer.encode(text, special=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


def test_special_tokens_have_the_bytes_that_spell_them(folder: Path) -> None:
    tokenizer = load_tokenizer(folder).tokenizer
    assert tokenizer.token_bytes(2) == b"<|im_end|>"
    assert tokenizer.token_bytes(10_000) == b""


def test_tokenizers_that_are_not_byte_level_spell_bytes_and_spaces_out() -> None:
    vocabulary = {"<unk>": 0, "\u2581caf": 1, "<0xC3>": 2, "<0xA9>": 3}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": True, "unk_token": "<unk>"}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    tokenizer = HuggingFaceTokenizer(json.dumps({"version": "1.0", "model": model, "decoder": decoder}))
    assert b"".join(map(tokenizer.token_bytes, (1, 2, 3))).decode() == " café"

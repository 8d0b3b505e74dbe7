from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tutelage.errors import ModelError
from tutelage.models import loading
from tutelage.models.loading import load_model


def test_the_dtype_can_be_chosen(home: Path) -> None:
    assert load_model("tiny", home, dtype="bfloat16").model.embedding.dtype == torch.bfloat16
    assert load_model("tiny", home, dtype="float32").model.embedding.dtype == torch.float32


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_taken_where_the_machine_is_fast_at_it(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: fast)
    assert load_model(str(tiny_copy), tiny_copy).model.embedding.dtype == expected


def test_tiny_itself_stays_in_fp32(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: True)
    assert load_model("tiny", home).model.embedding.dtype == torch.float32


def test_the_name_is_kept(tiny: loading.LoadedModel, tiny_copy: Path) -> None:
    assert tiny.name == "tiny"
    assert load_model(str(tiny_copy), tiny_copy).name == str(tiny_copy)


def test_a_config_of_no_kind_is_refused(tiny_copy: Path, change_config: Callable[..., None]) -> None:
    change_config(tiny_copy, model_type=None)
    with pytest.raises(ModelError, match="model_type") as caught:
        load_model(str(tiny_copy), tiny_copy)
    assert caught.value.where == str(tiny_copy / "config.json")

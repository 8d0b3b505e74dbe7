"""Versions side by side: each speaks for itself, whatever it stands on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.datasets.prompts import Prompt
from tutelage.dialogue import Dialogue
from tutelage.evaluation.answers import Judges, Terms, answer_all
from tutelage.models.adapters import load_adapter
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.registry import Registry


def test_a_version_with_weights_of_its_own_answers_with_them(
    home: Path, prompts: list[Dialogue], stages: tuple[Path, Path], tmp_path: Path
) -> None:
    """The SFT adapter folded into a model of its own says the same, and the same words get the same reward."""
    loaded = load_model("tiny", home)
    load_adapter(loaded.model, "sft", stages[0])
    loaded.model.merge_adapter("sft")
    save_weights(loaded.model, tmp_path / "weights", locate("tiny", home))
    version = Registry(tmp_path).publish(kind="chat", model="tiny", weights=tmp_path / "weights")
    asked = [Prompt(loaded.renderer.prompt(each.messages), each.messages) for each in prompts[:6]]
    found = answer_all(
        "tiny",
        home,
        asked,
        {"before": version, "sft": stages[0], "bare": None},
        judges=Judges(stages[1], stages[1]),
        terms=Terms(max_new_tokens=8, seed=0),
    )
    before, sft, bare = (found[name] for name in ("before", "sft", "bare"))
    assert (before.texts, before.ended) == (sft.texts, sft.ended)
    same = [index for index in range(6) if before.lengths[index] == sft.lengths[index]]
    assert len(same) > 3, "special tokens that were drawn are no words"
    assert [before.judged[i] for i in same] == pytest.approx([sft.judged[i] for i in same], abs=1e-3)
    assert before.texts != bare.texts

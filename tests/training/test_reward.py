"""The reward model: one score whatever stands beside it, and the taste it was shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tutelage.datasets.preference import completion_ids, render_comparisons
from tutelage.dialogue import Comparison, Message
from tutelage.errors import DataError, ModelError
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import load_model
from tutelage.training.metrics import Run
from tutelage.training.reward import (
    ADAPTER,
    RewardConfig,
    accumulate_gradients,
    score_examples,
    train_reward,
)
from tutelage.training.reward_model import RewardModel, ValueModel, load_reward_model, score_completions

CONFIG = RewardConfig(
    model="tiny", batch_tokens=300, learning_rate=5e-3, head_learning_rate=1e-2, held_out=0.25
)


def test_a_score_does_not_depend_on_its_batch(home: Path, comparisons: list[Comparison]) -> None:
    loaded = load_model("tiny", home)
    loaded.model.add_adapter(ADAPTER, AdapterShape(), seed=0)
    head = ScalarHead(loaded.model.width, seed=0)
    examples = render_comparisons(comparisons, loaded.renderer, max_tokens=200).rendered
    together = torch.cat(score_examples(loaded.model, head, examples, 10_000))
    apart = torch.cat(score_examples(loaded.model, head, examples, 1))
    pairs = [(example.prompt_ids, ids) for example in examples for ids in example.completions]
    judge = RewardModel((ValueModel(ADAPTER, head),))
    singly = score_completions(loaded.model, judge, pairs, 50)[:, 0]
    assert torch.allclose(together, apart, atol=1e-4)
    assert torch.allclose(together, singly, atol=1e-4)


def test_accumulated_equals_whole(home: Path, comparisons: list[Comparison]) -> None:
    losses, gradients = [], []
    for micro_tokens in (10_000, 1):
        loaded = load_model("tiny", home)
        loaded.model.add_adapter(ADAPTER, AdapterShape(4, 8), seed=0)
        head = ScalarHead(loaded.model.width, seed=0)
        examples = render_comparisons(comparisons[:5], loaded.renderer, max_tokens=200).rendered
        losses.append(accumulate_gradients(loaded.model, head, examples, micro_tokens)[0])
        gradients.append(
            [p.grad for p in [*loaded.model.adapter_parameters(ADAPTER), head.weight] if p.grad is not None]
        )
    assert abs(losses[0] - losses[1]) < 1e-5
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_it_learns_the_taste_and_is_loaded_as_it_was(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    run = Run.open(tmp_path / "run", "reward", CONFIG.model_dump(), resume=False)
    evaluation = train_reward(CONFIG.model_copy(update={"seed": 0}), comparisons * 8, run, home)["evaluation"]
    assert evaluation["held_out_accuracy"]["value"] > 0.9
    assert evaluation["by_source"]["made"] == evaluation["held_out_accuracy"]
    assert set(evaluation["by_rank_gap"]) == {"1", "2"}
    assert evaluation["length_baseline"]["value"] == 0.0

    loaded = load_model("tiny", home)
    judge = load_reward_model(loaded.model, run.folder / "adapter")
    prompt = loaded.renderer.prompt([Message("user", "say gnu")])
    answers = [completion_ids(text, loaded.renderer) for text in ("b", "a" * 9)]
    short, long = score_completions(loaded.model, judge, [(prompt, ids) for ids in answers])[:, 0]
    assert short > long


def test_a_chat_version_is_no_reward_model(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_reward_model(load_model("tiny", home).model, tmp_path)


def test_no_comparisons_is_said_plainly(home: Path, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", "reward", CONFIG.model_dump(), resume=False)
    with pytest.raises(DataError, match="no comparison"):
        train_reward(CONFIG, [], run, home)

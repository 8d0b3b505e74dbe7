"""Supervised fine-tuning: equal however it is cut, learning what it should and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tutelage.dialogue import Dialogue
from tutelage.errors import DataError
from tutelage.models.adapters import AdapterShape
from tutelage.models.loading import load_model
from tutelage.rendering import Rendered
from tutelage.training.metrics import Run
from tutelage.training.sft import ADAPTER, SFTConfig, accumulate_gradients, held_out_loss, train_sft


def gradients(home: Path, examples: list[Rendered], micro_tokens: int) -> tuple[float, list[torch.Tensor]]:
    model = load_model("tiny", home).model
    model.add_adapter(ADAPTER, AdapterShape(4, 8), seed=0)
    with torch.no_grad():  # B is zero in a new adapter, and then A has no gradient
        for index, parameter in enumerate(model.adapter_parameters(ADAPTER)):
            parameter.add_(0.01 * (1 + index % 3))
    loss, _ = accumulate_gradients(model, examples, micro_tokens)
    return loss, [
        parameter.grad for parameter in model.adapter_parameters(ADAPTER) if parameter.grad is not None
    ]


@pytest.fixture(scope="module")
def examples(home: Path, demonstrations: list[Dialogue]) -> list[Rendered]:
    renderer = load_model("tiny", home).renderer
    return [renderer.example(dialogue.messages) for dialogue in demonstrations[:8]]


def test_accumulated_equals_whole(home: Path, examples: list[Rendered]) -> None:
    """Eight micro-batches of one give the loss and gradient of one of eight, though their lengths differ."""
    whole_loss, whole = gradients(home, examples, 10_000)
    cut_loss, cut = gradients(home, examples, 1)
    assert abs(whole_loss - cut_loss) < 1e-5
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, cut, strict=True))


def test_a_packed_neighbour_changes_nothing(home: Path, examples: list[Rendered]) -> None:
    model = load_model("tiny", home).model
    model.add_adapter(ADAPTER, AdapterShape(), seed=0)
    together = held_out_loss(model, examples, 10_000)
    apart = held_out_loss(model, examples, 1)
    assert together is not None
    assert apart is not None
    assert abs(together - apart) < 1e-5


def test_prompt_tokens_do_not_train(home: Path, examples: list[Rendered]) -> None:
    silent = [Rendered(example.token_ids, [False] * len(example.token_ids)) for example in examples]
    spoken = [examples[0], *silent[1:]]
    _, alone = gradients(home, [examples[0]], 10_000)
    _, among = gradients(home, spoken, 10_000)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, among, strict=True))


def test_it_learns_and_a_finished_run_is_not_run_again(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    config = SFTConfig(model="tiny", epochs=30, batch_tokens=200, learning_rate=1e-2, rank=16, held_out=0.2)
    run = Run.open(tmp_path / "run", "sft", config.model_dump(), resume=False)
    evaluation = train_sft(config, demonstrations, run, home)["evaluation"]
    assert evaluation["held_out_loss"] < 0.75 * evaluation["held_out_loss_before"]
    assert evaluation["dialogues"] + evaluation["held_out"] == len(demonstrations)
    before = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert train_sft(config, [], run, home)["evaluation"] == evaluation
    after = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_demonstrations_is_said_plainly(home: Path, tmp_path: Path) -> None:
    config = SFTConfig(model="tiny")
    run = Run.open(tmp_path / "run", "sft", config.model_dump(), resume=False)
    with pytest.raises(DataError, match="no demonstration") as raised:
        train_sft(config, [], run, home)
    assert "import" in raised.value.hint

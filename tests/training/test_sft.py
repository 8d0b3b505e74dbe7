"""Supervised fine-tuning: equal however it is cut, learning what it should and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from tutelage.dialogue import Dialogue, Message
from tutelage.errors import DataError
from tutelage.models.adapters import AdapterShape
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.rendering import Rendered, load_renderer
from tutelage.training import sft
from tutelage.training.flat import flatten
from tutelage.training.metrics import Run
from tutelage.training.sft import (
    ADAPTER,
    SFTConfig,
    accumulate_gradients,
    held_out_loss,
    prepare_sft,
    train_sft,
)
from tutelage.training.weights import Weights, new_adapter, whole_model


def gradients(home: Path, examples: list[Rendered], micro_tokens: int) -> tuple[float, list[torch.Tensor]]:
    weights = new_adapter(load_model("tiny", home).model, ADAPTER, AdapterShape(4, 8), seed=0)
    with torch.no_grad():  # B is zero in a new adapter, and then A has no gradient
        for index, parameter in enumerate(weights.parameters):
            parameter.add_(0.01 * (1 + index % 3))
    loss, _ = accumulate_gradients(weights, examples, micro_tokens)
    return loss, [parameter.grad for parameter in weights.parameters if parameter.grad is not None]


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
    weights = new_adapter(load_model("tiny", home).model, ADAPTER, AdapterShape(), seed=0)
    together = held_out_loss(weights, examples, 10_000)
    apart = held_out_loss(weights, examples, 1)
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


def test_every_epoch_shows_every_dialogue_in_an_order_of_its_own(
    home: Path, demonstrations: list[Dialogue]
) -> None:
    config = SFTConfig(model="tiny", epochs=2, batch_tokens=60, held_out=0.0)
    steps = prepare_sft(config, demonstrations, load_renderer(locate("tiny", home))).steps
    epochs = steps[: len(steps) // 2], steps[len(steps) // 2 :]
    for epoch in epochs:
        assert sorted(index for batch in epoch for index in batch) == list(range(len(demonstrations)))
    assert epochs[0] != epochs[1]


def test_what_is_too_long_is_counted_on_both_sides(home: Path, demonstrations: list[Dialogue]) -> None:
    long = [
        Dialogue((Message("user", f"{number}" * 2000), Message("assistant", "no"))) for number in range(12)
    ]
    config = SFTConfig(model="tiny", held_out=0.5)
    data = prepare_sft(config, [*demonstrations, *long], load_renderer(locate("tiny", home)))
    assert data.train.left_out
    assert data.held_out.left_out
    assert data.summary()["left_out"] == len(long)


def test_a_run_recomputes_layers_where_its_recipe_says_so(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def look(weights: Weights, *rest: object) -> tuple[float, int]:
        seen.append(weights.model.recompute)
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "accumulate_gradients", look)
    for recompute in (True, False):
        config = SFTConfig(model="tiny", recompute=recompute, held_out=0.0)
        run = Run.open(tmp_path / str(recompute), "sft", config.model_dump(), resume=False)
        with pytest.raises(KeyboardInterrupt):
            train_sft(config, demonstrations, run, home)
    assert seen == [True, False]


@pytest.mark.parametrize("full", [False, True])
def test_recomputed_layers_give_the_same_gradients(home: Path, examples: list[Rendered], full: bool) -> None:
    found = []
    for recompute in (False, True):
        model = load_model("tiny", home).model
        model.recompute = recompute
        weights = whole_model(model) if full else new_adapter(model, ADAPTER, AdapterShape(), seed=0)
        accumulate_gradients(weights, examples, 10_000)
        found.append([parameter.grad for parameter in weights.parameters])
    for kept, again in zip(*found, strict=True):
        assert kept is not None
        assert again is not None
        assert torch.equal(kept, again)


def test_all_weights_get_the_gradients_that_autograd_gives(home: Path, examples: list[Rendered]) -> None:
    """Against logits in one piece, and the embedding that is the head too."""
    weights = whole_model(load_model("tiny", home).model)
    model, parameters = weights.model, weights.parameters
    accumulate_gradients(weights, examples[:2], 10_000)
    ours = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    batch = flatten(examples[:2], model.device)
    states = model.hidden(batch.token_ids, batch.layout)[batch.scored]
    cross_entropy(model.logits(states), batch.targets).backward()
    assert len(parameters) == len({id(parameter) for parameter in parameters}) > 10
    for mine, parameter in zip(ours, parameters, strict=True):
        assert mine is not None
        assert parameter.grad is not None
        torch.testing.assert_close(mine, parameter.grad, atol=1e-6, rtol=1e-4)


def test_a_whole_model_is_trained_saved_and_loaded(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    config = SFTConfig(model="tiny", full=True, epochs=10, batch_tokens=200, learning_rate=1e-2, held_out=0.2)
    run = Run.open(tmp_path / "run", "sft", config.model_dump(), resume=False)
    evaluation = train_sft(config, demonstrations, run, home)["evaluation"]
    assert evaluation["held_out_loss"] < 0.75 * evaluation["held_out_loss_before"]
    assert not (run.folder / "adapter").exists()
    saved = load_model(str(run.folder / "weights"), home)
    data = prepare_sft(config, demonstrations, saved.renderer)
    again = held_out_loss(Weights(saved.model, None, []), data.held_out.rendered, config.micro_tokens)
    assert again == pytest.approx(
        evaluation["held_out_loss"], abs=0.02 if saved.model.dtype == torch.bfloat16 else 1e-5
    )


def test_a_whole_model_resumes_where_it_was(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SFTConfig(model="tiny", full=True, max_steps=6, batch_tokens=200, checkpoint_every=2)
    through = Run.open(tmp_path / "through", "sft", config.model_dump(), resume=False)
    train_sft(config, demonstrations, through, home)

    def stop_at_four(self: Run, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    cut = Run.open(tmp_path / "cut", "sft", config.model_dump(), resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            train_sft(config, demonstrations, cut, home)
    train_sft(config, demonstrations, cut, home)
    whole, resumed = (load_file(run.folder / "weights" / "model.safetensors") for run in (through, cut))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

"""DPO: its loss by hand, equal however it is cut, learning the taste it was shown, and resumed to the bit."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tutelage.datasets.preference import PreferenceExample, render_comparisons
from tutelage.dialogue import Comparison
from tutelage.errors import ConfigError, ModelError
from tutelage.models.adapters import AdapterShape
from tutelage.models.layout import sequences
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.rendering import load_renderer
from tutelage.training import dpo
from tutelage.training.agreement import Accuracy, margins, pair_accuracy
from tutelage.training.checkpoints import State, save
from tutelage.training.dpo import (
    POLICY,
    DPOConfig,
    accumulate_gradients,
    completion_places,
    likelihoods,
    prepare_dpo,
    train_dpo,
)
from tutelage.training.metrics import Run
from tutelage.training.weights import Weights, adapter_weights, new_adapter

CONFIG = DPOConfig(
    model="tiny", batch_tokens=300, learning_rate=2e-3, held_out=0.25, checkpoint_every=2, beta=0.3
)


@pytest.fixture
def policy(home: Path) -> Weights:
    model = load_model("tiny", home).model
    model.add_adapter(POLICY, AdapterShape(4, 8), seed=1)
    with torch.no_grad():
        for parameter in model.adapter_parameters(POLICY):
            parameter.add_(0.02)
    return adapter_weights(model, POLICY)


@pytest.fixture
def reference(policy: Weights) -> Weights:
    policy.model.add_adapter("sft", AdapterShape(4, 8), seed=0)
    return adapter_weights(policy.model, "sft")


@pytest.fixture
def examples(home: Path, comparisons: list[Comparison]) -> list[PreferenceExample]:
    renderer = load_renderer(locate("tiny", home))
    return render_comparisons(comparisons[:5], renderer, max_tokens=200).rendered


def test_places_of_a_tree() -> None:
    example = PreferenceExample([7, 8], [[1, 2, 3], [4]], (), "made", "root")
    assert completion_places([example, example]) == (
        [2, 3, 4, 5, 8, 9, 10, 11],
        [1, 2, 3, 1, 7, 8, 9, 7],
        [3, 1, 3, 1],
    )


def test_a_completion_is_as_likely_in_a_tree_as_alone(
    policy: Weights, examples: list[PreferenceExample]
) -> None:
    found = likelihoods(policy, examples, 10_000)
    one = examples[2]
    for index, completion in enumerate(one.completions):
        ids = torch.tensor([*one.prompt_ids, *completion])
        with torch.no_grad(), policy.active():
            logs = (
                policy.model.logits(policy.model.hidden(ids, sequences([len(ids)]))).float().log_softmax(-1)
            )
        alone = sum(float(logs[place - 1, ids[place]]) for place in range(len(one.prompt_ids), len(ids)))
        assert float(found[2][index]) == pytest.approx(alone, abs=1e-3)
    singly = likelihoods(policy, examples, 1)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, singly, strict=True))


def test_the_loss_is_that_of_the_paper(
    policy: Weights, reference: Weights, examples: list[PreferenceExample]
) -> None:
    chosen = list(zip(examples, likelihoods(reference, examples, 10_000), strict=True))
    found = likelihoods(policy, examples, 10_000)
    expected = 0.0
    for (example, old), new in zip(chosen, found, strict=True):
        rewards = (0.3 * (new - old)).tolist()
        losses = []
        for pair in example.preferences:
            margin = rewards[pair.better] - rewards[pair.worse]
            right, wrong = -math.log(1 / (1 + math.exp(-margin))), -math.log(1 / (1 + math.exp(margin)))
            losses.append((right + wrong) / 2 if pair.tie else right)
        expected += sum(losses) / len(losses) / len(examples)
    gradients = []
    for micro_tokens in (10_000, 1):
        loss, _ = accumulate_gradients(policy, chosen, beta=0.3, micro_tokens=micro_tokens)
        assert loss == pytest.approx(expected, abs=1e-4)
        gradients.append([parameter.grad for parameter in policy.parameters])
        for parameter in policy.parameters:
            parameter.grad = None
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients, strict=True))
    assert all(parameter.grad is None for parameter in reference.parameters)


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
def test_it_learns_the_taste_and_goes_on_where_it_stopped(
    home: Path,
    comparisons: list[Comparison],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
) -> None:
    config = CONFIG.model_copy(update={"full": True, "learning_rate": 5e-4} if full else {})
    judged: list[list[torch.Tensor]] = []

    def spy(examples: list[PreferenceExample], rewards: list[torch.Tensor], *, seed: int) -> Accuracy:
        judged.append(rewards)
        return pair_accuracy(examples, rewards, seed=seed)

    monkeypatch.setattr(dpo, "pair_accuracy", spy)
    straight = Run.open(tmp_path / "straight", "dpo", config.model_dump(), resume=False)
    evaluation = train_dpo(config, comparisons * 3, straight, home, start=stages[0])["evaluation"]
    assert evaluation["held_out_accuracy"]["value"] > 0.9
    assert evaluation["steps"] > 4

    def stop(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 4:
            raise KeyboardInterrupt

    run = Run.open(tmp_path / "broken", "dpo", config.model_dump(), resume=False)
    run.progress = stop
    with pytest.raises(KeyboardInterrupt):
        train_dpo(config, comparisons * 3, run, home, start=stages[0])
    run.progress = lambda *news: None
    train_dpo(config, comparisons * 3, run, home, start=stages[0])
    made = "weights/model.safetensors" if full else "adapter/adapter_model.safetensors"
    first, second = (load_file(each.folder / made) for each in (straight, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(run) == losses(straight)
    assert all(torch.equal(a, b) for a, b in zip(*judged, strict=True))
    if not full:
        after, before = (
            held_out_likelihoods(home, comparisons * 3, start)
            for start in (straight.folder / "adapter", stages[0])
        )
        for found, new, old in zip(judged[0], after, before, strict=True):
            assert torch.allclose(found, config.beta * (new - old), atol=1e-3)


def losses(run: Run) -> list[tuple[int, float]]:
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines]


def held_out_likelihoods(home: Path, comparisons: list[Comparison], start: Path) -> list[torch.Tensor]:
    """What the model under this adapter thinks of the held-out comparisons."""
    loaded = load_model("tiny", home)
    policy = new_adapter(loaded.model, POLICY, AdapterShape(), seed=0, start=start)
    return likelihoods(policy, prepare_dpo(CONFIG, comparisons, loaded.renderer).held_out, 10_000)


def test_only_what_is_trained_on_or_judged_is_looked_at_and_what_was_taken_back_is_not_mistaken(
    home: Path,
    comparisons: list[Comparison],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = CONFIG.model_copy(update={"max_steps": 2, "checkpoint_every": 1})
    looks: list[int] = []

    def counted(policy: Weights, examples: list[PreferenceExample], micro_tokens: int) -> list[torch.Tensor]:
        looks.append(len(examples))
        return likelihoods(policy, examples, micro_tokens)

    def go_on(comparisons: list[Comparison], stop_at: int) -> dict[str, Any]:
        run = Run.open(tmp_path, "dpo", config.model_dump(), resume=True)

        def stop(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        run.progress = stop
        return train_dpo(config, comparisons, run, home, start=stages[0])["evaluation"]

    monkeypatch.setattr(dpo, "likelihoods", counted)
    with pytest.raises(KeyboardInterrupt):
        go_on(comparisons * 3, 2)
    evaluation = go_on(comparisons * 3, 0)
    held_out = evaluation["held_out_comparisons"]
    assert looks[1:] == [held_out], "the reference is kept"
    assert held_out < looks[0] < held_out + evaluation["comparisons"]
    shutil.rmtree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go_on(comparisons, 2)
    go_on([replace(comparisons[0], candidates=("a", "b", "c", "d")), *comparisons[1:]], 0)
    assert "begins anew" in caplog.text


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
def test_a_checkpoint_of_other_content_is_refused_with_a_way_out(
    home: Path, comparisons: list[Comparison], tmp_path: Path, full: bool
) -> None:
    config = CONFIG.model_copy(update={"full": full})
    run = Run.open(tmp_path / "run", "dpo", config.model_dump(), resume=False)
    save(run.folder, State(1, {"reference": torch.zeros(2)}))
    with pytest.raises(ModelError, match="does not hold what this version") as raised:
        train_dpo(config, comparisons, run, home, start=None)
    assert raised.value.where == str(run.folder)
    assert "checkpoint-*" in raised.value.hint
    assert list(run.folder.glob("checkpoint-*")), "what is there stays there"


def test_a_comparison_counts_as_much_as_its_author_is_worth(
    policy: Weights, reference: Weights, examples: list[PreferenceExample]
) -> None:
    """Twice the weight is the same as standing there twice."""
    one, two = zip(examples[:2], likelihoods(reference, examples[:2], 10_000), strict=True)
    heavy = (replace(two[0], weight=2.0), two[1])
    losses = [
        accumulate_gradients(policy, chosen, beta=0.3, micro_tokens=10_000)[0]
        for chosen in ([one, heavy], [one, two, two])
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_margin_is_that_of_pairs_with_an_order(
    policy: Weights, reference: Weights, examples: list[PreferenceExample]
) -> None:
    chosen = list(zip(examples, likelihoods(reference, examples, 10_000), strict=True))
    found = likelihoods(policy, examples, 10_000)
    rewards = [0.3 * (new - old) for (_, old), new in zip(chosen, found, strict=True)]
    expected = float(margins(examples, rewards).mean())
    assert accumulate_gradients(policy, chosen, beta=0.3, micro_tokens=100)[1] == pytest.approx(
        expected, abs=1e-4
    )


def test_a_limit_past_the_context_is_refused(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_tokens": 4096})
    run = Run.open(tmp_path / "run", "dpo", config.model_dump(), resume=False)
    with pytest.raises(ConfigError, match="max_tokens is 4096, and the context of tiny holds 1024"):
        train_dpo(config, comparisons, run, home, start=None)

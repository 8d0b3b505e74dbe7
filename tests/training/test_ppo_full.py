"""PPO that trains all weights: it starts at the SFT model, moves nothing else, and leaves a model of its own."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.config import check
from tutelage.dialogue import Dialogue
from tutelage.errors import ConfigError
from tutelage.models import tiny
from tutelage.models.exporting import ExportRequest, export_version
from tutelage.models.loading import load_model, load_version
from tutelage.registry import Registry, publish_run
from tutelage.rendering import Rendered
from tutelage.training.actors import VALUE, Learners, Models, adapter_policy, whole_policy
from tutelage.training.flat import flatten
from tutelage.training.metrics import Run
from tutelage.training.ppo import Task, take_step, train_ppo
from tutelage.training.ppo_recipe import AverageConfig, MixConfig, PPOConfig, ValueConfig, seeds_of_step

CONFIG = PPOConfig(
    model="tiny",
    full=True,
    steps=10,
    prompts_per_step=8,
    minibatches=2,
    max_new_tokens=10,
    held_out=0.3,
    learning_rate=5e-4,
    unended_penalty=0.5,
    value=ValueConfig(learning_rate=5e-3, warmup_steps=1),
    mix=MixConfig(coefficient=0.1, demonstrations_per_step=4),
)
TEXT = Rendered([5, 17, 3, 44, 96, 8, 8, 21, 60], [False] * 3 + [True] * 6)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that transformers computes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    tiny.write_text_files(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 264, "n_embd": 32, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(
    home: Path,
    prompts: list[Dialogue],
    demonstrations: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], list[dict[str, float]], Path]:
    run = Run.open(tmp_path_factory.mktemp("full") / "run", "ppo", CONFIG.model_dump(), resume=False)
    manifest = train_ppo(
        CONFIG, prompts, run, home, start=stages[0], reward=stages[1], demonstrations=demonstrations
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return manifest, lines, run.folder


def assembled(home: Path, start: Path | None, reward: Path, *, full: bool = True) -> Models:
    loaded = load_model("tiny", home)
    return Models.assemble(loaded, start=start, reward=reward, gold=None, average=True, full=full)


def step(models: Models, config: PPOConfig, prompts: list[Dialogue]) -> dict[str, float]:
    learners = Learners.of(models, policy_rate=1e-3, value_rate=1e-3)
    ids = [models.loaded.renderer.prompt(prompt.messages) for prompt in prompts]
    task = Task(0, ids[: config.prompts_per_step], seeds_of_step(config, 0), [])
    return take_step(config, models, learners, task, beta=0.05)


def everything(model: torch.nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [True, False], ids=["sft-adapter", "sft-model"])
def test_policy_and_reference_compute_the_same_to_the_bit_before_the_first_update(
    home: Path, stages: tuple[Path, Path], dtype: str, adapter: bool
) -> None:
    model = load_model("tiny", home, dtype=dtype).model
    policy, reference = whole_policy(model, stages[0] if adapter else None)
    same_scores(policy.token_scores(batch := flatten([TEXT], model.device)), reference.token_scores(batch))
    assert all(parameter.dtype == torch.float32 for parameter in policy.parameters)


def test_so_do_those_of_a_model_that_transformers_computes(home: Path, gpt2: Path) -> None:
    model = load_model(str(gpt2), home, dtype="bfloat16").model
    policy, reference = whole_policy(model, None)
    same_scores(policy.token_scores(batch := flatten([TEXT], model.device)), reference.token_scores(batch))


def test_without_an_sft_adapter_the_base_is_the_reference(home: Path, stages: tuple[Path, Path]) -> None:
    """For adapters too; and there is no second frozen model."""
    for full in (True, False):
        models = assembled(home, None, stages[1], full=full)
        assert models.reference.model is models.model
        assert models.reference.adapter is None
        batch = flatten([TEXT], models.model.device)
        same_scores(models.policy.token_scores(batch), models.reference.token_scores(batch))


def test_a_step_moves_policy_average_and_value_model_and_nothing_else(
    home: Path, prompts: list[Dialogue], stages: tuple[Path, Path]
) -> None:
    models = assembled(home, *stages)
    assert models.average is not None
    base, sft = everything(models.model), everything(models.reference.model)
    start = [parameter.detach().clone() for parameter in models.policy.parameters]
    config = CONFIG.model_copy(
        update={"minibatches": 1, "value": ValueConfig(warmup_steps=0), "average": AverageConfig(decay=0.9)}
    )
    metrics = step(models, config, prompts)
    assert metrics["kl"] == 0.0
    assert metrics["ratio"] == pytest.approx(1.0)
    assert metrics["sampler_gap"] < 1e-4
    for before, policy, average in zip(
        start, models.policy.parameters, models.average.parameters, strict=True
    ):
        assert not torch.equal(before, policy)
        torch.testing.assert_close(average, before.lerp(policy, 0.1))
    now = everything(models.model)
    assert {name for name in base if not torch.equal(base[name], now[name])} == {
        name for name in base if f".{VALUE}." in name
    }
    assert all(torch.equal(sft[name], tensor) for name, tensor in everything(models.reference.model).items())


def test_its_gradient_is_that_of_the_sft_adapter_when_only_that_may_move(
    home: Path, prompts: list[Dialogue], stages: tuple[Path, Path]
) -> None:
    """Along any change of the adapter, all weights folded together promise the same gain."""
    model = load_model("tiny", home, dtype="float32").model
    whole, _ = whole_policy(deepcopy(model), stages[0])
    lora, _ = adapter_policy(model, stages[0])
    batch = flatten([TEXT], model.device)
    for weights in (whole, lora):
        weights.token_scores(batch).logprobs.sum().backward()
    layer, twin = (next(iter(each.model.adapted_layers())) for each in (lora, whole))
    low = layer.adapters[str(lora.adapter)]
    outputs = [len(part) for part in low.b]
    parts = zip(twin.weight.grad.split(outputs), low.a.chunk(len(low.b)), low.b, strict=True)
    for gradient, a, b in parts:
        torch.testing.assert_close(b.grad, low.scale * gradient @ a.T, atol=1e-4, rtol=1e-3)


def test_a_run_starts_at_the_sft_model_and_draws_from_the_newest_policy(finished) -> None:
    _, lines, _ = finished
    assert lines[0]["kl"] == lines[1]["kl"] == 0.0, "the value model learns alone in the first step"
    assert lines[2]["kl"] != 0.0
    assert all(line["sampler_gap"] < 1e-4 for line in lines)


def test_a_run_says_how_far_it_went(finished) -> None:
    evaluation = finished[0]["evaluation"]
    assert evaluation["kl"]["before"] == 0.0
    assert 0 < evaluation["kl"]["after"] < CONFIG.kl.limit


def test_a_run_leaves_whole_models_that_are_published_and_exported(finished, tmp_path: Path) -> None:
    run = finished[2]
    assert not (run / "adapter").exists()
    version = publish_run(Registry(tmp_path), run)
    assert version.adapter is None
    export_version(ExportRequest(version, "safetensors", "f32"), tmp_path / "out", tmp_path)
    trained, average = (load_model(str(run / name), tmp_path).model for name in ("weights", "average"))
    for copy in (load_version(version, tmp_path).model, load_model(str(tmp_path / "out"), tmp_path).model):
        assert torch.equal(copy.head, trained.head)
    assert not torch.equal(average.head, trained.head)


def test_an_average_that_is_published_is_what_the_run_gives(
    home: Path, prompts: list[Dialogue], stages: tuple[Path, Path], tmp_path: Path
) -> None:
    """At a decay so near 1 that it stands still: the run gives the SFT model."""
    average = AverageConfig(decay=0.9999999, published=True)
    config = CONFIG.model_copy(update={"steps": 2, "average": average, "mix": MixConfig()})
    run = Run.open(tmp_path / "run", "ppo", config.model_dump(), resume=False)
    train_ppo(config, prompts, run, home, start=stages[0], reward=stages[1])
    _, sft = whole_policy(load_model("tiny", home).model, stages[0])
    given = load_model(str(run.folder / "weights"), home, dtype="float32").model
    torch.testing.assert_close(given.head, sft.model.head, atol=1e-5, rtol=0)
    assert not (run.folder / "average").exists()


def test_servers_that_load_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match="rollout_servers load adapters"):
        check({"full": True, "rollout_servers": ["http://127.0.0.1:8000"]}, PPOConfig)


def same_scores(one: Any, other: Any) -> None:
    assert torch.equal(one.logprobs, other.logprobs)
    assert torch.equal(one.entropy, other.entropy)

"""PPO: where it must start, what it must not confuse, and that it learns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tutelage.config import check
from tutelage.datasets.prompts import Prompt
from tutelage.datasets.splits import split
from tutelage.dialogue import Dialogue, Message
from tutelage.errors import ConfigError, DataError, TrainingError
from tutelage.models.generation import Completion
from tutelage.models.layout import sequences
from tutelage.models.loading import load_model
from tutelage.training.actors import AVERAGE, POLICY, Learners
from tutelage.training.job import SCHEMAS, Stage
from tutelage.training.metrics import Run
from tutelage.training.ppo import (
    Targets,
    Task,
    adapt_beta,
    demonstration_gradients,
    policy_gradients,
    take_step,
    train_ppo,
)
from tutelage.training.ppo_recipe import (
    KLConfig,
    MixConfig,
    PPOConfig,
    ValueConfig,
    in_turn,
    prepare_ppo,
    seeds_of_step,
    split_prompts,
)
from tutelage.training.rollouts import RowView, as_examples, micro_batches, score
from tutelage.training.sft import held_out_loss
from tutelage.training.standing import compare, sample_scores

CONFIG = PPOConfig(
    model="tiny",
    steps=12,
    prompts_per_step=8,
    minibatches=2,
    max_new_tokens=10,
    held_out=0.3,
    learning_rate=3e-3,
    unended_penalty=0.5,
    value=ValueConfig(learning_rate=5e-3, warmup_steps=1),
    mix=MixConfig(coefficient=0.1, demonstrations_per_step=4),
)


@pytest.fixture(scope="module")
def finished(
    home: Path,
    prompts: list[Dialogue],
    demonstrations: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict, list[dict], Path]:
    run = Run.open(tmp_path_factory.mktemp("ppo") / "run", "ppo", CONFIG.model_dump(), resume=False)
    manifest = train_ppo(
        CONFIG, prompts, run, home, start=stages[0], reward=stages[1], demonstrations=demonstrations
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return manifest, lines, run.folder


def test_it_starts_at_the_sft_model(finished) -> None:
    first, second = finished[1][:2]
    assert first["kl"] == second["kl"] == 0.0, "the value model learns alone in the first step"
    assert "ratio" not in first
    assert second["entropy"] > 0
    assert finished[1][2]["kl"] != 0.0


def test_the_sampler_and_the_training_forward_agree(finished) -> None:
    assert all(line["sampler_gap"] < 1e-4 for line in finished[1])


def test_the_reward_on_held_out_prompts_rises(finished) -> None:
    evaluation = finished[0]["evaluation"]
    assert evaluation["reward_gain"]["value"] > 0.2
    assert evaluation["kl"]["before"] == 0.0
    assert 0 < evaluation["kl"]["after"] < CONFIG.kl.limit


def test_it_says_where_its_time_went(finished) -> None:
    time = finished[0]["evaluation"]["time"]
    assert time["seconds_per_step"] > 0
    assert time["generate"] + time["score"] + time["update"] == pytest.approx(1)


def test_the_average_lies_between_the_start_and_the_policy(finished, home: Path, stages) -> None:
    from tutelage.models.adapters import load_adapter

    model = load_model("tiny", home).model
    folders = {"start": stages[0], "average": finished[2] / "average", "end": finished[2] / "adapter"}
    for name, folder in folders.items():
        load_adapter(model, name, folder)
    start, average, end = (
        torch.cat([p.detach().flatten() for p in model.adapter_parameters(name)]) for name in folders
    )
    # 22 updates at 0.992: a sixth of the way, if the way were straight
    assert 0.02 < float((average - start).norm() / (end - start).norm()) < 0.5


def test_a_rollout_does_not_depend_on_how_it_is_cut(scene) -> None:
    one, many = scene.roll(10_000), scene.roll(1)
    for name in ("logprobs", "reference_logprobs", "entropies", "values", "scores"):
        assert torch.allclose(getattr(one, name), getattr(many, name), atol=1e-4), name
    assert one.entropy == pytest.approx(float(one.entropies.sum()) / sum(one.lengths), rel=1e-5)


def test_a_gradient_does_not_depend_on_how_a_minibatch_is_cut(scene) -> None:
    rollout = scene.roll()
    targets = Targets(rollout, torch.randn(rollout.mask.shape), rollout.values)
    gradients = []
    for micro_tokens in (10_000, 1):
        groups = micro_batches(scene.examples, range(len(scene.examples)), micro_tokens)
        policy_gradients(scene.models, targets, groups, 0.2, "")
        parameters = scene.models.model.adapter_parameters(POLICY)
        gradients.append([parameter.grad for parameter in parameters])
        for parameter in parameters:
            parameter.grad = None
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_values_stand_before_the_token_they_judge(scene) -> None:
    """The value of the first token is that of the prompt alone; the score is that of the whole."""
    rollout, models = scene.roll(), scene.models
    ids = scene.examples[0].token_ids
    start = scene.examples[0].completion_mask.index(True)
    with torch.inference_mode():
        for members, place, expected in (
            ((models.value,), start, rollout.values[0, 0]),
            (models.reward.members, len(ids), rollout.scores[0]),
        ):
            flat, last = torch.tensor(ids[:place]), torch.tensor([place - 1])
            found = [member.at(models.model, flat, sequences([place]), last) for member in members]
            assert torch.allclose(torch.stack(found).mean(), expected, atol=1e-4)
        assert torch.allclose(torch.stack(found).std(correction=0), rollout.spread[0], atol=1e-4)


def test_flat_tokens_find_their_rows() -> None:
    rows = RowView([2, 0], [3, 1])
    target = torch.zeros(3, 4)
    rows.put(target, torch.tensor([1.0, 2.0, 3.0, 9.0]))
    assert target.tolist() == [[9, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 0]]
    assert rows.take(target).tolist() == [1, 2, 3, 9]


def test_the_mix_makes_demonstrations_likelier_and_counts_tokens_not_examples(
    scene, demonstrations: list[Dialogue]
) -> None:
    models, renderer = scene.models, scene.models.loaded.renderer
    examples = [renderer.example(dialogue.messages) for dialogue in demonstrations[:4]]
    parameters = models.model.adapter_parameters(POLICY)
    losses, gradients = [], []
    for micro_tokens, coefficient in ((10_000, 0.1), (1, 0.1), (10_000, 1.0)):
        mix = MixConfig(coefficient=coefficient)
        config = CONFIG.model_copy(update={"micro_tokens": micro_tokens, "mix": mix})
        losses.append(demonstration_gradients(models, examples, config))
        gradients.append([parameter.grad for parameter in parameters])
        for parameter in parameters:
            parameter.grad = None
    assert losses == pytest.approx([held_out_loss(models.policy, examples, 10_000)] * 3, abs=1e-5)
    cut, light, heavy = gradients[1], gradients[0], gradients[2]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(cut, light, strict=True))
    assert all(torch.allclose(10 * a, b, atol=1e-5) for a, b in zip(light, heavy, strict=True))
    with torch.no_grad():
        for parameter, gradient in zip(parameters, heavy, strict=True):
            parameter -= 2e-3 * gradient
    assert demonstration_gradients(models, examples, CONFIG) < losses[0]


def test_every_thing_once_an_epoch_in_another_order() -> None:
    seen = [index for step in range(2) for index in in_turn(10, 5, step, seed=0)]
    assert sorted(seen) == list(range(10))
    assert in_turn(10, 5, 0, seed=0) == in_turn(10, 5, 0, seed=0)
    assert in_turn(10, 10, 0, seed=0) != in_turn(10, 10, 1, seed=0)


def test_beta_moves_towards_the_target() -> None:
    config = KLConfig(target=6.0, horizon=100)
    assert adapt_beta(0.1, 12.0, config, 10) == pytest.approx(0.1 * 1.02)  # the error is clipped at 0.2
    assert adapt_beta(0.1, 5.4, config, 10) == pytest.approx(0.1 * 0.99)
    assert adapt_beta(0.1, 12.0, KLConfig(target=0.0), 10) == 0.1


def test_the_comparison_is_paired() -> None:
    before = {"reward": [0.0, 1.0, 2.0], "length": [1.0] * 3, "kl": [0.0] * 3, "ended": [1.0] * 3}
    after = {"reward": [1.0, 2.0, 2.0], "length": [2.0] * 3, "kl": [1.0] * 3, "ended": [0.0] * 3}
    golden = compare(
        before | {"gold": [0.0] * 3}, after | {"gold": [1.0, -1.0, 3.0]}, unended_penalty=0.5, seed=0
    )
    result = compare(before, after, unended_penalty=0.5, seed=0)
    assert result["score"] == {"before": 1.0, "after": pytest.approx(5 / 3 - 0.5)}
    assert result["score_gain"]["value"] == pytest.approx(2 / 3 - 0.5)
    assert result["reward_gain"]["value"] == pytest.approx(2 / 3)
    assert result["win_rate"]["value"] == pytest.approx(2.5 / 3)
    assert result["length"] == {"before": 1.0, "after": 2.0}
    assert "gold_gain" not in result
    assert golden["gold_gain"]["value"] == pytest.approx(1.0)
    assert golden["gold_win_rate"]["value"] == pytest.approx(2 / 3)


def test_no_prompts_is_said_plainly(home: Path) -> None:
    with pytest.raises(DataError, match="0 prompts"):
        prepare_ppo(CONFIG, [], load_model("tiny", home).renderer)


def test_nothing_to_mix_in_is_said_plainly(home: Path, prompts: list[Dialogue]) -> None:
    with pytest.raises(DataError, match="mix"):
        prepare_ppo(CONFIG, prompts, load_model("tiny", home).renderer)


def test_no_prompt_is_watched_and_reported_on(home: Path, prompts: list[Dialogue]) -> None:
    config = CONFIG.model_copy(update={"mix": MixConfig()})
    data = prepare_ppo(config, prompts, load_model("tiny", home).renderer, gold=True)
    sides = [
        {tuple(prompt.token_ids) for prompt in side} for side in (data.train, data.held_out, data.watched)
    ]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(prompts)


def test_a_published_average_wants_an_average() -> None:
    with pytest.raises(ConfigError, match=r"average\.decay"):
        check({"average": {"decay": 0.0, "published": True}}, PPOConfig)


def test_a_completion_of_one_token_is_scored(scene) -> None:
    prompt = scene.models.loaded.renderer.prompt([Message("user", "hi")])
    completions = [Completion((2,), (-0.5,), "stop"), Completion((5, 6), (-0.1, -0.2), "length")]
    rollout = score(
        scene.models, scene.models.policy, completions, as_examples([prompt, prompt], completions), [[0, 1]]
    )
    assert rollout.mask.tolist() == [[True, False], [True, True]]


def test_models_restore_what_they_gave(scene) -> None:
    models = scene.models
    tensors = {name: tensor.clone() for name, tensor in models.tensors().items()}
    rewards = scene.roll().scores.tolist()
    models.calibrate(rewards, [])
    with torch.no_grad():
        for name in (POLICY, AVERAGE):
            models.model.adapter_parameters(name)[0].add_(1.0)
    models.restore(tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in models.tensors().items())


def test_the_guide_defines_every_metric(finished) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "ppo.md").read_text(encoding="utf-8")
    table = guide.partition("metrics.jsonl")[2].partition("## What stops")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    defined = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    written = {key for line in finished[1] for key in line} - {"step", "seconds"}
    assert defined == written


def test_one_prompt_is_too_few_for_a_unit(home: Path, prompts: list[Dialogue]) -> None:
    renderer = load_model("tiny", home).renderer
    train, held_out = split(prompts, CONFIG.held_out)
    with pytest.raises(DataError, match="1 prompts to train on"):
        split_prompts(CONFIG, [train[0], *held_out], renderer)
    assert len(split_prompts(CONFIG, [*train[:2], *held_out], renderer).train) == 2


def test_prompts_that_are_too_long_are_counted(home: Path, prompts: list[Dialogue]) -> None:
    long = [Dialogue((Message("user", f"{each}" * 1000),)) for each in range(3)]
    found = split_prompts(CONFIG, [*prompts, *long], load_model("tiny", home).renderer)
    assert found.summary()["left_out"] == 3


def test_a_mix_past_the_context_is_refused(home: Path, prompts: list[Dialogue], tmp_path: Path) -> None:
    mix = MixConfig(coefficient=0.1, max_tokens=4096)
    config = CONFIG.model_copy(update={"mix": mix})
    run = Run.open(tmp_path / "run", "ppo", config.model_dump(), resume=False)
    with pytest.raises(ConfigError, match=r"mix\.max_tokens is 4096, and the context of tiny holds 1024"):
        train_ppo(config, prompts, run, home, start=None, reward=tmp_path)
    assert "mix.max_tokens" not in config.model_copy(update={"mix": MixConfig()}).longest


def test_fewer_demonstrations_than_minibatches_are_all_learnt(scene, demonstrations: list[Dialogue]) -> None:
    renderer = scene.models.loaded.renderer
    learners = Learners.of(scene.models, policy_rate=1e-3, value_rate=1e-3)
    task = Task(1, scene.prompts[:8], list(range(8)), [renderer.example(demonstrations[0].messages)])
    metrics = take_step(CONFIG, scene.models, learners, task, beta=0.05)
    assert metrics["mix_loss"] > 0
    assert metrics["policy_loss"] != 0


@pytest.mark.parametrize(("batch", "expected"), [(200, 0.98), (2000, 0.8), (100_000, 0.8)])
def test_a_step_never_turns_the_coefficient_around(batch: int, expected: float) -> None:
    assert adapt_beta(1.0, 0.0, KLConfig(target=6.0, horizon=2000), batch) == pytest.approx(expected)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_whose_numbers_would_not_fit_is_refused(stage: Stage, seed: int) -> None:
    with pytest.raises(ConfigError, match="seed: input should be"):
        check({"seed": seed}, SCHEMAS[stage])


def test_the_largest_seed_draws(home: Path, scene) -> None:
    config = CONFIG.model_copy(update={"seed": 2**32 - 1})
    assert all(0 <= seed < 2**63 for seed in seeds_of_step(config, 10**6))
    prompts = [Prompt(ids, ()) for ids in scene.prompts[:2]]
    sample_scores(
        scene.models,
        scene.models.reference,
        prompts,
        max_new_tokens=2,
        micro_tokens=1000,
        seed=config.seed + 3,
    )


def test_a_policy_that_was_driven_apart_ends_in_a_sentence(scene) -> None:
    with torch.no_grad():
        for parameter in scene.models.policy.parameters:
            parameter.fill_(1e30)
    learners = Learners.of(scene.models, policy_rate=1e-3, value_rate=1e-3)
    task = Task(5, scene.prompts[:8], list(range(8)), [])
    with pytest.raises(TrainingError, match="no numbers") as raised:
        take_step(CONFIG, scene.models, learners, task, beta=0.05)
    assert raised.value.where == "PPO step 5"
    assert "lower learning_rate" in raised.value.hint

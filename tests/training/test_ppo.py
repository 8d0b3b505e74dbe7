"""PPO: where it must start, what it must not confuse, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tutelage.config import check
from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import ConfigError, DataError, InvariantViolated
from tutelage.models.generation import Completion
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import load_model
from tutelage.training.metrics import Run
from tutelage.training.ppo import (
    PPOConfig,
    adapt_beta,
    check_first_ratio,
    check_rollout,
    prepare_ppo,
    step_prompts,
    train_ppo,
)
from tutelage.training.reward import RewardConfig, train_reward
from tutelage.training.reward_model import load_reward_model, load_value_model
from tutelage.training.rollouts import Rollout, RowView, as_examples, micro_batches, sample, score
from tutelage.training.sft import SFTConfig, train_sft
from tutelage.training.standing import compare

CONFIG = PPOConfig(
    model="tiny",
    steps=12,
    prompts_per_step=8,
    minibatches=2,
    max_new_tokens=10,
    held_out=0.3,
    learning_rate=3e-3,
    value_learning_rate=5e-3,
    value_warmup_steps=1,
    unended_penalty=0.5,
)


@pytest.fixture(scope="module")
def stages(
    home: Path,
    demonstrations: list[Dialogue],
    comparisons: list[Comparison],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Adapters of an SFT model that answers with one to three words, and of a reward model that likes it short."""
    folder = tmp_path_factory.mktemp("stages")
    sft = SFTConfig(model="tiny", epochs=25, batch_tokens=200, learning_rate=1e-2, held_out=0.0)
    train_sft(sft, demonstrations, Run.open(folder / "sft", "sft", sft.model_dump(), resume=False), home)
    reward = RewardConfig(
        model="tiny", batch_tokens=300, learning_rate=3e-3, head_learning_rate=1e-2, held_out=0.0
    )
    run = Run.open(folder / "reward", "reward", reward.model_dump(), resume=False)
    train_reward(reward, comparisons * 4, run, home, start=folder / "sft" / "adapter")
    return folder / "sft" / "adapter", folder / "reward" / "adapter"


@pytest.fixture(scope="module")
def finished(
    home: Path, prompts: list[Dialogue], stages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict, list[dict]]:
    run = Run.open(tmp_path_factory.mktemp("ppo") / "run", "ppo", CONFIG.model_dump(), resume=False)
    manifest = train_ppo(CONFIG, prompts, run, home, start=stages[0], reward=stages[1])
    return manifest, [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_it_starts_at_the_sft_model(finished: tuple[dict, list[dict]]) -> None:
    first = finished[1][0]
    assert first["kl"] == 0.0
    assert first["ratio"] == 1.0
    assert first["entropy"] > 0


def test_the_sampler_and_the_training_forward_agree(finished: tuple[dict, list[dict]]) -> None:
    assert all(line["sampler_gap"] < 1e-4 for line in finished[1])


def test_the_reward_on_held_out_prompts_rises(finished: tuple[dict, list[dict]]) -> None:
    evaluation = finished[0]["evaluation"]
    assert evaluation["reward_gain"]["value"] > 0.2
    assert evaluation["kl"]["before"] == 0.0
    assert 0 < evaluation["kl"]["after"] < 30


@pytest.fixture(scope="module")
def scene(home: Path, prompts: list[Dialogue], stages: tuple[Path, Path]):
    """A rollout of the SFT model, and all that made it."""
    loaded = load_model("tiny", home)
    from tutelage.models.adapters import load_adapter

    load_adapter(loaded.model, "sft", stages[0])
    loaded.model.copy_adapter("sft", "policy")
    value = load_value_model(loaded.model, stages[1], name="value")
    reward = load_reward_model(loaded.model, stages[1], name="reward")
    prompt_ids = [loaded.renderer.prompt(prompt.messages) for prompt in prompts]
    completions = sample(
        loaded.model,
        "policy",
        prompt_ids,
        stop_ids=loaded.renderer.stop_ids,
        max_new_tokens=6,
        seeds=range(len(prompts)),
    )
    examples = as_examples(prompt_ids, completions)

    def roll(micro_tokens: int) -> Rollout:
        groups = micro_batches(examples, range(len(examples)), micro_tokens)
        return score(
            loaded.model,
            completions,
            examples,
            groups,
            policy="policy",
            reference="sft",
            value=value,
            reward=reward,
        )

    return loaded, completions, examples, roll, value, reward


def test_a_rollout_does_not_depend_on_how_it_is_cut(scene) -> None:
    *_, roll, _, _ = scene
    one, many = roll(10_000), roll(1)
    for name in ("logprobs", "reference_logprobs", "values", "scores"):
        assert torch.allclose(getattr(one, name), getattr(many, name), atol=1e-4), name


def test_a_cut_answer_is_known_as_cut_and_keeps_its_tokens(scene) -> None:
    loaded, completions, examples, roll, _, _ = scene
    rollout = roll(10_000)
    assert rollout.ended.tolist() == [each.finish_reason == "stop" for each in completions]
    assert not rollout.ended.all()
    for example, each in zip(examples, completions, strict=True):
        if each.finish_reason == "length":
            assert not loaded.renderer.stop_ids & set(each.token_ids)
        spoken = [t for t, flag in zip(example.token_ids, example.completion_mask, strict=True) if flag]
        assert spoken == list(each.token_ids)


def test_values_stand_before_the_token_they_judge(scene) -> None:
    """The value of the first token is that of the prompt alone; the score is that of the whole."""
    loaded, _, examples, roll, value, reward = scene
    from tutelage.models.layout import sequences

    rollout = roll(10_000)
    ids = examples[0].token_ids
    start = examples[0].completion_mask.index(True)
    with torch.inference_mode():
        for scalar, place, expected in (
            (value, start, rollout.values[0, 0]),
            (reward.members[0], len(ids), rollout.scores[0]),
        ):
            with loaded.model.using(scalar.adapter):
                hidden = loaded.model.hidden(torch.tensor(ids[:place]), sequences([place]))
            assert torch.allclose(scalar.head(hidden[-1:])[0], expected, atol=1e-4)


def test_flat_tokens_find_their_rows() -> None:
    rows = RowView([2, 0], [3, 1])
    target = torch.zeros(3, 4)
    rows.put(target, torch.tensor([1.0, 2.0, 3.0, 9.0]))
    assert target.tolist() == [[9, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 0]]
    assert rows.take(target).tolist() == [1, 2, 3, 9]


def test_rollouts_are_drawn_from_the_whole_distribution(scene) -> None:
    """A recipe cannot truncate them: there is no such key."""
    with pytest.raises(ConfigError, match="top_p: unknown key"):
        check({"top_p": 0.9}, PPOConfig)
    with pytest.raises(ConfigError, match="kl_coefficient"):
        check({"kl_coefficient": 0.0}, PPOConfig)


def test_every_prompt_once_an_epoch_and_other_draws_every_step() -> None:
    config = CONFIG.model_copy(update={"prompts_per_step": 5})
    seen = [index for step in range(2) for index in step_prompts(10, config, step)]
    assert sorted(seen) == list(range(10))
    assert step_prompts(10, config, 0) == step_prompts(10, config, 0)
    assert step_prompts(10, config, 0) != step_prompts(10, config, 2)


def test_beta_moves_towards_the_target() -> None:
    config = PPOConfig(model="tiny", kl_target=6.0, kl_horizon=100)
    assert adapt_beta(0.1, 12.0, config, 10) == pytest.approx(0.1 * 1.02)  # the error is clipped at 0.2
    assert adapt_beta(0.1, 5.4, config, 10) == pytest.approx(0.1 * 0.99)
    assert adapt_beta(0.1, 12.0, config.model_copy(update={"kl_target": None}), 10) == 0.1


def test_what_cannot_be_stops_the_run(scene) -> None:
    rollout = scene[3](10_000)
    check_rollout(rollout, 0)
    with pytest.raises(InvariantViolated, match="away from the SFT model"):
        check_rollout(replace(rollout, reference_logprobs=rollout.logprobs - 0.01), 0)
    with pytest.raises(InvariantViolated, match="entropy"):
        check_rollout(replace(rollout, entropy=0.0), 3)
    with pytest.raises(InvariantViolated, match="not finite"):
        check_rollout(replace(rollout, scores=rollout.scores / 0), 3)
    check_first_ratio(torch.ones(3), 0)
    with pytest.raises(InvariantViolated, match="before any update"):
        check_first_ratio(torch.tensor([1.0, 1.01]), 0)


def test_the_comparison_is_paired() -> None:
    before = {"reward": [0.0, 1.0, 2.0], "length": [1.0] * 3, "kl": [0.0] * 3, "ended": [1.0] * 3}
    after = {"reward": [1.0, 2.0, 2.0], "length": [2.0] * 3, "kl": [1.0] * 3, "ended": [0.0] * 3}
    result = compare(before, after, unended_penalty=0.5, seed=0)
    assert result["score"] == {"before": 1.0, "after": pytest.approx(5 / 3 - 0.5)}
    assert result["score_gain"]["value"] == pytest.approx(2 / 3 - 0.5)
    assert result["reward_gain"]["value"] == pytest.approx(2 / 3)
    assert result["win_rate"]["value"] == pytest.approx(2.5 / 3)
    assert result["length"] == {"before": 1.0, "after": 2.0}


def test_no_prompts_is_said_plainly(home: Path) -> None:
    with pytest.raises(DataError, match="0 prompts"):
        prepare_ppo(CONFIG, [], load_model("tiny", home).renderer)


def test_a_completion_of_one_token_is_scored(scene) -> None:
    loaded, _, _, _, value, reward = scene
    prompt = loaded.renderer.prompt([*_hello()])
    completions = [Completion((2,), (-0.5,), "stop"), Completion((5, 6), (-0.1, -0.2), "length")]
    examples = as_examples([prompt, prompt], completions)
    rollout = score(
        loaded.model,
        completions,
        examples,
        [[0, 1]],
        policy="policy",
        reference="sft",
        value=value,
        reward=reward,
    )
    assert rollout.mask.tolist() == [[True, False], [True, True]]
    assert isinstance(value.head, ScalarHead)


def _hello():
    from tutelage.dialogue import Message

    return [Message("user", "hi")]

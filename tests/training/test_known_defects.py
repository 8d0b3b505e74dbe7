"""Defects of public systems for learning from people's preferences, each of which cannot come back here.

The numbers are fixed, so that a defect can be spoken of by its number. Each test fails when the line that it
guards is broken.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.config import check, load
from tutelage.datasets.preference import PreferenceExample
from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.errors import ConfigError, InvariantViolated, ModelError
from tutelage.models.adapters import AdapterShape
from tutelage.models.generation import Completion, Request, complete
from tutelage.models.heads import ScalarHead
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import locate
from tutelage.models.logprobs import CHUNK, token_scores
from tutelage.rendering import load_renderer
from tutelage.training import ppo
from tutelage.training.actors import POLICY, Learners
from tutelage.training.advantages import token_rewards
from tutelage.training.flat import flatten
from tutelage.training.invariants import check_first_ratio, check_reference, check_sampler, check_start
from tutelage.training.metrics import Run
from tutelage.training.ppo import Targets, Task, policy_gradients, take_step, train_ppo, value_gradients
from tutelage.training.ppo_recipe import PPOConfig, ValueConfig, prepare_ppo, seeds_of_step
from tutelage.training.reward import RewardConfig, prepare_reward
from tutelage.training.reward_model import RewardModel, ValueModel, score_trees
from tutelage.training.reward_report import Judged, report
from tutelage.training.rollouts import (
    as_examples,
    micro_batches,
    probe,
    refuse_narrowing,
    sample,
    score,
    whole_distribution,
)

CONFIG = PPOConfig(
    model="tiny",
    steps=4,
    prompts_per_step=8,
    minibatches=2,
    max_new_tokens=6,
    held_out=0.3,
    checkpoint_every=1,
    unended_penalty=0.5,
    value=ValueConfig(warmup_steps=0),
)


@pytest.fixture(scope="module")
def judge(home: Path) -> tuple[LoadedModel, RewardModel]:
    """A reward model of two members whose adapters change something."""
    loaded = load_model("tiny", home)
    members = []
    for index in range(2):
        loaded.model.add_adapter(f"judge-{index}", AdapterShape(4, 8), seed=index)
        for parameter in loaded.model.adapter_parameters(f"judge-{index}"):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(index))
        members.append(ValueModel(f"judge-{index}", ScalarHead(loaded.model.width, seed=index)))
    return loaded, RewardModel(tuple(members))


def step(scene, config: PPOConfig = CONFIG) -> dict[str, float]:
    learners = Learners.of(scene.models, policy_rate=1e-3, value_rate=1e-3)
    task = Task(0, scene.prompts[: config.prompts_per_step], seeds_of_step(config, 0), [])
    return take_step(config, scene.models, learners, task, beta=0.05)


def test_defect_01_reward_lands_on_exactly_one_token() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = token_rewards(torch.tensor([3.0, -2.0]), torch.zeros(2, 3), mask, beta=0.1)
    assert rewards.tolist() == [[0, 0, 3], [-2, 0, 0]]


def test_defect_02_a_value_is_the_same_in_the_rollout_and_in_the_first_update(scene) -> None:
    rollout = scene.roll()
    groups = micro_batches(scene.examples, range(len(scene.examples)), 100)
    targets = Targets(rollout, rollout.values, returns=rollout.values)
    assert value_gradients(scene.models, targets, groups, 0.2) < 1e-9
    shifted = replace(targets, returns=rollout.values.roll(1, dims=1))
    assert value_gradients(scene.models, shifted, groups, 0.2) > 1e-4


def test_defect_03_every_rollout_has_its_own_draws(scene) -> None:
    seeds = [seed for number in range(50) for seed in seeds_of_step(CONFIG, number)]
    assert len(set(seeds)) == len(seeds)
    said = [
        [
            each.token_ids
            for each in sample(scene.models, scene.models.policy, whole_distribution([prompt], [seed], 6))
        ]
        for prompt, seed in zip([scene.prompts[0]] * 8, seeds[:: CONFIG.prompts_per_step], strict=False)
    ]
    assert len({str(each) for each in said}) > 1
    assert seeds_of_step(CONFIG, 3) == seeds_of_step(CONFIG, 3), (
        "a resumed step draws what it would have drawn"
    )


def test_defect_04_advantages_are_whitened_over_the_tokens(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Targets] = []

    def spy(models, targets, *rest):
        seen.append(targets)
        return policy_gradients(models, targets, *rest)

    monkeypatch.setattr(ppo, "policy_gradients", spy)
    step(scene)
    inside = seen[0].advantages[seen[0].rollout.mask]
    assert abs(float(inside.mean())) < 1e-5
    assert abs(float(inside.std(correction=0)) - 1) < 1e-4
    assert float(seen[0].advantages[~seen[0].rollout.mask].abs().sum()) == 0


def test_defect_05_rollouts_are_drawn_not_argued(scene) -> None:
    """Many draws of one prompt differ, and entropy is above zero; greedy ones would be alike."""
    draws = sample(
        scene.models, scene.models.policy, whole_distribution([scene.prompts[0]] * 16, range(16), 6)
    )
    assert len({each.token_ids for each in draws}) > 2
    assert scene.roll().entropy > 0
    assert step(scene)["entropy"] > 0


def test_defect_06_only_the_assistants_words_and_end_tokens_are_trained_on(home: Path) -> None:
    renderer = load_renderer(locate("tiny", home))
    turns = [("user", "a"), ("assistant", "bc"), ("user", "d"), ("assistant", "e")]
    example = renderer.example([Message(role, text) for role, text in turns])
    batch = flatten([example, example], torch.device("cpu"))
    end = renderer.end_id
    spoken = [*renderer.completion("bc"), end, *renderer.completion("e"), end]
    assert batch.targets.tolist() == spoken * 2
    assert batch.token_ids[batch.scored + 1].tolist() == spoken * 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(1, 25), min_size=1, max_size=9)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 2**31),
)
def test_defect_07_a_score_is_read_at_the_last_token_whatever_stands_beside_it(
    judge, shapes: list[tuple[int, list[int]]], seed: int
) -> None:
    """Every completion of every tree gets what it gets alone, without padding, read at its own last token."""
    loaded, reward = judge
    draw = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> list[int]:
        return torch.randint(3, 259, (length,), generator=draw).tolist()

    trees = [(tokens(prompt), [tokens(length) for length in lengths]) for prompt, lengths in shapes]
    together = torch.cat(score_trees(loaded.model, reward, trees, 10_000))
    apart = torch.cat(score_trees(loaded.model, reward, trees, 1))
    alone = []
    for prompt, completions in trees:
        for completion in completions:
            row = torch.tensor([*prompt, *completion])
            with torch.inference_mode():
                for member in reward.members:
                    with loaded.model.using(member.adapter):
                        states = loaded.model.hidden(row, sequences([len(row)]))
                    alone.append(member.head(states)[-1])
    expected = torch.stack(alone).view(-1, len(reward.members))
    assert torch.allclose(together, expected, atol=1e-4)
    assert torch.allclose(apart, expected, atol=1e-4)


def test_defect_08_the_first_ratio_is_one(scene) -> None:
    rollout = scene.roll(100)
    groups = micro_batches(scene.examples, range(len(scene.examples)), 100)
    targets = Targets(rollout, rollout.values, rollout.values)
    assert policy_gradients(scene.models, targets, groups, 0.2, "here")["ratio"] == pytest.approx(1, abs=1e-5)
    other = replace(rollout, logprobs=rollout.logprobs + 0.01)
    with pytest.raises(InvariantViolated, match="before any update"):
        policy_gradients(scene.models, replace(targets, rollout=other), groups, 0.2, "here")
    check_first_ratio(torch.ones(3), "here")
    with pytest.raises(InvariantViolated):
        check_first_ratio(torch.tensor([1.0, float("nan")]), "here")


def test_defect_09_rollouts_from_a_part_of_the_distribution_are_refused(scene) -> None:
    with pytest.raises(ConfigError, match="top_p: unknown key"):
        check({"top_p": 0.9}, PPOConfig)
    for narrow in ({"top_p": 0.7}, {"temperature": 0.7}, {"logit_bias": {5: 1.0}}, {"presence_penalty": 0.5}):
        request = Request(prompt_ids=scene.prompts[0], max_tokens=4, seed=0, **narrow)
        with pytest.raises(InvariantViolated, match="rollout was asked for"):
            sample(scene.models, scene.models.policy, [request])
    refuse_narrowing(Request(prompt_ids=scene.prompts[0], max_tokens=4, seed=0, top_logprobs=3))


@pytest.mark.parametrize(
    ("top_p", "temperature"), [(0.7, 1.0), (0.9, 1.0), (1.0, 0.0), (1.0, 0.7), (1.0, 2.0)]
)
def test_defect_09_a_sampler_that_narrows_in_secret_is_found_out(
    scene, top_p: float, temperature: float
) -> None:
    with torch.no_grad():  # the SFT model knows what it says; the base does not
        for parameter in scene.models.model.adapter_parameters(POLICY):
            parameter.zero_()
    prompts = scene.prompts * 8
    settings = [(1.0, 1.0), (top_p, temperature)]
    rollouts = []
    for share, heat in settings:
        requests = [
            Request(prompt_ids=prompt, max_tokens=8, seed=seed, top_p=share, temperature=heat)
            for seed, prompt in enumerate(prompts)
        ]
        with scene.models.model.using(POLICY):
            made = complete(scene.models.model, scene.models.loaded.renderer.stop_ids, requests)
        examples = as_examples(prompts, made)
        groups = micro_batches(examples, range(len(examples)), 4096)
        rollouts.append(score(scene.models, scene.models.policy, made, examples, groups))
    check_sampler(rollouts[0], "here")
    with pytest.raises(InvariantViolated, match="than the policy's own draws"):
        check_sampler(rollouts[1], "here")


def test_defect_10_what_was_sampled_is_what_is_scored(scene) -> None:
    """Bytes that make no character do not survive decoding; they must survive a rollout."""
    renderer = scene.models.loaded.renderer
    ids = (3 + 200, 3 + 40, 2)
    assert tuple(renderer.completion(renderer.decode(ids[:2]))) != ids[:2]
    completion = Completion(ids, (-1.0, -1.0, -1.0), "stop")
    example = as_examples([scene.prompts[0]], [completion])[0]
    assert example.token_ids == [*scene.prompts[0], *ids]
    for example, each in zip(scene.examples, scene.completions, strict=True):
        spoken = [t for t, flag in zip(example.token_ids, example.completion_mask, strict=True) if flag]
        assert spoken == list(each.token_ids)


def test_defect_11_a_cut_answer_stays_cut_and_is_charged_for_it(
    scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = scene.roll()
    assert rollout.ended.tolist() == [each.finish_reason == "stop" for each in scene.completions]
    assert 0 < int(rollout.ended.sum()) < len(rollout.ended) or not rollout.ended.any()
    for each in scene.completions:
        if each.finish_reason == "length":
            assert not scene.models.loaded.renderer.stop_ids & set(each.token_ids)

    seen = []

    def spy(scores, kl, mask, beta):
        seen.append(scores)
        return token_rewards(scores, kl, mask, beta)

    monkeypatch.setattr(ppo, "token_rewards", spy)
    metrics = step(scene)
    assert metrics["ended"] < 1
    assert float(seen[0].mean()) == pytest.approx(metrics["reward"] - 0.5 * (1 - metrics["ended"]), abs=1e-5)


def tiny_folder(home: Path, folder: Path) -> Path:
    """A copy of `tiny` to change."""
    shutil.copytree(locate("tiny", home), folder)
    return folder


def change(file: Path, **values: object) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | values))


def test_defect_12_padding_is_never_an_end_token(home: Path, tmp_path: Path) -> None:
    folder = tiny_folder(home, tmp_path / "model")
    change(folder / "tokenizer_config.json", pad_token="<|im_end|>")
    renderer = load_renderer(folder)
    assert renderer.pad_id not in renderer.stop_ids
    change(folder / "generation_config.json", eos_token_id=[0, 1, 2])
    with pytest.raises(ModelError, match="pads with its end token"):
        load_renderer(folder)


class Sizes(TorchDispatchMode):
    """Notes how large every tensor is that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def test_defect_13_no_logits_are_kept(scene) -> None:
    """Logits exist for one chunk of places at a time, and nothing that is kept is as wide as the vocabulary."""
    width, places, vocabulary = 16, 4 * CHUNK, 3000
    hidden, head = torch.randn(places, width, requires_grad=True), torch.randn(vocabulary, width)
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), Sizes() as sizes:
        token_scores(hidden, head, torch.zeros(places, dtype=torch.long))
    assert sizes.largest <= CHUNK * vocabulary
    assert sum(tensor.numel() for tensor in kept) <= places * width
    rollout = scene.roll()
    assert {tensor.dim() for tensor in (rollout.logprobs, rollout.entropies, rollout.values)} == {2}


@pytest.fixture
def began(home: Path, prompts: list[Dialogue], stages: tuple[Path, Path], tmp_path: Path) -> Run:
    """A run that was stopped after two of its steps."""
    run = Run.open(tmp_path / "run", "ppo", CONFIG.model_dump(), resume=False)

    def stop(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 3:
            raise KeyboardInterrupt

    run.progress = stop
    with pytest.raises(KeyboardInterrupt):
        train_ppo(CONFIG, prompts, run, home, start=stages[0], reward=stages[1])
    run.progress = lambda *news: None
    return run


def test_defect_14_the_reference_is_the_sft_model(
    scene, began: Run, home: Path, prompts: list[Dialogue], stages: tuple[Path, Path], tmp_path: Path
) -> None:
    rollout = scene.roll()
    assert float(rollout.kl.abs().max()) == 0
    check_start(rollout, "here")
    with pytest.raises(InvariantViolated, match="away from the SFT model"):
        check_start(replace(rollout, reference_logprobs=rollout.logprobs - 0.01), "here")

    number = probe(scene.models, scene.prompts[0])
    with torch.no_grad():  # an adapter of zeros is the base
        for parameter in scene.models.model.adapter_parameters("sft"):
            parameter.zero_()
    with pytest.raises(InvariantViolated, match="not the SFT model that this run began with"):
        check_reference(number, probe(scene.models, scene.prompts[0]))

    base = tmp_path / "base"
    from tutelage.models.adapters import save_adapter

    save_adapter(scene.models.model, "sft", base, base="tiny")
    with pytest.raises(InvariantViolated, match="restore the adapter") as raised:
        train_ppo(CONFIG, prompts, began, home, start=base, reward=stages[1])
    assert raised.value.hint
    assert train_ppo(CONFIG, prompts, began, home, start=stages[0], reward=stages[1])["kind"] == "chat"


def test_defect_15_a_head_is_drawn_with_one_over_the_root_of_its_width() -> None:
    """Initial scores of normalised states then deviate by about 1, whatever the width; with 1/(d + 1) by 1/sqrt(d)."""
    for width in (64, 1024):
        heads = torch.stack([ScalarHead(width, seed=seed).weight.detach() for seed in range(200)])
        assert float(heads.std()) == pytest.approx((width + 1) ** -0.5, rel=0.05)
        state = torch.randn(width, generator=torch.Generator().manual_seed(999))
        state *= (width / state.square().sum()) ** 0.5
        assert float((heads @ state).std()) == pytest.approx((width / (width + 1)) ** 0.5, rel=0.15)


def test_defect_16_the_reward_model_reads_its_data_once(home: Path, comparisons: list[Comparison]) -> None:
    renderer = load_renderer(locate("tiny", home))
    data = prepare_reward(RewardConfig(model="tiny", batch_tokens=300), comparisons * 3, renderer)
    for steps in data.steps:
        assert sorted(place for step in steps for place in step) == list(range(len(data.train)))
    for recipe in Path(__file__).parents[2].glob("recipes/**/reward.toml"):
        assert load(recipe, RewardConfig).epochs == 1


def test_defect_17_accuracy_counts_every_pair_by_rank_gap() -> None:
    """Best against worst is right, their neighbours are not: 1 of 3 rank gaps, and 4 of 6 pairs."""
    ranked = Comparison.from_ranking([Message("user", "q")], list("abcd"), [[0], [1], [2], [3]])
    example = PreferenceExample([1], [[2]] * 4, ranked.preferences, "s", "q")
    scores = torch.tensor([[3.0], [4.0], [1.0], [2.0]])
    found = report(Judged([example], [scores]), [], seed=0)
    assert (found["held_out_accuracy"]["value"], found["held_out_accuracy"]["pairs"]) == (
        pytest.approx(4 / 6),
        6,
    )
    gaps = {gap: (each["value"], each["pairs"]) for gap, each in found["by_rank_gap"].items()}
    assert gaps == {"1": (pytest.approx(1 / 3), 3), "2": (1.0, 2), "3": (1.0, 1)}


def test_defect_18_every_end_token_ends(home: Path, tmp_path: Path, scene) -> None:
    folder = tiny_folder(home, tmp_path / "model")
    often = max(
        (t for each in scene.completions for t in each.token_ids if t > 2),
        key=[t for each in scene.completions for t in each.token_ids].count,
    )
    change(folder / "generation_config.json", eos_token_id=[2, often])
    loaded = load_model(str(folder), home)
    assert loaded.renderer.stop_ids == {2, often}
    models = replace(scene.models, loaded=replace(scene.models.loaded, renderer=loaded.renderer))
    made = sample(models, models.policy, whole_distribution(scene.prompts, range(len(scene.prompts)), 6))
    assert {each.token_ids[-1] for each in made if each.finish_reason == "stop"} & {often}
    assert not any({2, often} & set(each.token_ids[:-1]) for each in made)


def test_defect_19_log_probabilities_are_the_training_forwards(scene) -> None:
    lies = [replace(each, logprobs=tuple(-9.0 for _ in each.logprobs)) for each in scene.completions]
    groups = micro_batches(scene.examples, range(len(scene.examples)), 10_000)
    rollout = score(scene.models, scene.models.policy, lies, scene.examples, groups)
    assert torch.equal(rollout.logprobs, scene.roll().logprobs)
    assert float((rollout.logprobs - rollout.sampler_logprobs)[rollout.mask].abs().mean()) > 1
    assert step(scene)["sampler_gap"] < 1e-4


def test_defect_20_no_kl_only_when_it_is_meant() -> None:
    with pytest.raises(ConfigError, match="drift from the SFT model"):
        check({"kl": {"coefficient": 0.0}}, PPOConfig)
    assert check({"kl": {"coefficient": 0.0, "off": True}}, PPOConfig).kl.coefficient == 0
    with pytest.raises(ConfigError, match=r"kl\.off"):
        check({"kl": {"off": True}}, PPOConfig)


def test_a_policy_that_would_never_learn_is_not_trained() -> None:
    with pytest.raises(ConfigError, match="the policy would never learn"):
        check({"steps": 5, "value": {"warmup_steps": 5}}, PPOConfig)
    assert check({"steps": 5, "value": {"warmup_steps": 4}}, PPOConfig).steps == 5


def test_the_data_of_a_step_follow_from_its_number(home: Path, prompts: list[Dialogue]) -> None:
    data = prepare_ppo(CONFIG, prompts, load_renderer(locate("tiny", home)))
    assert ppo.task_of(CONFIG, data, 2) == ppo.task_of(CONFIG, data, 2)
    assert ppo.task_of(CONFIG, data, 2) != ppo.task_of(CONFIG, data, 3)

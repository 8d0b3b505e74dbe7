"""The reward model: one score whatever stands beside it, the taste it was shown, and going on where it was."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tutelage.datasets.preference import completion_ids, render_comparisons
from tutelage.dialogue import Comparison, Message
from tutelage.errors import ConfigError, DataError, ModelError
from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import LoadedModel, load_model
from tutelage.training import reward
from tutelage.training.metrics import Run
from tutelage.training.reward import (
    RewardConfig,
    Training,
    accumulate_gradients,
    new_member,
    prepare_reward,
    score_examples,
    train_reward,
)
from tutelage.training.reward_model import RewardModel, ValueModel, load_reward_model, score_completions
from tutelage.training.reward_unit import own_answers

CONFIG = RewardConfig(
    model="tiny", batch_tokens=300, learning_rate=5e-3, head_learning_rate=1e-2, held_out=0.25
)


def member_of(loaded: LoadedModel, shape: AdapterShape, seed: int = 0) -> ValueModel:
    loaded.model.add_adapter(f"member-{seed}", shape, seed=seed)
    for parameter in loaded.model.adapter_parameters(f"member-{seed}"):
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(seed))
    return ValueModel(f"member-{seed}", ScalarHead(loaded.model.width, seed=seed))


def test_a_score_does_not_depend_on_its_batch(home: Path, comparisons: list[Comparison]) -> None:
    loaded = load_model("tiny", home)
    judge = RewardModel((member_of(loaded, AdapterShape()), member_of(loaded, AdapterShape(), seed=1)))
    examples = render_comparisons(comparisons, loaded.renderer, max_tokens=200).rendered
    together = torch.cat(score_examples(loaded.model, judge, examples, 10_000))
    apart = torch.cat(score_examples(loaded.model, judge, examples, 1))
    pairs = [(example.prompt_ids, ids) for example in examples for ids in example.completions]
    singly = score_completions(loaded.model, judge, pairs, 50)
    assert together.shape == (len(pairs), 2)
    assert torch.allclose(together, apart, atol=1e-4)
    assert torch.allclose(together, singly, atol=1e-4)


def test_accumulated_equals_whole(home: Path, comparisons: list[Comparison]) -> None:
    losses, gradients = [], []
    for micro_tokens in (10_000, 1):
        loaded = load_model("tiny", home)
        member = member_of(loaded, AdapterShape(4, 8))
        examples = render_comparisons(comparisons[:5], loaded.renderer, max_tokens=200).rendered
        losses.append(accumulate_gradients(loaded.model, member, examples, micro_tokens)[0])
        parameters = [*loaded.model.adapter_parameters(member.adapter), member.head.weight]
        gradients.append([p.grad for p in parameters if p.grad is not None])
    assert abs(losses[0] - losses[1]) < 1e-5
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_a_comparison_counts_as_much_as_its_author_is_worth(
    home: Path, comparisons: list[Comparison]
) -> None:
    """Twice the weight is the same as standing there twice."""
    losses, gradients = [], []
    for chosen in ([comparisons[0], replace(comparisons[1], weight=2.0)], [*comparisons[:2], comparisons[1]]):
        loaded = load_model("tiny", home)
        member = member_of(loaded, AdapterShape(4, 8))
        examples = render_comparisons(chosen, loaded.renderer, max_tokens=200).rendered
        losses.append(accumulate_gradients(loaded.model, member, examples, 10_000)[0])
        gradients.append(loaded.model.adapter_parameters(member.adapter)[0].grad)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_it_learns_the_taste_and_is_loaded_as_it_was(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    run = Run.open(tmp_path / "run", "reward", CONFIG.model_dump(), resume=False)
    evaluation = train_reward(CONFIG, comparisons * 8, run, home)["evaluation"]
    assert evaluation["held_out_accuracy"]["value"] > 0.9
    assert evaluation["by_source"]["made"] == evaluation["held_out_accuracy"]
    assert set(evaluation["by_rank_gap"]) == {"1", "2"}
    assert evaluation["length_baseline"]["value"] == 0.0
    assert evaluation["majority_baseline"]["value"] == 1.0
    assert len(evaluation["member_accuracy"]) == 3
    assert evaluation["length_correlation"] < -0.5
    assert evaluation["disagreement"]["deviation"] > 0

    loaded = load_model("tiny", home)
    judge = load_reward_model(loaded.model, run.folder / "adapter")
    assert len(judge.members) == 3
    assert judge.temperature == evaluation["calibration"]["temperature"]
    prompt = loaded.renderer.prompt([Message("user", "say gnu")])
    answers = [completion_ids(text, loaded.renderer) for text in ("b", "a" * 9)]
    short, long = score_completions(loaded.model, judge, [(prompt, ids) for ids in answers])
    assert (short > long).all()
    assert not (run.folder / "trained").exists()


def test_members_differ_in_adapter_head_and_order(home: Path, comparisons: list[Comparison]) -> None:
    loaded = load_model("tiny", home)
    data = prepare_reward(CONFIG, comparisons * 4, loaded.renderer)
    assert len({str(steps) for steps in data.steps}) == 3
    training = Training(CONFIG, data, loaded.model, Run(home, "reward"), None)
    first, second = (new_member(training, index) for index in (0, 1))
    assert not torch.equal(first.head.weight, second.head.weight)
    tensors = [loaded.model.adapter_tensors(member.adapter) for member in (first, second)]
    assert any(not torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_a_member_begins_as_the_sft_model(
    home: Path, comparisons: list[Comparison], stages: tuple[Path, Path]
) -> None:
    loaded = load_model("tiny", home)
    data = prepare_reward(CONFIG, comparisons, loaded.renderer)
    member = new_member(Training(CONFIG, data, loaded.model, Run(home, "reward"), stages[0]), 0)
    load_adapter(loaded.model, "sft", stages[0])
    mine, theirs = (loaded.model.adapter_tensors(name) for name in (member.adapter, "sft"))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_answers_of_the_unit_are_the_sft_models_each_drawn_by_itself(
    home: Path, comparisons: list[Comparison], stages: tuple[Path, Path]
) -> None:
    loaded = load_model("tiny", home)
    (example,) = render_comparisons(comparisons[:1], loaded.renderer, max_tokens=200).rendered
    answers = own_answers(loaded, stages[0], [example] * 16, 12, seed=0)
    assert answers is not None
    said = [loaded.renderer.decode(ids) for _, ids in answers]
    assert len(set(said)) > 1
    assert sum("!" in text for text in said) > 8, "the base does not know the word's mark"
    room = loaded.model.context_length - 2
    longest, longer = (
        replace(example, prompt_ids=example.prompt_ids[:1] * size) for size in (room, room + 1)
    )
    found = own_answers(loaded, stages[0], [example, longest, longer], 2, seed=0)
    assert found is not None
    assert [len(prompt) for prompt, _ in found] == [len(example.prompt_ids), room]
    assert own_answers(loaded, stages[0], [example, longer], 2, seed=0) is None, "one score has no deviation"
    with pytest.raises(KeyError):
        loaded.model.adapter_tensors("answering")


def test_the_unit_is_that_of_the_sft_models_own_answers(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    start = load_model("tiny", home)
    start.model.add_adapter("sft", AdapterShape(4, 8), seed=3)
    save_adapter(start.model, "sft", tmp_path / "sft", base="tiny")
    config = CONFIG.model_copy(update={"members": 2, "answer_tokens": 6})
    run = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=False)
    train_reward(config, comparisons * 4, run, home, start=tmp_path / "sft")
    loaded = load_model("tiny", home)
    data = prepare_reward(config, comparisons * 4, loaded.renderer)
    answers = own_answers(loaded, tmp_path / "sft", data.held_out, 6, seed=config.seed)
    assert answers is not None
    assert {len(ids) for _, ids in answers} <= set(range(1, 7))
    sample = random.Random(config.seed).sample(data.held_out, len(data.held_out))
    answers = own_answers(loaded, tmp_path / "sft", sample, 6, seed=config.seed)
    judge = load_reward_model(loaded.model, run.folder / "adapter")
    rewards = score_completions(loaded.model, judge, answers or []).mean(dim=1)
    assert abs(float(rewards.mean())) < 1e-3
    assert float(rewards.std()) == pytest.approx(1, abs=1e-3)


def run_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("stop", [2, 5, 6, 9, 13])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(
    home: Path, comparisons: list[Comparison], tmp_path: Path, stop: int
) -> None:
    """Within a member, at its last step, at the next one's first, and within the last member."""
    config = CONFIG.model_copy(update={"checkpoint_every": 2, "evaluate_every": 2, "max_steps": 5})

    class Stopped(Exception):
        pass

    def stop_at(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if done == stop:
            raise Stopped

    whole = Run.open(tmp_path / "whole", "reward", config.model_dump(), resume=False)
    expected = train_reward(config, comparisons * 2, whole, home)
    run = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=False, progress=stop_at)
    with pytest.raises(Stopped):
        train_reward(config, comparisons * 2, run, home)
    again = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=True)
    assert train_reward(config, comparisons * 2, again, home) == expected
    assert run_files(again.folder) == run_files(whole.folder)

    def losses(folder: Path) -> list[tuple[int, float]]:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [(line["step"], line["loss"]) for line in lines]

    assert losses(again.folder) == losses(whole.folder)


def test_a_finished_member_is_not_trained_again(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    """Killed while the unit is found: all members are read, none is trained."""
    config = CONFIG.model_copy(update={"members": 2, "max_steps": 3})
    run = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "in_unit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train_reward(config, comparisons, run, home)
        patch.undo()
        patch.setattr(reward, "update", None)
        train_reward(config, comparisons, run, home)
    assert len(load_reward_model(load_model("tiny", home).model, run.folder / "adapter").members) == 2


def test_training_stops_when_held_out_prompts_say_so(
    home: Path, comparisons: list[Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([0.5, 0.7, 0.6, 0.9])
    monkeypatch.setattr(reward, "held_out_loss", lambda training, member: next(looks))
    config = CONFIG.model_copy(update={"members": 1, "evaluate_every": 1, "epochs": 3})
    run = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=False)
    train_reward(config, comparisons, run, home)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["held_out_loss"] for line in lines] == [0.5, 0.7, 0.6]
    once = config.model_copy(update={"max_steps": 1, "epochs": 1})
    looks = iter([0.5])
    first = Run.open(tmp_path / "first", "reward", once.model_dump(), resume=False)
    train_reward(once, comparisons, first, home)
    assert run_files(run.folder) == run_files(first.folder)  # the weights of the best look, the first


def test_a_chat_version_is_no_reward_model(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_reward_model(load_model("tiny", home).model, tmp_path)


def test_no_comparisons_is_said_plainly(home: Path, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", "reward", CONFIG.model_dump(), resume=False)
    with pytest.raises(DataError, match="no comparison to learn from among 0"):
        train_reward(CONFIG, [], run, home)


def test_data_without_anything_to_learn_is_said_plainly(home: Path) -> None:
    renderer = load_model("tiny", home).renderer
    asked = (Message("user", "hi"),)
    config = CONFIG.model_copy(update={"held_out": 0.0})
    tied = Comparison.from_ranking(asked, ["a", "b"], [[0, 1]])
    with pytest.raises(DataError, match="nothing but ties"):
        prepare_reward(config, [tied], renderer)
    single = Comparison.from_ranking(asked, ["alone"], [[0]])
    same = Comparison.from_ranking(asked, ["a", "a"], [[0], [1]])
    with pytest.raises(DataError, match=r"no comparison .* equal_texts: 1, .*unjudged: 2"):
        prepare_reward(config, [single, same], renderer)


def test_a_limit_past_the_context_is_refused_and_long_prompts_are_counted(
    home: Path, comparisons: list[Comparison], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_tokens": 4096})
    run = Run.open(tmp_path / "run", "reward", config.model_dump(), resume=False)
    with pytest.raises(ConfigError, match="max_tokens is 4096, and the context of tiny holds 1024"):
        train_reward(config, comparisons, run, home)
    long = Comparison.from_ranking((Message("user", "x" * 2000),), ["a", "b"], [[0], [1]])
    data = prepare_reward(CONFIG, [*comparisons, long], load_model("tiny", home).renderer)
    assert data.summary()["left_out"] == {"too_long": 1}


def test_a_model_of_each_half_sees_no_prompt_of_the_other(home: Path, comparisons: list[Comparison]) -> None:
    renderer = load_model("tiny", home).renderer
    roots = []
    for half in ("first", "second"):
        data = prepare_reward(CONFIG.model_copy(update={"half": half}), comparisons, renderer)
        roots.append({example.root for example in [*data.train, *data.held_out]})
    assert roots[0] & roots[1] == set()
    assert len(roots[0] | roots[1]) == len(comparisons)


def test_one_epoch_is_the_default_and_no_example_is_seen_twice(
    home: Path, comparisons: list[Comparison]
) -> None:
    data = prepare_reward(CONFIG, comparisons * 4, load_model("tiny", home).renderer)
    for steps in data.steps:
        assert sorted(index for step in steps for index in step) == list(range(len(data.train)))


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from tutelage.dialogue import Comparison, Message
from tutelage.training.metrics import Run
from tutelage.training.reward import RewardConfig, train_reward

torch.set_num_threads(1)
folder, home, settings, step = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
comparisons = [
    Comparison.from_ranking((Message("user", word),), ["a" * 9, "b", "ddd"], [[1], [2], [0]]) for word in "cdefghij"
]

def watch(stage, done, total, metrics):
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)

config = RewardConfig(**settings)
run = Run.open(folder, "reward", config.model_dump(), resume=folder.exists(), progress=watch)
train_reward(config, comparisons, run, home)
"""


def test_a_killed_run_ends_as_if_it_had_not_been(home: Path, tmp_path: Path) -> None:
    settings = {"model": "tiny", "members": 2, "batch_tokens": 60, "checkpoint_every": 2, "held_out": 0.3}

    def started(folder: Path, step: int) -> int:
        command = [sys.executable, "-c", KILLED, str(folder), str(home), json.dumps(settings), str(step)]
        return subprocess.run(command, check=False).returncode

    assert started(tmp_path / "whole", 0) == 0
    steps = len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines())
    assert started(tmp_path / "run", steps // 2 + 3) == -signal.SIGKILL
    assert started(tmp_path / "run", 0) == 0
    assert run_files(tmp_path / "run") == run_files(tmp_path / "whole")


def test_nobody_learns_from_those_who_guess(home: Path, comparisons: list[Comparison]) -> None:
    """A step of their comparisons alone would have a weight of 0 to divide by."""
    guessed = [replace(each, weight=0.0) for each in comparisons[:6]]
    config = CONFIG.model_copy(update={"held_out": 0.0})
    renderer = load_model("tiny", home).renderer
    data = prepare_reward(config, [*guessed, *comparisons[6:]], renderer)
    assert len(data.train) == len(comparisons) - 6
    assert data.summary()["left_out"] == {"guessed": 6}
    with pytest.raises(DataError, match="guessed: 6"):
        prepare_reward(config, guessed, renderer)


def test_nobody_is_judged_by_those_who_guess(home: Path, comparisons: list[Comparison]) -> None:
    """Accuracy would lie nearer to a half, and the temperature higher. They take no place under a limit, either."""
    config = CONFIG.model_copy(update={"held_out": 0.5, "limits": {"made": len(comparisons)}})
    guessed = [replace(each, weight=0.0) for each in comparisons]
    renderer = load_model("tiny", home).renderer
    data, without = (
        prepare_reward(config, rows, renderer) for rows in ([*guessed, *comparisons], comparisons)
    )
    assert (data.train, data.held_out) == (without.train, without.held_out)
    assert data.held_out
    assert data.summary()["left_out"] == {"guessed": len(guessed)}

"""`tutelage score`: every form of line, bad ones named, and the scorer of the server."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.cli import main
from tutelage.errors import ModelError
from tutelage.evaluation import torch_scorer
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import load_model
from tutelage.pipelines import score_lines, score_view
from tutelage.registry import Registry
from tutelage.training.reward_model import Judge, RewardModel, ValueModel, load_judge, save_reward_model

HI = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one reward version of two members and a chat version."""
    folder = tmp_path_factory.mktemp("home")
    loaded = load_model("tiny", folder)
    members = []
    for index in range(2):
        loaded.model.add_adapter(f"m{index}", AdapterShape(2, 4), seed=index)
        for parameter in loaded.model.adapter_parameters(f"m{index}"):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(index))
        members.append(ValueModel(f"m{index}", ScalarHead(loaded.model.width, seed=index)))
    save_reward_model(loaded.model, RewardModel(tuple(members), 2.0), folder / "made", base="tiny")
    registry = Registry(folder)
    registry.publish(kind="reward", model="tiny", files=folder / "made")
    registry.publish(kind="chat", model="tiny")
    return folder


@pytest.fixture(scope="module")
def judge(home: Path) -> Judge:
    return load_judge(Registry(home).get("r1"), home)


def scored(judge: Judge, *rows: object, file: str = "") -> tuple[list[dict[str, Any]], int]:
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    target = io.StringIO()
    failed = score_lines(io.BytesIO(lines.encode()), target, judge, file=file)
    return [json.loads(line) for line in target.getvalue().splitlines()], failed


def test_the_forms_of_a_line_agree(judge: Judge) -> None:
    rows, failed = scored(
        judge,
        {"messages": [HI, {"role": "assistant", "content": "yes"}]},
        {"prompt": "Hi", "completion": "yes"},
        {"prompt": [HI], "completion": "yes"},
        {"prompt": "Hi", "completions": ["no", "yes", ""]},
    )
    assert failed == 0
    single, text, messages, several = rows
    assert set(single) == {"reward", "deviation"}
    for other in (text, messages, several["rewards"][1]):
        assert other["reward"] == pytest.approx(single["reward"], abs=1e-5)
        assert other["deviation"] == pytest.approx(single["deviation"], abs=1e-5)
    assert single["deviation"] > 0
    rewards = [each["reward"] for each in several["rewards"]]
    assert several["best"] == rewards.index(max(rewards))


def test_the_chance_to_win_is_calibrated_by_the_temperature() -> None:
    view = score_view(torch.tensor([[2.0, 2.0], [0.0, 0.0], [1.0, -1.0]]), 2.0, several=True)
    sure = 1 / (1 + 2.718281828**-1)
    assert [row["wins"] for row in view["rewards"]] == pytest.approx(
        [sure, (1 - sure + 0.5) / 2, (1 - sure + 0.5) / 2]
    )
    assert [row["deviation"] for row in view["rewards"]] == [0, 0, 1]
    assert view["best"] == 0
    assert score_view(torch.tensor([[1.0]]), 1.0, several=True)["rewards"][0]["wins"] == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "not JSON"),
        ("7", "should be an object, not a number"),
        ({}, 'should have "messages"'),
        ({"messages": [HI]}, "should be the assistant's"),
        ({"prompt": "Hi"}, 'either "completion" or "completions"'),
        ({"prompt": "Hi", "completion": "a", "completions": ["b"]}, "either"),
        ({"prompt": "Hi", "completions": []}, "completions is empty"),
        ({"prompt": "Hi", "completion": 3}, "completion should be text, not a number"),
        ({"prompt": [], "completion": "a"}, "no user message"),
        ({"prompt": "x" * 1100, "completion": "a"}, "tokens, and the model's context holds 1024"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_scored(judge: Judge, row: object, problem: str) -> None:
    good = {"prompt": "Hi", "completion": "a"}
    rows, failed = scored(judge, good, row, good, file="some.jsonl")
    assert failed == 1
    assert rows[0]["reward"] == pytest.approx(rows[2]["reward"], abs=1e-5)
    assert problem in rows[1]["error"]["message"]
    assert (rows[1]["error"]["file"], rows[1]["error"]["line"]) == ("some.jsonl", 2)


def command(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> int:
    monkeypatch.setenv("TUTELAGE_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["tutelage", "score", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_file_and_a_single_prompt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps({"prompt": "Hi", "completion": "a"}) + "\n\nnonsense\n")
    assert command(monkeypatch, home, str(file)) == 1
    first, second = map(json.loads, capfd.readouterr().out.splitlines())
    assert (second["error"]["file"], second["error"]["line"]) == (str(file), 3)

    assert command(monkeypatch, home, "--prompt", "Hi", "--answer", "a", "--answer", "[b] c", "--json") == 0
    view = json.loads(capfd.readouterr().out)
    assert view["rewards"][0]["reward"] == pytest.approx(first["reward"], abs=1e-5)
    assert command(monkeypatch, home, "--prompt", "Hi", "--answer", "a", "--answer", "[b] c") == 0
    table = capfd.readouterr().out
    assert "deviation" in table
    assert "[b] c" in table


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--prompt", "Hi"], "--prompt goes with --answer"),
        (["--answer", "a"], "--prompt goes with --answer"),
        (["missing.jsonl"], "missing.jsonl: the file cannot be read"),
        (["--reward", "r7"], "There is no version “r7”"),
        (["--reward", "v1", "--prompt", "Hi", "--answer", "a"], "v1 is a chat model"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    assert command(monkeypatch, home, *arguments) == 2
    said = capfd.readouterr()
    assert problem in said.err
    assert said.out == ""


def test_the_servers_scorer_says_the_same(home: Path, judge: Judge) -> None:
    scorer = torch_scorer.load(Registry(home).get("r1"), home)
    assert (scorer.version, scorer.temperature, scorer.context_length) == ("r1", 2.0, 1024)
    pairs = [([5, 6], [7, 2]), ([5, 6, 8], [9, 9, 2])]
    rewards = asyncio.run(scorer.rewards(pairs))
    expected = judge.score([(prompt, [completion]) for prompt, completion in pairs])
    assert [each.value for each in rewards] == pytest.approx(
        [float(each.mean()) for each in expected], abs=1e-6
    )
    assert all(each.deviation > 0 for each in rewards)
    with pytest.raises(ModelError, match="chat model"):
        torch_scorer.load(Registry(home).get("v1"), home)

"""The whole circle on `tiny`, through the command line: killed anywhere, it goes on where it was."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tutelage.cli import main
from tutelage.cli.reports import round_report
from tutelage.config import load
from tutelage.improvement import ImproveConfig
from tutelage.store import Store, runs
from tutelage.store.ids import now

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    "sft.epochs=4",
    "sft.checkpoint_every=3",
    "reward.checkpoint_every=2",
    "ppo.steps=6",
    "ppo.prompts_per_step=16",
    "ppo.checkpoint_every=2",
    "ppo.max_new_tokens=12",
    "ppo.held_out_prompts=8",
    "ppo.gold.every=2",
    "ppo.mix.coefficient=0.1",
    "gold=true",
    "evaluation.prompts=8",
    "evaluation.max_new_tokens=12",
]
Command = Callable[..., tuple[object, str, str]]


def tutelage(home: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutelage", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(home),
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TUTELAGE_HOME": str(home), "OMP_NUM_THREADS": "1"}


def improve_command() -> list[str]:
    recipe = str(RECIPES / "tiny" / "improve.toml")
    return ["improve", recipe, "--json", *(part for each in SMALL for part in ("--set", each))]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the tiny data, to copy."""
    home = tmp_path_factory.mktemp("collected")
    for kind, name in (("messages", "demonstrations"), ("ranked", "comparisons")):
        done = tutelage(home, "import", kind, str(RECIPES / "tiny" / f"{name}.jsonl"))
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def straight(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A round that nobody interrupted."""
    home = tmp_path_factory.mktemp("straight") / "home"
    shutil.copytree(collected, home)
    done = tutelage(home, *improve_command())
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout)


def weights(home: Path) -> dict[str, bytes]:
    folder = home / "runs" / "round-0001"
    files = [
        file
        for stage in ("sft", "reward", "ppo")
        for file in folder.glob(f"{stage}/adapter/**/*.safetensors")
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_round_makes_a_candidate_with_its_lineage(straight: tuple[Path, dict]) -> None:
    home, report = straight
    assert (report["version"], report["reward_version"]) == ("v1", "r1")
    shown = json.loads(tutelage(home, "versions", "show", "candidate", "--json").stdout)
    text = json.dumps(shown)
    assert report["snapshot"] in text
    assert "round-0001" in text
    evaluation = report["evaluation"]
    assert evaluation["sft"]["held_out_loss"] < evaluation["sft"]["held_out_loss_before"]
    assert evaluation["ppo"]["kl"]["before"] == 0
    assert len(evaluation["answers"]) == 4
    assert set(evaluation["speakers"]) == {"before", "sft", "best_of_n", "after"}
    assert (
        evaluation["speakers"]["best_of_n"]["reward"]["value"]
        > evaluation["speakers"]["sft"]["reward"]["value"]
    )
    assert set(evaluation["baselines"]) == {"sft", "best_of_n"}
    assert evaluation["gate"]["outcome"] == "not_enough_data"
    watched = evaluation["ppo"]["over_optimisation"]
    assert [look["step"] for look in watched["curve"]][:2] == [0, 2]
    assert evaluation["ppo"]["watched_prompts"] >= 2


def test_the_report_tells_the_gate_the_watch_and_the_way_on(straight: tuple[Path, dict]) -> None:
    _, report = straight
    text = round_report(report)
    ppo = report["evaluation"]["ppo"]
    best = ppo["over_optimisation"]["best_step"]
    ending = ppo["stopped"] if ppo["stopped"].startswith("at ") else f"early, {ppo['stopped']}"
    assert f"published is step {best}; the run ended {ending}" in text
    assert "gate: not enough data, so it does not pass" in text
    assert text.endswith("let people chat with it: tutelage versions promote v1 --anyway")
    unwatched = {key: value for key, value in ppo.items() if key not in ("over_optimisation", "stopped")}
    told = round_report({**report, "evaluation": {**report["evaluation"], "ppo": unwatched}})
    assert "published is step" not in told


def test_warnings_are_told_in_the_terminal_too_while_a_round_keeps_its_log(tmp_path: Path) -> None:
    script = (
        "import logging; from pathlib import Path; from tutelage.cli.training import installation\n"
        "from tutelage.improvement.journal import journal\n"
        "with installation() as place, journal(place.home, print):\n"
        "    logging.getLogger('tutelage.improvement').warning('few')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stderr == "few\n"
    assert "WARNING few" in (tmp_path / "log.txt").read_text()


def test_judge_and_watcher_are_reward_models_of_their_own(straight: tuple[Path, dict]) -> None:
    folder = straight[0] / "runs" / "round-0001"
    made = [
        [file.read_bytes() for file in sorted((folder / name / "adapter").glob("**/*.safetensors"))]
        for name in ("reward", "judge", "gold")
    ]
    assert len({len(files) for files in made}) == 1
    for same in zip(*made, strict=True):
        assert len(set(same)) == 3


@pytest.fixture
def home(collected: Path, tmp_path: Path) -> Path:
    """A home that holds the tiny data."""
    shutil.copytree(collected, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.timeout(900)
def test_killed_in_every_stage_it_ends_with_the_same_weights(straight: tuple[Path, dict], home: Path) -> None:
    """A round that is killed in each of its stages, and goes on every time from where it was."""
    stages = {"sft": 4, "reward": 3, "gold": 2, "ppo": 3}
    for stage, step in stages.items():
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", *improve_command()],
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_step(process, home, stage, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = tutelage(home, *improve_command())
    assert done.returncode == 0, done.stderr
    assert weights(home) == weights(straight[0])
    for stage in stages:
        steps = [row["step"] for row in metrics(home, stage)]
        assert steps == list(range(len(steps))), stage
    report = json.loads(done.stdout)
    for key in ("win_rate_over_before", "speakers", "answers"):
        assert report["evaluation"][key] == straight[1]["evaluation"][key]


def metrics(home: Path, stage: str) -> list[dict]:
    file = home / "runs" / "round-0001" / stage / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def wait_for_step(process: subprocess.Popen, home: Path, stage: str, step: int) -> None:
    """Until the round that a process carries out has done so many steps of a stage."""
    file = home / "runs" / "round-0001" / stage / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (file.exists() and len(file.read_text().splitlines()) >= step):
        assert process.poll() is None, "the round ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.timeout(900)
def test_a_worker_that_was_killed_is_followed_by_one_other(straight: tuple[Path, dict], home: Path) -> None:
    """`kill -9` in the middle of a round: of two workers one takes it over when the lease is out, and ends it alike."""
    config = load(RECIPES / "tiny" / "improve.toml", ImproveConfig, SMALL).model_dump(mode="json")
    store = Store.open(home / "tutelage.db")
    with store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config).id
    first = start_worker(home)
    wait_for_step(first, home, "reward", 3)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    with store.write() as tx:
        left = runs.get_request(tx, request)
        assert (left.status, left.attempts, left.run_id is not None) == ("taken", 1, True)
        left.lease_expires = now()
    others = [start_worker(home) for _ in range(2)]
    said = [other.communicate()[0] for other in others]
    assert sorted(map(bool, said)) == [False, True], "one of the two had nothing to do"
    assert json.loads("".join(said)) == {"request": request, "error": None}
    with store.read() as tx:
        done = runs.get_request(tx, request)
        assert (done.status, done.attempts, done.run_id) == ("done", 2, left.run_id)
        assert [run.status for run in runs.list_runs(tx, kind="improve")] == ["done"]
    store.close()
    assert weights(home) == weights(straight[0])
    assert [folder.name for folder in (home / "runs").glob("round-*")] == ["round-0001"]


def start_worker(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tutelage", "worker", "--once", "--json"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process; returns its exit code, what it wrote to stdout, and what to stderr."""

    def run(home: Path, *arguments: str, stdin: str = "") -> tuple[object, str, str]:
        monkeypatch.setenv("TUTELAGE_HOME", str(home))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        return left.value.code, said.out, said.err

    return run


def test_lines_through_generate_and_score(straight: tuple[Path, dict], command: Command) -> None:
    home, _ = straight
    talk = [{"role": "user", "content": "Hi"}]
    lines = [
        json.dumps({"messages": talk}),
        "not json",
        json.dumps({"messages": []}),
        json.dumps({"messages": talk}),
    ]
    done = tutelage(home, "generate", "--version", "v1", "--max-tokens", "8", stdin="\n".join(lines) + "\n")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [sorted(answer) for answer in answers] == [
        ["completion", "finish_reason"],
        ["error"],
        ["error"],
        ["completion", "finish_reason"],
    ]
    assert [answers[i]["error"]["line"] for i in (1, 2)] == [2, 3]

    spoken = [
        {"messages": [*talk, {"role": "assistant", "content": text}]} for text in ("Hello.", "Go away.")
    ]
    done = tutelage(home, "score", "--reward", "latest", stdin="\n".join(map(json.dumps, spoken)))
    rewards = [json.loads(line)["reward"] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(rewards) == 2
    _, again, _ = command(home, "score", "--reward", "r1", stdin=json.dumps(spoken[1]))
    assert json.loads(again)["reward"] == pytest.approx(rewards[1], abs=1e-4)


def test_a_line_of_generate_does_not_depend_on_the_others(
    straight: tuple[Path, dict], command: Command
) -> None:
    any_seed = ("--seed", str(10**20))
    generate = partial(
        command, straight[0], "generate", "--version", "latest", "--max-tokens", "12", *any_seed
    )
    row = json.dumps({"messages": [{"role": "user", "content": "What colour is snow?"}]})
    other = json.dumps({"messages": [{"role": "user", "content": "Good morning to you all"}]})
    (_, alone, _), (_, among, _) = generate(stdin=row), generate(stdin=f"{row}\n{other}")
    assert json.loads(alone)["completion"]
    assert among.splitlines()[0] == alone.rstrip()


def test_a_terminal_chat_answers_each_line(straight: tuple[Path, dict], command: Command) -> None:
    home, _ = straight
    done = tutelage(home, "chat", "--version", "v1", stdin="Hi\n/again\n/new\n\nBye\n")
    assert done.returncode == 0, done.stderr
    assert "a new dialogue" in done.stdout
    many = "and what do you say to this " * 8  # the fourth has no room beside the first ones
    _, said, _ = command(
        home, "chat", "--version", "v1", "--json", stdin=f"Hi\n{many}\n{many}\n{many}\n{many}\n"
    )
    assert [json.loads(line)["role"] for line in said.splitlines()] == ["assistant"] * 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["improve", "recipes/nope.toml"], "no such recipe"),
        (
            ["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "sft.epoch=2"],
            "did you mean 'epochs'",
        ),
        (["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "sft.epochs=many"], "sft.epochs"),
        (["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "sft=3"], "sft: input should be"),
        (["train", "sft", str(RECIPES / "tiny" / "sft.toml"), "--set", "shares.made=0"], "shares.made"),
        (
            ["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "reward.model=builtin"],
            "share one base",
        ),
        (
            ["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "sft.held_out=0.1"],
            "ppo.held_out may not",
        ),
        (["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "sft.full=true"], "trains adapters"),
        (["improve", str(RECIPES / "tiny" / "improve.toml"), "--set", "ppo.full=true"], "trains adapters"),
        (["improve", str(RECIPES / "tiny" / "improve.toml")], "nothing to learn from"),
        (["train", "ppo", str(RECIPES / "tiny" / "ppo.toml")], "nothing to learn from"),
        (["train", "sft", str(RECIPES / "tiny" / "sft.toml"), "--resume"], "no unfinished sft run"),
        (["train", "sft", str(RECIPES / "tiny" / "sft.toml"), "--name", "../x"], "no name for a run"),
        (["generate", "--version", "v9"], "v9"),
        (["score"], "no reward model yet"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_hint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    for json_flag in ([], ["--json"]) if arguments[0] in ("improve", "train") else ([],):
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments, *json_flag])
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr().err
        assert left.value.code == 2
        assert says in (json.loads(said)["error"]["message"] + said if json_flag else said)
    assert not list(tmp_path.glob("runs/*"))


def test_data_that_cannot_be_trained_on_begins_no_round(tmp_path: Path, command: Command) -> None:
    """Demonstrations alone make no round; once comparisons have come, the same command works on all of it."""
    command(tmp_path, "import", "messages", str(RECIPES / "tiny" / "demonstrations.jsonl"))
    code, _, said = command(tmp_path, "improve", str(RECIPES / "tiny" / "improve.toml"))
    assert (code, "no comparison" in said) == (2, True)
    for stage in (["train", "sft", str(RECIPES / "tiny" / "sft.toml"), "--set", "max_tokens=4096"],):
        code, _, said = command(tmp_path, *stage)
        assert (code, "the context of tiny holds 1024" in said) == (2, True)
    assert not list(tmp_path.glob("runs/*"))

"""Rounds and stages without any training: who is given what, what is taken up again, what is published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import check
from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.errors import Conflict, DataError
from tutelage.evaluation.answers import Judges
from tutelage.improvement import ImproveConfig, improve, recording, rounds
from tutelage.improvement.recording import alone
from tutelage.improvement.stages import Installation, SnapshotData, StageRequest, train_stage
from tutelage.registry import Registry
from tutelage.registry.version import read_json
from tutelage.store import Store, imports, runs
from tutelage.training.dpo import DPOConfig
from tutelage.training.job import Job
from tutelage.training.metrics import Progress, Run
from tutelage.training.sft import SFTConfig

CONFIG = check(
    {
        "model": "tiny",
        **{name: {"held_out": 0.4, "seed": 7} for name in ("sft", "reward", "ppo")},
        "evaluation": {"prompts": 2},
    },
    ImproveConfig,
)
WATCHED = CONFIG.model_copy(update={"gold": True, "dpo": DPOConfig(model="tiny", held_out=0.4)})


class Hands:
    """A trainer that only notes what it is given, and leaves what a finished run leaves."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.falls: tuple[str, ...] = ()

    def __call__(self, job: Job, progress: Progress) -> dict[str, Any]:
        self.jobs.append(job)
        if job.run.name in self.falls:
            raise KeyboardInterrupt
        with (
            pytest.raises(Conflict),
            alone(job.run.parent if job.run.parent.name != "runs" else job.run),
        ):
            pass
        (job.run / "adapter").mkdir(parents=True)
        (job.run / "adapter" / "adapter_config.json").write_text("{}")
        (job.run / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        manifest = {
            "kind": "reward" if job.stage == "reward" else "chat",
            "model": job.config.model,
            "config": {"stage": job.stage},
            "evaluation": {"kl": {"after": 1.5}, "of": job.run.name},
            **job.lineage,
        }
        progress(job.stage, 1, 1, {})
        Run(job.run, job.stage).finish(manifest)
        return manifest


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def place(tmp_path: Path, empty_file: Path) -> Iterator[Installation]:
    shutil.copy(empty_file, tmp_path / "tutelage.db")
    store = Store.open(tmp_path / "tutelage.db")
    collect(store, "ours", range(20))
    yield Installation(tmp_path, store, Registry(tmp_path))
    store.close()


def collect(store: Store, source: str, numbers: range, *, compared: bool = True) -> None:
    """A demonstration and a comparison about each number."""
    with store.write() as tx:
        for number in numbers:
            asked = (Message("user", f"{source}: say {number}"),)
            imports.import_dialogue(tx, Dialogue((*asked, Message("assistant", "so")), source=source))
            if compared:
                comparison = Comparison.from_ranking(asked, ["a", "b"], [[0], [1]], source=source)
                imports.import_comparison(tx, comparison)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the assessment of each round was asked."""
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def assess(*given: Any, **named: Any) -> dict[str, Any]:
        asked.append((given, named))
        return {"gate": {"outcome": "passed", "checks": []}}

    monkeypatch.setattr(rounds, "assess", assess)
    return asked


def test_every_stage_is_given_what_those_before_it_made(
    place: Installation, hands: Hands, judged: list[Any]
) -> None:
    report = improve(WATCHED, place, trainer=hands)
    folder = place.home / "runs" / "round-0001"
    sft, reward, judge, gold, ppo, dpo = (
        folder / name / "adapter" for name in ("sft", "reward", "judge", "gold", "ppo", "dpo")
    )
    assert [(job.run.name, job.stage, job.start, job.reward, job.gold) for job in hands.jobs] == [
        ("sft", "sft", None, None, None),
        ("reward", "reward", sft, None, None),
        ("judge", "reward", sft, None, None),
        ("gold", "reward", sft, None, None),
        ("dpo", "dpo", sft, None, None),
        ("ppo", "ppo", sft, reward, gold),
    ]
    assert [job.config.seed for job in hands.jobs] == [7, 7, 1007, 2007, 0, 7]
    lineage = {"snapshot": report["snapshot"], "parents": [], "run": "round-0001"}
    for job in hands.jobs:
        assert (job.home, job.snapshot) == (place.home, place.home / "snapshots" / report["snapshot"])
        assert job.lineage == lineage
    ((settings, prompts, speakers), named) = judged[0]
    assert settings == WATCHED.evaluation
    assert len(prompts) == WATCHED.evaluation.prompts
    assert speakers == {"before": None, "sft": sft, "after": ppo, "dpo": dpo}
    assert (named["judges"], named["kl"], named["seed"]) == (Judges(reward, judge), 1.5, 7)
    candidate, scorer = place.registry.resolve("candidate"), place.registry.get(report["reward_version"])
    assert (candidate.name, candidate.run, candidate.parents) == (
        report["version"],
        "round-0001",
        (scorer.name,),
    )
    assert {name: candidate.evaluation[name]["of"] for name in ("sft", "reward", "ppo")} == {
        name: name for name in ("sft", "reward", "ppo")
    }
    assert (scorer.kind, scorer.parents, scorer.evaluation["of"]) == ("reward", (), "reward")
    kept = read_json(folder / "round.json")
    assert (kept["snapshot"], kept["parent"], kept["report"]["version"]) == (report["snapshot"], None, "v1")
    assert kept["config"] == WATCHED.model_dump()


def test_a_round_of_few_comparisons_says_so_and_goes_on(
    place: Installation, hands: Hands, judged: list[Any]
) -> None:
    improve(CONFIG, place, trainer=hands)
    collect(place.store, "more", range(80))
    improve(CONFIG, place, trainer=hands)
    logs = [(place.home / "runs" / name / "log.txt").read_text() for name in ("round-0001", "round-0002")]
    assert ["20 comparisons are few" in log for log in logs] == [True, False]


def test_the_next_round_stands_beside_the_stable_version_and_names_it(
    place: Installation, hands: Hands, judged: list[Any]
) -> None:
    first = improve(CONFIG, place, trainer=hands)
    assert "gold" not in {job.run.name for job in hands.jobs}
    assert hands.jobs[-1].gold is None
    place.registry.promote(first["version"])
    second = improve(CONFIG, place, trainer=hands)
    assert (second["round"], second["parent"]) == ("round-0002", first["version"])
    assert judged[1][0][2]["before"] == place.registry.get(first["version"]).adapter
    candidate, scorer = place.registry.resolve("candidate"), place.registry.get(second["reward_version"])
    assert candidate.name == second["version"] != first["version"]
    assert (scorer.parents, candidate.parents) == ((first["version"],), (first["version"], scorer.name))


def test_an_interrupted_round_goes_on_with_its_own_recipe_and_data(
    place: Installation, hands: Hands, judged: list[Any]
) -> None:
    hands.falls = ("ppo",)
    with pytest.raises(KeyboardInterrupt):
        improve(CONFIG, place, trainer=hands)
    snapshot = hands.jobs[0].snapshot
    collect(place.store, "later", range(3))
    hands.falls = ()
    other = CONFIG.model_copy(update={"sources": ["ours"]})
    assert improve(other, place, trainer=hands)["round"] == "round-0002"
    hands.jobs.clear()
    told: list[str] = []
    report = improve(CONFIG, place, trainer=hands, progress=lambda stage, *rest: told.append(stage))
    assert report["round"] == "round-0001"
    assert [(job.run.name, job.snapshot) for job in hands.jobs] == [("ppo", snapshot)]
    assert told == ["ppo", "evaluation", "evaluation"]
    with place.store.read() as tx:
        assert [run.status for run in runs.list_runs(tx, kind="improve")] == ["done", "done"]


def test_a_round_that_fell_after_publishing_publishes_once(
    place: Installation, hands: Hands, judged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Run.keep

    def falls(run: Run, name: str, content: dict[str, Any]) -> None:
        if "report" in content:
            raise KeyboardInterrupt
        keep(run, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "keep", falls)
        with pytest.raises(KeyboardInterrupt):
            improve(CONFIG, place, trainer=hands)
    report = improve(CONFIG, place, trainer=hands)
    assert {version.name for version in place.registry.list()} == {
        report["version"],
        report["reward_version"],
    }


def test_a_round_that_another_process_has_ended_is_only_read(
    place: Installation, hands: Hands, judged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = improve(CONFIG, place, trainer=hands)
    monkeypatch.setattr(rounds, "_open_round", lambda *given: place.home / "runs" / report["round"])
    hands.jobs.clear()
    assert improve(CONFIG, place, trainer=hands) == report
    assert (hands.jobs, len(judged)) == ([], 1)


def test_a_round_that_another_process_works_on_is_waited_for(
    place: Installation, hands: Hands, judged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.01)
    hands.falls = ("ppo",)
    with pytest.raises(KeyboardInterrupt):
        improve(CONFIG, place, trainer=hands)
    hands.falls = ()
    with ExitStack() as other:
        other.enter_context(alone(place.home / "runs" / "round-0001"))
        waited = iter((None, None, other.close))  # the third time, it has ended
        report = improve(CONFIG, place, trainer=hands, waiting=lambda: (next(waited) or (lambda: None))())
    assert report["round"] == "round-0001"
    assert next(waited, "all") == "all"


def test_a_round_takes_the_sources_that_it_names_and_begins_with_none_of_nothing(
    place: Installation, hands: Hands, judged: list[Any]
) -> None:
    collect(place.store, "theirs", range(20))
    improve(CONFIG.model_copy(update={"sources": ["theirs"]}), place, trainer=hands)
    found = SnapshotData.read(hands.jobs[0].snapshot)
    assert {dialogue.source for dialogue in found.demonstrations} == {"theirs"}
    collect(place.store, "unjudged", range(20), compared=False)
    for source, says in (("nobody", "nothing to learn from"), ("unjudged", "no comparison")):
        with pytest.raises(DataError, match=says):
            improve(CONFIG.model_copy(update={"sources": [source]}), place, trainer=hands)
    assert [path.name for path in (place.home / "runs").iterdir()] == ["round-0001"]


SFT = SFTConfig(model="tiny")


def test_a_stage_goes_on_with_the_data_it_began_with(place: Installation, hands: Hands) -> None:
    hands.falls = ("sft-0001", "sft-0002")
    for _ in hands.falls:
        with pytest.raises(KeyboardInterrupt):
            train_stage(StageRequest("sft", SFT), place, trainer=hands)
    hands.falls = ()
    collect(place.store, "later", range(3))
    train_stage(StageRequest("sft", SFT), place, trainer=hands)
    again = train_stage(StageRequest("sft", SFT, resume=True), place, trainer=hands)
    assert [job.run.name for job in hands.jobs] == ["sft-0001", "sft-0002", "sft-0003", "sft-0002"]
    first, broken, later, resumed = (job.snapshot for job in hands.jobs)
    assert first == broken == resumed != later
    assert again["snapshot"] == broken.name


def test_a_stage_starts_from_the_newest_finished_run_or_what_is_named(
    place: Installation, hands: Hands
) -> None:
    for _ in range(2):
        train_stage(StageRequest("sft", SFT), place, trainer=hands)
    assert hands.jobs[1].start is None, "SFT starts from the base"
    runs_folder = place.home / "runs"
    dpo = DPOConfig(model="tiny")
    train_stage(StageRequest("dpo", dpo), place, trainer=hands)
    assert hands.jobs[-1].start == runs_folder / "sft-0002" / "adapter"
    made = train_stage(StageRequest("dpo", dpo, start="sft-0001"), place, trainer=hands)
    assert hands.jobs[-1].start == runs_folder / "sft-0001" / "adapter"
    assert (made["run"], made["parents"]) == ("dpo-0002", [])

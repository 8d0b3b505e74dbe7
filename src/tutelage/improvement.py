"""One round of the circle: snapshot, SFT, reward model, PPO, a first evaluation, a candidate version.

Every stage is a run of its own in the round's folder, and says when it is finished. So a round that was
interrupted anywhere goes on where it was: finished stages are read, the one under way resumes at its checkpoint.
Each round trains anew from the base on everything that has been collected, so rounds do not pile up drift.

runs/round-0001/config.json     the recipe
runs/round-0001/round.json      snapshot, parent version, and in the end the versions made
runs/round-0001/{sft,reward,ppo}/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from tutelage.config import Settings
from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import Conflict, InvalidRequest, NotFound, TutelageError
from tutelage.evaluation.answers import answer_all, side_by_side, win_rate
from tutelage.models.locate import locate
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import load_renderer
from tutelage.store import Store, export, runs
from tutelage.training.metrics import Progress, Run, no_progress, write_json
from tutelage.training.ppo import PPOConfig, PPOData, prepare_ppo, train_ppo
from tutelage.training.reward import RewardConfig, RewardData, prepare_reward, train_reward
from tutelage.training.sft import SFTConfig, SFTData, prepare_sft, train_sft

Stage = Literal["sft", "reward", "ppo"]
SCHEMAS: dict[Stage, type[SFTConfig] | type[RewardConfig] | type[PPOConfig]] = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
}


@dataclass(frozen=True, slots=True)
class Installation:
    """The data folder, and the store and the versions in it."""

    home: Path
    store: Store
    registry: Registry


RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class EvaluationConfig(Settings):
    """Settings of the first evaluation: `prompts` held-out prompts, of which `shown` are kept with their answers."""

    prompts: int = Field(default=48, ge=1)
    shown: int = Field(default=5, ge=0)
    max_new_tokens: int = Field(default=96, ge=1)


class ImproveConfig(Settings):
    """Settings of a round. `model` is the base of every stage; `sources` empty takes all that was collected."""

    model: str = "builtin"
    sources: list[str] = Field(default_factory=list)
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_base(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """All stages share the base: it is named once, at the top."""
        model = raw.get("model", "builtin")
        sections: dict[str, Any] = {name: {"model": model, **raw.get(name, {})} for name in SCHEMAS}
        if any(section["model"] != model for section in sections.values()):
            raise ValueError("the stages of a round share one base: set `model` at the top, not in a section")
        return {**raw, **sections}


@dataclass(frozen=True, slots=True)
class SnapshotData:
    """What a snapshot's folder holds."""

    demonstrations: list[Dialogue]
    comparisons: list[Comparison]
    prompts: list[Dialogue]

    @classmethod
    def read(cls, folder: Path) -> SnapshotData:
        """Raises DataError when the folder is not a whole snapshot."""
        return cls(
            list(export.read_demonstrations(folder)),
            list(export.read_comparisons(folder)),
            list(export.read_prompts(folder)),
        )


def improve(
    config: ImproveConfig, place: Installation, *, progress: Progress = no_progress
) -> dict[str, Any]:
    """Run a round, or go on with the unfinished one of the same recipe; returns its report.

    The candidate is published and gets the alias `candidate`. Raises what its stages raise; whatever
    happens, the round can be taken up again.
    """
    folder = _open_round(config, place)
    settings = config.model_dump()
    with recorded(place.store, folder.name, "improve", settings):
        state = json.loads((folder / "round.json").read_text(encoding="utf-8"))
        if "report" in state:
            return dict(state["report"])
        snapshot = place.home / "snapshots" / state["snapshot"]
        parent = place.registry.get(state["parent"]) if state["parent"] else None
        lineage = {
            "snapshot": state["snapshot"],
            "parents": [parent.name] if parent else [],
            "run": folder.name,
        }

        def stage(name: Stage) -> Run:
            section = getattr(config, name).model_dump()
            return Run.open(folder / name, name, section, resume=True, progress=progress)

        sft, reward, ppo = stage("sft"), stage("reward"), stage("ppo")
        data = SnapshotData.read(snapshot)
        start, judge = sft.folder / "adapter", reward.folder / "adapter"
        made = {
            "sft": train_sft(config.sft, data.demonstrations, sft, place.home, lineage=lineage),
            "reward": train_reward(
                config.reward, data.comparisons, reward, place.home, start=start, lineage=lineage
            ),
            "ppo": train_ppo(
                config.ppo, data.prompts, ppo, place.home, start=start, reward=judge, lineage=lineage
            ),
        }
        progress("evaluation", 0, 1, {})
        evaluation = _evaluate(config, place, folder, data.prompts, parent)
        progress("evaluation", 1, 1, {})
        evaluation |= {name: manifest["evaluation"] for name, manifest in made.items()}
        report = {"round": folder.name, "snapshot": state["snapshot"], "parent": state["parent"]}
        report |= _publish(place, folder, made, evaluation, lineage) | {"evaluation": evaluation}
        write_json(folder / "round.json", {**state, "report": report})
    return report


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One stage to train by itself. `start` and `reward` name runs or versions; empty takes the newest fitting run."""

    stage: Stage
    config: SFTConfig | RewardConfig | PPOConfig
    name: str = ""
    start: str = ""
    reward: str = ""
    snapshot: str = ""
    resume: bool = False


def train_stage(
    request: StageRequest, place: Installation, *, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train one stage as a run of its own; returns its manifest with the run's name and folder.

    Raises NotFound for unknown names, Conflict when the run exists already, and what the stage raises.
    """
    folder = _run_folder(request, place)
    settings = request.config.model_dump()
    plan_file = folder / "plan.json"
    begun = plan_file.exists()
    plan = json.loads(plan_file.read_text(encoding="utf-8")) if begun else _plan(request, place)
    data = SnapshotData.read(place.home / "snapshots" / plan["snapshot"])
    if not begun:
        prepare(request.config, data, place.home)  # what cannot be trained leaves no run behind
    run = Run.open(folder, request.stage, settings, resume=request.resume, progress=progress)
    if not begun:
        write_json(plan_file, plan)
    start = Path(plan["start"]) if plan["start"] else None
    lineage = {"snapshot": plan["snapshot"], "parents": plan["parents"], "run": folder.name}
    with recorded(place.store, folder.name, request.stage, settings):
        match request.config:
            case SFTConfig() as config:
                manifest = train_sft(
                    config, data.demonstrations, run, place.home, start=start, lineage=lineage
                )
            case RewardConfig() as config:
                manifest = train_reward(
                    config, data.comparisons, run, place.home, start=start, lineage=lineage
                )
            case PPOConfig() as config:
                assert start is not None
                reward = Path(plan["reward"])
                manifest = train_ppo(
                    config, data.prompts, run, place.home, start=start, reward=reward, lineage=lineage
                )
    return {"run": folder.name, "folder": str(folder), **manifest}


def describe_stage(request: StageRequest, place: Installation) -> dict[str, Any]:
    """What `train_stage` would train on, in numbers; nothing is trained and no run is made."""
    plan = _plan(request, place)
    data = SnapshotData.read(place.home / "snapshots" / plan["snapshot"])
    return {"stage": request.stage, **plan, **prepare(request.config, data, place.home).summary()}


def prepare(
    config: SFTConfig | RewardConfig | PPOConfig, data: SnapshotData, home: Path
) -> SFTData | RewardData | PPOData:
    """A stage's data as it would be trained on. Raises DataError when there is nothing to train on."""
    renderer = load_renderer(locate(config.model, home))
    match config:
        case SFTConfig():
            return prepare_sft(config, data.demonstrations, renderer)
        case RewardConfig():
            return prepare_reward(config, data.comparisons, renderer)
        case PPOConfig():
            return prepare_ppo(config, data.prompts, renderer)


def _plan(request: StageRequest, place: Installation) -> dict[str, Any]:
    """The inputs of a stage, fixed when its run begins: snapshot, adapters to start from, parent versions."""
    snapshot = request.snapshot or export.snapshot(place.store, place.home).hash
    start = find_adapter(place, request.start, "sft") if request.start or request.stage == "ppo" else None
    reward = find_adapter(place, request.reward, "reward") if request.stage == "ppo" else None
    known = {version.name for version in place.registry.list()}
    return {
        "snapshot": snapshot,
        "start": str(start) if start else "",
        "reward": str(reward) if reward else "",
        "parents": [name for name in (request.start, request.reward) if name in known],
    }


def find_adapter(place: Installation, name: str, stage: Stage) -> Path:
    """The adapter of a version or a finished run; without a name, of the newest finished run of the stage."""
    finished = sorted(path.parent for path in (place.home / "runs").glob("*/manifest.json"))
    if not name:
        fitting = [folder for folder in finished if folder.name.startswith(f"{stage}-")]
        if not fitting:
            raise NotFound(
                f"there is no finished {stage} run", hint=f"run `tutelage train {stage} RECIPE` first"
            )
        return fitting[-1] / "adapter"
    for folder in finished:
        if folder.name == name:
            return folder / "adapter"
    adapter = place.registry.resolve(name, kind="reward" if stage == "reward" else "chat").adapter
    if adapter is None:
        raise NotFound(
            f"{name} is a bare base model: it has no adapter", hint="name an SFT run or a tuned version"
        )
    return adapter


def _run_folder(request: StageRequest, place: Installation) -> Path:
    runs_folder = place.home / "runs"
    if request.name:
        if not RUN_NAME.fullmatch(request.name):
            raise InvalidRequest(
                f"{request.name!r} is no name for a run",
                hint="use letters, digits, dots, dashes and underscores",
            )
        return runs_folder / request.name
    numbered = sorted(runs_folder.glob(f"{request.stage}-[0-9]*"))
    if request.resume:
        open_runs = [folder for folder in numbered if not (folder / "manifest.json").exists()]
        if not open_runs:
            raise NotFound(
                f"there is no unfinished {request.stage} run", hint="leave out --resume to begin one"
            )
        return open_runs[-1]
    number = 1 + max((int(folder.name.rpartition("-")[2]) for folder in numbered), default=0)
    return runs_folder / f"{request.stage}-{number:04d}"


def _open_round(config: ImproveConfig, place: Installation) -> Path:
    """The unfinished round of this recipe, or a new one with a snapshot of what has been collected."""
    rounds = sorted((place.home / "runs").glob("round-[0-9]*"))
    settings = json.loads(json.dumps(config.model_dump()))
    for folder in reversed(rounds):
        if (folder / "round.json").exists():
            state = json.loads((folder / "round.json").read_text(encoding="utf-8"))
            if "report" not in state and state["config"] == settings:
                return folder
    snapshot = export.snapshot(place.store, place.home, sources=config.sources or None)
    data = SnapshotData.read(snapshot.path)
    for stage in (config.sft, config.reward, config.ppo):
        prepare(stage, data, place.home)  # a round that could not end is not begun
    try:
        parent = place.registry.resolve("stable").name
    except NotFound:
        parent = None
    number = 1 + max((int(folder.name.removeprefix("round-")) for folder in rounds), default=0)
    folder = place.home / "runs" / f"round-{number:04d}"
    folder.mkdir(parents=True)
    write_json(folder / "round.json", {"config": settings, "snapshot": snapshot.hash, "parent": parent})
    return folder


def _evaluate(
    config: ImproveConfig,
    place: Installation,
    folder: Path,
    prompts: Sequence[Dialogue],
    parent: ModelVersion | None,
) -> dict[str, Any]:
    """Answers of the version before, the SFT model and the candidate to prompts that no stage has trained on."""
    renderer = load_renderer(locate(config.model, place.home))
    settings = config.ppo.model_copy(update={"held_out_prompts": config.evaluation.prompts})
    held_out = prepare_ppo(settings, prompts, renderer).held_out
    same_base = parent is not None and parent.model == config.model
    before = parent.adapter if parent is not None and same_base else None
    speakers = {"before": before, "sft": folder / "sft" / "adapter", "after": folder / "ppo" / "adapter"}
    answers = answer_all(
        config.model,
        place.home,
        held_out,
        speakers,
        reward=folder / "reward" / "adapter",
        max_new_tokens=config.evaluation.max_new_tokens,
        seed=config.ppo.seed + 3,
    )
    seed = config.ppo.seed
    return {
        "prompts": len(held_out),
        "speakers": {name: each.summary(seed=seed) for name, each in answers.items()},
        "win_rate_over_before": win_rate(answers["after"], answers["before"], seed=seed),
        "win_rate_over_sft": win_rate(answers["after"], answers["sft"], seed=seed),
        "answers": side_by_side(held_out, answers, config.evaluation.shown),
    }


def _publish(
    place: Installation,
    folder: Path,
    made: dict[str, dict[str, Any]],
    evaluation: dict[str, Any],
    lineage: dict[str, Any],
) -> dict[str, str]:
    """Publish reward model and candidate, unless an interrupted attempt has done so already."""
    published = {version.kind: version for version in place.registry.list() if version.run == folder.name}
    base = {"model": made["ppo"]["model"], "snapshot": lineage["snapshot"], "run": folder.name}
    reward = published.get("reward") or place.registry.publish(
        kind="reward",
        files=folder / "reward" / "adapter",
        parents=lineage["parents"],
        config=made["reward"]["config"],
        evaluation=made["reward"]["evaluation"],
        **base,
    )
    candidate = published.get("chat") or place.registry.publish(
        kind="chat",
        files=folder / "ppo" / "adapter",
        parents=[*lineage["parents"], reward.name],
        config={name: manifest["config"] for name, manifest in made.items()},
        evaluation=evaluation,
        **base,
    )
    place.registry.promote(candidate.name, alias="candidate")
    return {"version": candidate.name, "reward_version": reward.name}


@contextmanager
def recorded(store: Store, name: str, kind: str, settings: dict[str, Any]) -> Iterator[None]:
    """Keep a run's row in the store: running inside the block, then done, failed or stopped."""
    with store.write() as tx:
        try:
            run_id = runs.create_run(tx, kind=kind, config=settings, name=name).id
        except Conflict:
            run_id = runs.get_run(tx, name).id
        runs.update_run(tx, run_id, status="running", error="")

    def note(status: Literal["done", "failed", "stopped"], error: str = "") -> None:
        with store.write() as tx:
            runs.update_run(tx, run_id, status=status, error=error)

    try:
        yield
    except KeyboardInterrupt:
        note("stopped")
        raise
    except BaseException as error:
        note("failed", str(error) if isinstance(error, TutelageError) else repr(error))
        raise
    note("done")

"""One stage trained as a run of its own: its data, its inputs by name, its row in the store."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.improvement.inputs import find_adapter, find_start
from tutelage.improvement.naming import RUN_NAME, new_run, numbered
from tutelage.improvement.recording import alone, recorded
from tutelage.models.loading import check_room
from tutelage.models.locate import locate
from tutelage.models.transformer import read_architecture
from tutelage.registry import Registry
from tutelage.registry.version import MANIFEST, read_json
from tutelage.rendering import load_renderer
from tutelage.store import Store, export
from tutelage.training.comparisons import ComparisonData
from tutelage.training.dpo import DPOConfig, prepare_dpo
from tutelage.training.job import Job, Recipe, Stage, Trainer, train
from tutelage.training.metrics import Progress, Run, no_progress
from tutelage.training.ppo import PPOConfig, PPOData, prepare_ppo
from tutelage.training.reward import RewardConfig, prepare_reward
from tutelage.training.sft import SFTConfig, SFTData, prepare_sft

log = logging.getLogger(__name__)

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Installation:
    """The data folder, and the store and the versions in it."""

    home: Path
    store: Store
    registry: Registry


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


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One stage to train by itself. `start` and `reward` name runs or versions; empty takes the newest fitting run.

    `gold` names a second reward model, which watches PPO for over-optimisation; empty takes none.
    """

    stage: Stage
    config: Recipe
    name: str = ""
    start: str = ""
    reward: str = ""
    gold: str = ""
    snapshot: str = ""
    resume: bool = False


def train_stage(
    request: StageRequest,
    place: Installation,
    *,
    trainer: Trainer = train,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train one stage as a run of its own; returns its manifest with the run's name and folder.

    `trainer` says where: in this process, in several, or on a cluster.

    Raises NotFound for unknown names, Conflict when the run exists already, and what the stage raises.
    """
    folder = _known_run(request, place)
    begun = folder is not None and (folder / PLAN).exists()
    if folder is not None and begun:
        plan = read_json(folder / PLAN)
        if request.resume:
            _check_inputs(request, place, plan)
    else:
        plan = _plan(request, place)
        data = SnapshotData.read(place.home / "snapshots" / plan["snapshot"])
        # What cannot be trained leaves no run behind.
        prepare(request.config, data, place.home, gold=bool(plan["gold"]))
    settings = request.config.model_dump()
    run = Run.open(folder or new_run(place, request.stage), request.stage, settings, resume=request.resume)
    if not begun:
        run.keep(PLAN, plan)
    job = Job(
        stage=request.stage,
        config=request.config,
        home=place.home,
        run=run.folder,
        snapshot=place.home / "snapshots" / plan["snapshot"],
        start=Path(plan["start"]) if plan["start"] else None,
        reward=Path(plan["reward"]) if plan["reward"] else None,
        gold=Path(plan["gold"]) if plan["gold"] else None,
        lineage={"snapshot": plan["snapshot"], "parents": plan["parents"], "run": run.folder.name},
    )
    with alone(run.folder), recorded(place.store, run.folder.name, request.stage, settings):
        manifest = run.manifest() if run.finished else trainer(job, progress)
    return {"run": run.folder.name, "folder": str(run.folder), **manifest}


def describe_stage(request: StageRequest, place: Installation) -> dict[str, Any]:
    """What `train_stage` would train on, in numbers; nothing is trained and no run is made."""
    plan = _plan(request, place)
    data = SnapshotData.read(place.home / "snapshots" / plan["snapshot"])
    found = prepare(request.config, data, place.home, gold=bool(plan["gold"]))
    return {"stage": request.stage, **plan, **found.summary()}


def prepare(
    config: Recipe, data: SnapshotData, home: Path, *, gold: bool = False
) -> SFTData | ComparisonData | PPOData:
    """A stage's data as it would be trained on.

    Raises DataError when there is nothing to train on, ConfigError when it would not fit into the model's context.
    """
    folder = locate(config.model, home)
    shape = read_architecture(folder)
    if shape is not None:  # of other families' models, the context is known when they are loaded
        check_room(config.model, shape.context_length, config.longest)
    renderer = load_renderer(folder)
    match config:
        case SFTConfig():
            return prepare_sft(config, data.demonstrations, renderer)
        case RewardConfig():
            return prepare_reward(config, data.comparisons, renderer)
        case PPOConfig():
            return prepare_ppo(config, data.prompts, renderer, demonstrations=data.demonstrations, gold=gold)
        case DPOConfig():
            return prepare_dpo(config, data.comparisons, renderer)


def _plan(request: StageRequest, place: Installation) -> dict[str, Any]:
    """The inputs of a stage, fixed when its run begins: snapshot, adapters to start from, parent versions."""
    snapshot = request.snapshot or export.snapshot(place.store, place.home).hash
    model = request.config.model
    needs_start = request.stage in ("ppo", "dpo")
    start = find_start(place, request.start, model) if request.start or needs_start else None
    reward = find_adapter(place, request.reward, "reward", model) if request.stage == "ppo" else None
    gold = find_adapter(place, request.gold, "reward", model) if request.gold else None
    known = {version.name for version in place.registry.survey()[0]}
    return {
        "snapshot": snapshot,
        "start": str(start) if start else "",
        "reward": str(reward) if reward else "",
        "gold": str(gold) if gold else "",
        "parents": [n for n in dict.fromkeys((model, request.start, request.reward)) if n in known],
    }


def _check_inputs(request: StageRequest, place: Installation, plan: dict[str, Any]) -> None:
    """What is named again when a run goes on is what it began with. Raises Conflict."""
    model = request.config.model
    named = {"snapshot": request.snapshot}
    if request.start:
        named["start"] = str(find_start(place, request.start, model) or "")
    if request.reward:
        named["reward"] = str(find_adapter(place, request.reward, "reward", model))
    if request.gold:
        named["gold"] = str(find_adapter(place, request.gold, "reward", model))
    for option, now in named.items():
        if getattr(request, option) and now != plan[option]:
            raise Conflict(
                f"this run began with --{option} {plan[option] or 'left out'}, and not with {now}",
                hint=f"leave out --{option} to go on with it, or begin a new run",
            )


def _known_run(request: StageRequest, place: Installation) -> Path | None:
    """The run that is asked for by its name, or the newest unfinished one to go on with; None for a new number."""
    runs_folder = place.home / "runs"
    if request.name:
        if not RUN_NAME.fullmatch(request.name):
            raise InvalidRequest(
                f"{request.name!r} is no name for a run",
                hint="use letters, digits, dots, dashes and underscores",
            )
        return runs_folder / request.name
    if not request.resume:
        return None
    unfinished = [run for run in numbered(runs_folder, request.stage) if not (run / MANIFEST).exists()]
    if not unfinished:
        raise NotFound(f"there is no unfinished {request.stage} run", hint="leave out --resume to begin one")
    return unfinished[-1]

"""One round of the circle: snapshot, SFT, reward model, judge, PPO, evaluation, gate, a candidate version.

Every stage is a run of its own in the round's folder, and says when it is finished. So a round that was
interrupted anywhere goes on where it was: finished stages are read, the one under way resumes at its checkpoint.
Each round trains anew from the base on everything that has been collected, so rounds do not pile up drift.

runs/round-0001/config.json     the recipe
runs/round-0001/round.json      snapshot, parent version, and in the end the versions made
runs/round-0001/log.txt         what happened, line by line
runs/round-0001/{sft,reward,judge,ppo}/    and gold/, dpo/ where the recipe wants them
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from tutelage.config import Settings
from tutelage.dialogue import Dialogue
from tutelage.errors import ModelError, NotFound
from tutelage.evaluation.answers import Judges, Speaker
from tutelage.evaluation.doubts import few_comparisons
from tutelage.improvement.assessment import EvaluationConfig, assess
from tutelage.improvement.journal import journal
from tutelage.improvement.naming import new_run, numbered
from tutelage.improvement.recording import alone, noting, recorded
from tutelage.improvement.stages import Installation, SnapshotData, prepare
from tutelage.models.locate import locate
from tutelage.registry import ModelVersion
from tutelage.registry.version import read_json
from tutelage.rendering import load_renderer
from tutelage.store import export
from tutelage.training.dpo import DPOConfig
from tutelage.training.job import ROUND, Job, Recipe, Stage, Trainer, train
from tutelage.training.metrics import Progress, Run, no_progress
from tutelage.training.ppo import PPOConfig
from tutelage.training.ppo_recipe import split_prompts
from tutelage.training.reward import RewardConfig
from tutelage.training.sft import SFTConfig

log = logging.getLogger(__name__)

STATE = "round.json"
JUDGE_SEED, GOLD_SEED = 1000, 2000


class ImproveConfig(Settings):
    """Settings of a round. `model` is the base of every stage; `sources` empty takes all that was collected.

    With a section `dpo`, that baseline is trained beside PPO and stands in the same table. With `gold`, a third reward
    model watches PPO on prompts held out for it: PPO ends where more reward stops being better, and gives its best
    moment. The judge stays out of that, or the gate would measure with what had chosen.
    """

    model: str = "builtin"
    sources: list[str] = Field(default_factory=list)
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()
    dpo: DPOConfig | None = None
    gold: bool = False
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def judge(self) -> RewardConfig:
        """The reward model that only judges: the recipe of the other, from other seeds."""
        return self._reward_from(JUDGE_SEED)

    @property
    def watcher(self) -> RewardConfig:
        """The reward model that watches PPO."""
        return self._reward_from(GOLD_SEED)

    def _reward_from(self, seed: int) -> RewardConfig:
        return self.reward.model_copy(update={"seed": self.reward.seed + seed})

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_base(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """All stages share the base: it is named once, at the top."""
        model = raw.get("model", "builtin")
        wanted = [*ROUND, *(["dpo"] if raw.get("dpo") is not None else [])]
        given = {name: raw.get(name, {}) for name in wanted}
        if not all(isinstance(section, dict) for section in given.values()):
            return raw  # which is refused with the name of the section
        sections: dict[str, Any] = {name: {"model": model, **section} for name, section in given.items()}
        if "dpo" in sections and "held_out" in sections["reward"]:  # both learn from the same comparisons
            sections["dpo"] = {"held_out": sections["reward"]["held_out"], **sections["dpo"]}
        if any(section["model"] != model for section in sections.values()):
            raise ValueError("the stages of a round share one base: set `model` at the top, not in a section")
        return {**raw, **sections}

    @pydantic.model_validator(mode="after")
    def _unseen_prompts(self) -> ImproveConfig:
        """What is held out of PPO is held out of all: the roots of a smaller share lie within a larger one.

        A round's stages share one frozen base, so none of them may train it.
        """
        if self.sft.full or self.ppo.full or (self.dpo is not None and self.dpo.full):
            raise ValueError(
                "a round trains adapters: publish a run of `tutelage train` that trained all weights, "
                "and name that version as the round's model"
            )
        shares = [each.held_out for each in (self.sft, self.reward, self.dpo) if each is not None]
        if self.ppo.held_out > min(shares):
            raise ValueError("ppo.held_out may not be larger than that of sft, reward or dpo")
        return self


def improve(
    config: ImproveConfig,
    place: Installation,
    *,
    trainer: Trainer = train,
    progress: Progress = no_progress,
    begun: Callable[[str], None] = lambda run_id: None,
    waiting: Callable[[], None] = lambda: None,
    name: str = "",
) -> dict[str, Any]:
    """Run a round, or go on with the unfinished one of the same recipe; returns its report.

    The candidate is published and gets the alias `candidate`. `trainer` says where the stages are trained;
    `begun` is called with the id of the round's row, `waiting` again and again while another process works on the
    round: it is taken up, or read, when that has ended. The round called `name` is the one to go on with, where it is
    of this recipe, even if it has come to its end.
    Raises what its stages raise; whatever happens, the round can be taken up again.
    """
    folder = _open_round(config, place, name)
    settings = config.model_dump()
    with (
        alone(folder, waiting=waiting),
        recorded(place.store, folder.name, "improve", settings) as run_id,
        journal(folder, progress) as progress,
    ):
        begun(run_id)
        progress = noting(place.store, run_id, progress)
        state = read_json(folder / STATE)
        if "report" in state:
            return dict(state["report"])
        snapshot = place.home / "snapshots" / state["snapshot"]
        few = few_comparisons(sum(export.read_counts(snapshot)["comparisons"].values()))
        if few:
            log.warning("%s", few)
        parent = place.registry.get(state["parent"]) if state["parent"] else None
        lineage = {
            "snapshot": state["snapshot"],
            "parents": [parent.name] if parent else [],
            "run": folder.name,
        }

        def stage(name: Stage, *, run_name: str = "", section: Recipe | None = None) -> dict[str, Any]:
            section = section or getattr(config, name)
            run = Run.open(folder / (run_name or name), name, section.model_dump(), resume=True)
            job = Job(
                stage=name,
                config=section,
                home=place.home,
                run=run.folder,
                snapshot=snapshot,
                start=None if name == "sft" else folder / "sft" / "adapter",
                reward=folder / "reward" / "adapter" if name == "ppo" else None,
                gold=folder / "gold" / "adapter" if name == "ppo" and config.gold else None,
                lineage=lineage,
            )

            def noted(_: str, done: int, total: int, metrics: dict[str, float]) -> None:
                progress(run.folder.name, done, total, metrics)

            return run.manifest() if run.finished else trainer(job, noted)

        made = {"sft": stage("sft"), "reward": stage("reward")}
        # The judge sees the same comparisons in another order from other seeds, and no policy is trained against it.
        stage("reward", run_name="judge", section=config.judge)
        if config.gold:
            stage("reward", run_name="gold", section=config.watcher)
        if config.dpo is not None:
            stage("dpo")
        made["ppo"] = stage("ppo")
        prompts = SnapshotData.read(snapshot).prompts
        progress("evaluation", 0, 1, {})
        kl = float(made["ppo"]["evaluation"]["kl"]["after"])
        evaluation = _evaluate(config, place, folder, prompts, parent, kl=kl)
        progress("evaluation", 1, 1, {})
        evaluation |= {name: manifest["evaluation"] for name, manifest in made.items()}
        report = {"round": folder.name, "snapshot": state["snapshot"], "parent": state["parent"]}
        report |= _publish(place, folder, made, evaluation, lineage) | {"evaluation": evaluation}
        Run(folder, "round").keep(STATE, {**state, "report": report})
    return report


def _open_round(config: ImproveConfig, place: Installation, name: str) -> Path:
    """The round of this name or the unfinished one, if it is of this recipe; or a new one with a snapshot of what has
    been collected."""
    settings = json.loads(json.dumps(config.model_dump()))
    if name and _state(place.home / "runs" / name).get("config") == settings:
        return place.home / "runs" / name
    for folder in reversed(numbered(place.home / "runs", "round")):
        state = _state(folder)
        if "report" not in state and state.get("config") == settings:
            return folder
    snapshot = export.snapshot(place.store, place.home, sources=config.sources or None)
    data = SnapshotData.read(snapshot.path)
    for stage in (config.sft, config.reward, config.dpo, config.ppo):
        if stage is not None:
            prepare(stage, data, place.home, gold=config.gold)  # a round that could not end is not begun
    try:
        parent = place.registry.resolve("stable").name
    except NotFound:
        parent = None
    folder = new_run(place, "round")
    Run(folder, "round").keep(STATE, {"config": settings, "snapshot": snapshot.hash, "parent": parent})
    return folder


def _state(folder: Path) -> dict[str, Any]:
    """What a round knows of itself; nothing where that is missing, or broken: such a round is passed over."""
    file = folder / STATE
    try:
        return read_json(file) if file.exists() else {}
    except ModelError as error:
        log.warning("%s is passed over: %s", folder.name, error)
        return {}


def _evaluate(
    config: ImproveConfig,
    place: Installation,
    folder: Path,
    prompts: Sequence[Dialogue],
    parent: ModelVersion | None,
    *,
    kl: float,
) -> dict[str, Any]:
    """Answers of the version before, the SFT model and the candidate to prompts that no stage has trained on."""
    renderer = load_renderer(locate(config.model, place.home))
    settings = config.ppo.model_copy(update={"held_out_prompts": config.evaluation.prompts})
    held_out = split_prompts(settings, prompts, renderer, gold=config.gold).held_out
    speakers: dict[str, Speaker] = {
        "before": _rival(parent, config.model),
        "sft": folder / "sft" / "adapter",
        "after": folder / "ppo" / "adapter",
    }
    if config.dpo is not None:
        speakers["dpo"] = folder / "dpo" / "adapter"
    return assess(
        config.evaluation,
        held_out,
        speakers,
        model=config.model,
        home=place.home,
        judges=Judges(folder / "reward" / "adapter", folder / "judge" / "adapter"),
        kl=kl,
        seed=config.ppo.seed,
    )


def _rival(parent: ModelVersion | None, model: str) -> Speaker:
    """Who speaks as the version before: the bare base where there was none, or the base is that version."""
    if parent is None or parent.name == model:
        return None
    return parent.adapter if parent.model == model and parent.weights is None else parent


def _publish(
    place: Installation,
    folder: Path,
    made: dict[str, dict[str, Any]],
    evaluation: dict[str, Any],
    lineage: dict[str, Any],
) -> dict[str, str]:
    """Publish reward model and candidate, unless an interrupted attempt has done so already."""
    published = {
        version.kind: version for version in place.registry.survey()[0] if version.run == folder.name
    }
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

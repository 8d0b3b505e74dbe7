"""Finished runs and versions compared on the prompts that a PPO recipe holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InvalidRequest
from tutelage.evaluation.policies import Exam, compare_policies
from tutelage.improvement.inputs import find_adapter, find_made, find_start
from tutelage.improvement.stages import PLAN, Installation
from tutelage.models.loading import load_model
from tutelage.registry.version import MANIFEST, read_json
from tutelage.store import export
from tutelage.training.ppo_recipe import PPOConfig, split_prompts


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What to compare, by the names of runs or versions.

    An empty `start` is what the policies began as, an empty `reward` the newest fitting run.
    """

    config: PPOConfig
    policies: Sequence[str]
    start: str = ""
    reward: str = ""
    gold: str = ""
    best_of: Sequence[int] = ()
    answers: int = 4
    snapshot: str = ""


def compare_runs(request: ComparisonRequest, place: Installation) -> dict[str, Any]:
    """The table of `compare_policies` on the prompts that the recipe's run reports on.

    Raises NotFound for unknown names, InvalidRequest where the SFT model is in doubt, DataError without prompts,
    ModelError for what does not fit.
    """
    snapshot = request.snapshot or export.snapshot(place.store, place.home).hash
    model = request.config.model
    reward = find_adapter(place, request.reward, "reward", model)
    gold = find_adapter(place, request.gold, "reward", model) if request.gold else None
    policies = {name: find_made(place, name, "ppo", model) for name in request.policies}
    start = _start(request, policies, place)
    config = request.config
    loaded = load_model(model, place.home)
    prompts = list(export.read_prompts(place.home / "snapshots" / snapshot))
    # What a gold reward model watched a policy on has chosen its best moment: it says nothing about it.
    watched = gold is not None or any(_was_watched(made) for made in policies.values())
    data = split_prompts(config, prompts, loaded.renderer, gold=watched)
    exam = Exam(
        prompts=data.held_out,
        answers=request.answers,
        max_new_tokens=config.max_new_tokens,
        micro_tokens=config.micro_tokens,
        seed=config.seed + 5,
    )
    return compare_policies(
        loaded, exam, policies, start=start, reward=reward, gold=gold, best_of=request.best_of
    )


def _start(request: ComparisonRequest, policies: dict[str, Path], place: Installation) -> Path | None:
    """The adapter that all policies began as, by their runs' plans; without any, the newest. None is the base."""
    plans = {name: made.parent / PLAN for name, made in policies.items()}
    begun = {name: str(read_json(plan).get("start", "")) for name, plan in plans.items() if plan.exists()}
    if request.start or not begun:
        return find_start(place, request.start, request.config.model)
    if len(set(begun.values())) > 1:
        told = ", ".join(f"{name} as {start or request.config.model}" for name, start in begun.items())
        raise InvalidRequest(
            f"the policies began differently: {told}", hint="name the SFT model with --start"
        )
    (start,) = set(begun.values())
    return Path(start) if start else None


def _was_watched(made: Path) -> bool:
    """Whether a gold reward model chose the moment of what a run, a round or a version made."""
    evaluation = read_json(made.parent / MANIFEST).get("evaluation") or {}
    return bool(evaluation.get("ppo", evaluation).get("watched_prompts"))

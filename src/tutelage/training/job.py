"""A stage to train, with everything that it needs named: to be done here, in other processes or on other machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.config import check
from tutelage.store.export import read_comparisons, read_demonstrations, read_prompts
from tutelage.training.dpo import DPOConfig, train_dpo
from tutelage.training.memory import its_end_told, keep_freed_memory
from tutelage.training.metrics import Progress, Run
from tutelage.training.ppo import PPOConfig, train_ppo
from tutelage.training.reward import RewardConfig, train_reward
from tutelage.training.sft import SFTConfig, train_sft

Stage = Literal["sft", "reward", "ppo", "dpo"]
Recipe = SFTConfig | RewardConfig | PPOConfig | DPOConfig
SCHEMAS: dict[Stage, type[SFTConfig] | type[RewardConfig] | type[PPOConfig] | type[DPOConfig]] = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
    "dpo": DPOConfig,
}
ROUND: tuple[Stage, ...] = ("sft", "reward", "ppo")
"""The stages of a round, in order; the others are baselines."""
_FILE = "job.json"
_FOLDERS = ("home", "run", "snapshot", "start", "reward", "gold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stage, its recipe and its inputs. `run` is the folder of a run that has been opened.

    start: adapter to start from; reward, gold: reward models' folders, for PPO; the second only watches.
    """

    stage: Stage
    config: Recipe
    home: Path
    run: Path
    snapshot: Path
    start: Path | None
    reward: Path | None = None
    gold: Path | None = None
    lineage: dict[str, Any]

    def write(self) -> Path:
        """Put the job beside the run, for other processes to read; returns the file. Raises TrainingError."""
        folders = {name: str(folder) if (folder := getattr(self, name)) else None for name in _FOLDERS}
        settings = self.config.model_dump(mode="json")
        content = {"stage": self.stage, "config": settings, "lineage": self.lineage, **folders}
        Run(self.run, self.stage).keep(_FILE, content)
        return self.run / _FILE

    @classmethod
    def read(cls, file: Path) -> Job:
        """The job that `write` put there."""
        fields = json.loads(file.read_text(encoding="utf-8"))
        for name in _FOLDERS:
            fields[name] = Path(fields[name]) if fields[name] else None
        stage: Stage = fields["stage"]
        return cls(**fields | {"config": check(fields["config"], SCHEMAS[stage], where=str(file))})


Trainer = Callable[[Job, Progress], dict[str, Any]]
"""Carries out a job and returns the manifest of its run."""


@its_end_told()
def train(job: Job, progress: Progress) -> dict[str, Any]:
    """Carry out a job in this process. Raises what its recipe raises."""
    keep_freed_memory()
    run = Run(job.run, job.stage, progress)
    match job.config:
        case SFTConfig() as config:
            demonstrations = list(read_demonstrations(job.snapshot))
            return train_sft(config, demonstrations, run, job.home, start=job.start, lineage=job.lineage)
        case RewardConfig() as config:
            comparisons = list(read_comparisons(job.snapshot))
            return train_reward(config, comparisons, run, job.home, start=job.start, lineage=job.lineage)
        case PPOConfig() as config:
            assert job.reward is not None
            prompts = list(read_prompts(job.snapshot))
            return train_ppo(
                config,
                prompts,
                run,
                job.home,
                start=job.start,
                reward=job.reward,
                gold=job.gold,
                demonstrations=list(read_demonstrations(job.snapshot)),
                lineage=job.lineage,
            )
        case DPOConfig() as config:
            comparisons = list(read_comparisons(job.snapshot))
            return train_dpo(config, comparisons, run, job.home, start=job.start, lineage=job.lineage)

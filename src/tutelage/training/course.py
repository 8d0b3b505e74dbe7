"""Where a PPO run is: all that it needs to go on, beside weights and optimizers.

Rollouts are not kept: their prompts and seeds follow from the step's number, so a step that was interrupted in any
phase is made again from its start, to the bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.training.invariants import Health
from tutelage.training.overoptimisation import Standing, Watch

PHASES = ("generate", "score", "update")


@dataclass(frozen=True, slots=True)
class Course:
    """`step` is the next step to do, `beta` its KL coefficient.

    before: where the SFT model stands on the held-out prompts; probe: a number to know the reference by.
    seconds: time spent in each phase so far.
    """

    step: int
    beta: float
    before: Standing
    probe: float
    health: Health
    watch: Watch | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @classmethod
    def restore(cls, step: int, kept: dict[str, Any]) -> Course:
        """From a checkpoint's scalars."""
        return cls(
            step,
            kept["beta"],
            kept["before"],
            kept["probe"],
            Health(
                **{**kept["health"], **{key: tuple(kept["health"][key]) for key in ("rewards", "endings")}}
            ),
            None if kept["watch"] is None else Watch.restore(kept["watch"]),
            kept["seconds"],
        )

    def scalars(self) -> dict[str, Any]:
        """As plain JSON, for a checkpoint."""
        return {
            "beta": self.beta,
            "before": self.before,
            "probe": self.probe,
            "health": asdict(self.health),
            "watch": None if self.watch is None else self.watch.as_dict(),
            "seconds": self.seconds,
        }

    def spent(self, metrics: dict[str, float]) -> dict[str, float]:
        """Seconds of each phase with one more step's."""
        return {phase: self.seconds[phase] + metrics[f"seconds_{phase}"] for phase in PHASES}

    def time(self) -> dict[str, Any]:
        """Seconds a step and each phase's share of them."""
        total = sum(self.seconds.values())
        shares = {phase: seconds / total if total else 0.0 for phase, seconds in self.seconds.items()}
        return {"seconds_per_step": total / max(1, self.step), **shares}

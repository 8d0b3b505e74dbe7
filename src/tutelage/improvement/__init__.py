"""The circle closed: one stage as a run of its own, or a whole round to a candidate version."""

from tutelage.improvement.assessment import EvaluationConfig
from tutelage.improvement.rounds import ImproveConfig, improve
from tutelage.improvement.stages import (
    Installation,
    StageRequest,
    describe_stage,
    train_stage,
)

__all__ = [
    "EvaluationConfig",
    "ImproveConfig",
    "Installation",
    "StageRequest",
    "describe_stage",
    "improve",
    "train_stage",
]

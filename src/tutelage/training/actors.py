"""Who takes part in PPO: adapters on one frozen base, by name, the scalar heads on them, and their optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tutelage.models.adapters import load_adapter
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel
from tutelage.training.checkpoints import pack_optimizer, prefixed, section, unpack_optimizer
from tutelage.training.optimizer import adamw
from tutelage.training.remote_rollouts import RolloutServers
from tutelage.training.reward_model import RewardModel, ValueModel, load_reward_model, load_value_model

POLICY, REFERENCE, AVERAGE, VALUE, REWARD, GOLD = "policy", "sft", "average", "value", "reward", "gold"


@dataclass(frozen=True, slots=True)
class Models:
    """The base with its adapters and renderer, and the scalar models on it. `gold` judges and never trains.

    `servers` sample in this process's place, when there are any.
    """

    loaded: LoadedModel
    value: ValueModel
    reward: RewardModel
    gold: RewardModel | None = None
    servers: RolloutServers | None = None

    @classmethod
    def assemble(
        cls, loaded: LoadedModel, *, start: Path, reward: Path, gold: Path | None, average: bool
    ) -> Models:
        """Policy and reference are the SFT adapter `start`; the value model starts as the reward model.

        Raises ModelError when a folder cannot be read or does not fit.
        """
        model = loaded.model
        load_adapter(model, REFERENCE, start)
        model.copy_adapter(REFERENCE, POLICY)
        if average:
            model.copy_adapter(REFERENCE, AVERAGE)
        return cls(
            loaded,
            load_value_model(model, reward, name=VALUE),
            load_reward_model(model, reward, name=REWARD),
            None if gold is None else load_reward_model(model, gold, name=GOLD),
        )

    @property
    def model(self) -> CausalModel:
        return self.loaded.model

    @property
    def averages(self) -> bool:
        """Whether a running average of the policy is kept."""
        return AVERAGE in self.model.switch.shapes

    def calibrate(self, rewards: Sequence[float], golds: Sequence[float]) -> None:
        """Shift and scale reward, value and gold so that the samples with these scores would score N(0, 1)."""
        self.reward.normalised(torch.tensor(rewards))
        self.value.head.normalise(torch.tensor(rewards))
        if self.gold is not None:
            self.gold.normalised(torch.tensor(golds))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the policy. Source: Ouyang et al. 2022 (2203.02155), appendix C.4."""
        for slow, fast in zip(
            self.model.adapter_parameters(AVERAGE), self.model.adapter_parameters(POLICY), strict=True
        ):
            slow.lerp_(fast, 1 - decay)

    def copy_of(self, adapter: str) -> dict[str, Tensor]:
        """An adapter as it is now, whatever becomes of it."""
        return {name: tensor.clone() for name, tensor in self.model.adapter_tensors(adapter).items()}

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, and the calibrated heads of the reward models."""
        tensors = prefixed("value_head", self.value.head.state_dict())
        for name in self._trained():
            tensors |= prefixed(name, self.model.adapter_tensors(name))
        for member in self._judges():
            tensors |= prefixed(member.adapter, member.head.state_dict())
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.value.head.load_state_dict(section("value_head", tensors))
        for name in self._trained():
            self.model.set_adapter_tensors(name, section(name, tensors))
        for member in self._judges():
            member.head.load_state_dict(section(member.adapter, tensors))

    def _trained(self) -> list[str]:
        return [POLICY, VALUE, *([AVERAGE] if self.averages else [])]

    def _judges(self) -> list[ValueModel]:
        return [*self.reward.members, *(self.gold.members if self.gold else ())]


@dataclass(frozen=True, slots=True)
class Learners:
    """The optimizers of policy and value model."""

    policy: torch.optim.AdamW
    value: torch.optim.AdamW

    @classmethod
    def of(cls, models: Models, *, policy_rate: float, value_rate: float) -> Learners:
        values = [*models.model.adapter_parameters(VALUE), *models.value.head.parameters()]
        return cls(
            adamw([(models.model.adapter_parameters(POLICY), policy_rate)]), adamw([(values, value_rate)])
        )

    def tensors(self) -> dict[str, Tensor]:
        """Their state, for a checkpoint."""
        policy = prefixed("policy_optimizer", pack_optimizer(self.policy))
        return policy | prefixed("value_optimizer", pack_optimizer(self.value))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        unpack_optimizer(self.policy, section("policy_optimizer", tensors))
        unpack_optimizer(self.value, section("value_optimizer", tensors))

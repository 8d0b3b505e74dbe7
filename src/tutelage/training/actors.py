"""Who takes part in PPO: policy, reference and average, the scalar models, and the optimizers.

All are adapters on one frozen base. Where all weights train, policy and average are models of their own, and the
SFT model is one too if it is an adapter; the scalar models are still adapters on the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tutelage.models.adapters import AdapterShape, load_adapter
from tutelage.models.foreign import ForeignModel
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel
from tutelage.training.checkpoints import pack_optimizer, prefixed, section, unpack_optimizer
from tutelage.training.optimizer import AdamW
from tutelage.training.remote_rollouts import RolloutServers
from tutelage.training.reward_model import RewardModel, ValueModel, load_reward_model, load_value_model
from tutelage.training.weights import Weights, new_adapter, whole_model

POLICY, REFERENCE, AVERAGE, VALUE, REWARD, GOLD = "policy", "sft", "average", "value", "reward", "gold"


@dataclass(frozen=True, slots=True)
class Models:
    """The base with its renderer, the models that write, and the scalar ones. `gold` judges and never trains.

    The `reference` is the SFT model; `average` follows the policy, where there is one. `servers` sample in this
    process's place, when there are any.
    """

    loaded: LoadedModel
    policy: Weights
    reference: Weights
    value: ValueModel
    reward: RewardModel
    average: Weights | None = None
    gold: RewardModel | None = None
    servers: RolloutServers | None = None

    @classmethod
    def assemble(
        cls,
        loaded: LoadedModel,
        *,
        start: Path | None,
        reward: Path,
        gold: Path | None,
        average: bool,
        full: bool = False,
    ) -> Models:
        """Policy and reference begin as the SFT adapter `start` on the base, or as the base itself.

        The value model starts as the reward model. With `full`, all weights of the policy train.
        Raises ModelError when a folder cannot be read or does not fit.
        """
        model = loaded.model
        policy, reference = (whole_policy if full else adapter_policy)(model, start)
        return cls(
            loaded,
            policy,
            reference,
            load_value_model(model, reward, name=VALUE),
            load_reward_model(model, reward, name=REWARD),
            policy.copy(AVERAGE) if average else None,
            None if gold is None else load_reward_model(model, gold, name=GOLD),
        )

    @property
    def model(self) -> CausalModel:
        """The base."""
        return self.loaded.model

    def calibrate(self, rewards: Sequence[float], golds: Sequence[float]) -> None:
        """Shift and scale reward, value and gold so that the samples with these scores would score N(0, 1)."""
        self.reward.normalised(torch.tensor(rewards))
        self.value.head.normalise(torch.tensor(rewards))
        if self.gold is not None:
            self.gold.normalised(torch.tensor(golds))

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, and the calibrated heads of the reward models."""
        tensors = prefixed("value_head", self.value.head.state_dict())
        tensors |= prefixed(VALUE, self.model.adapter_tensors(VALUE))
        for name, weights in self._changing():
            tensors |= prefixed(name, weights.tensors())
        for member in self._judges():
            tensors |= prefixed(member.adapter, member.head.state_dict())
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.value.head.load_state_dict(section("value_head", tensors))
        self.model.set_adapter_tensors(VALUE, section(VALUE, tensors))
        for name, weights in self._changing():
            weights.restore(section(name, tensors))
        for member in self._judges():
            member.head.load_state_dict(section(member.adapter, tensors))

    def _changing(self) -> list[tuple[str, Weights]]:
        return [(POLICY, self.policy), *([(AVERAGE, self.average)] if self.average else [])]

    def _judges(self) -> list[ValueModel]:
        return [*self.reward.members, *(self.gold.members if self.gold else ())]


def adapter_policy(model: CausalModel, start: Path | None) -> tuple[Weights, Weights]:
    """Policy and reference as adapters on one base; without an adapter to start from, the base is the reference."""
    if start is None:
        return new_adapter(model, POLICY, AdapterShape(), seed=0), Weights(model, None, [])
    load_adapter(model, REFERENCE, start)
    reference = Weights(model, REFERENCE, [])
    return reference.copy(POLICY), reference


def whole_policy(model: CausalModel, start: Path | None) -> tuple[Weights, Weights]:
    """A policy of which all weights train, and its reference: the base, or a copy with the adapter folded in.

    The reference has the weights that the policy's are rounded to in products, so both compute the same at first.
    The base may have no adapters yet.
    """
    if isinstance(model, ForeignModel):
        model.float()  # transformers' code computes with the trained weights as they are
    sft = model
    if start is not None:
        sft = deepcopy(model)
        load_adapter(sft, REFERENCE, start)
        sft.merge_adapter(REFERENCE)
    return whole_model(deepcopy(sft)), Weights(sft, None, [])


@dataclass(frozen=True, slots=True)
class Learners:
    """The optimizers of policy and value model."""

    policy: AdamW
    value: AdamW

    @classmethod
    def of(cls, models: Models, *, policy_rate: float, value_rate: float) -> Learners:
        values = [*models.model.adapter_parameters(VALUE), *models.value.head.parameters()]
        return cls(AdamW([(models.policy.parameters, policy_rate)]), AdamW([(values, value_rate)]))

    def tensors(self) -> dict[str, Tensor]:
        """Their state, for a checkpoint."""
        policy = prefixed("policy_optimizer", pack_optimizer(self.policy))
        return policy | prefixed("value_optimizer", pack_optimizer(self.value))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        unpack_optimizer(self.policy, section("policy_optimizer", tensors))
        unpack_optimizer(self.value, section("value_optimizer", tensors))

"""Looks at held-out data while a model trains: the best weights are kept, and training stops when they stay best."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from tutelage.training.checkpoints import State, copied, prefixed, section

_PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Best:
    """The weights with the least held-out loss so far, and how many looks have passed without a better one."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    loss: float | None = None
    misses: int = 0

    @property
    def is_final(self) -> bool:
        """True when two looks in a row were no better."""
        return self.misses >= _PATIENCE

    def after(self, loss: float, tensors: dict[str, Tensor]) -> Best:
        """The best after another look at weights with this loss."""
        if self.loss is not None and loss >= self.loss:
            return replace(self, misses=self.misses + 1)
        return Best(copied(tensors), loss)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, float | int | None]]:
        """Tensors and scalars for a checkpoint."""
        return prefixed("best", self.tensors), {"best_loss": self.loss, "misses": self.misses}

    @classmethod
    def unpacked(cls, state: State) -> Best:
        """What `packed` put into a checkpoint."""
        return cls(section("best", state.tensors), state.scalars["best_loss"], state.scalars["misses"])

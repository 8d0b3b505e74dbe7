"""The best weights are kept, and two looks that are no better end training."""

from __future__ import annotations

import torch

from tutelage.training.checkpoints import State
from tutelage.training.early_stop import Best


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([value])}


def test_the_best_weights_are_kept_as_they_were() -> None:
    live = weights(1.0)
    best = Best().after(0.7, live)
    live["w"].fill_(9.0)
    best = best.after(0.6, weights(2.0)).after(0.65, live)
    assert (best.loss, best.tensors["w"].item(), best.is_final) == (0.6, 2.0, False)
    best = best.after(0.6, live)  # as good is no better
    assert best.is_final
    assert best.tensors["w"].item() == 2.0


def test_a_better_look_forgives_a_worse_one() -> None:
    best = Best().after(0.7, weights(1)).after(0.8, weights(2)).after(0.6, weights(3)).after(0.7, weights(4))
    assert not best.is_final


def test_it_goes_through_a_checkpoint() -> None:
    best = Best().after(0.7, weights(1)).after(0.8, weights(2))
    tensors, scalars = best.packed()
    assert Best.unpacked(State(3, tensors, scalars)) == best
    empty = Best()
    assert Best.unpacked(State(3, *empty.packed())) == empty

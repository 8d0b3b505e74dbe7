"""Flat batches: which places are scored, and where a completion ends."""

from __future__ import annotations

import pytest
import torch

from tutelage.rendering import Rendered
from tutelage.training.flat import flatten, flatten_trees

CPU = torch.device("cpu")


def test_each_target_is_predicted_from_the_place_before_it() -> None:
    batch = flatten([Rendered([5, 6, 7], [False, True, True]), Rendered([8, 9], [True, True])], CPU)
    assert batch.token_ids.tolist() == [5, 6, 7, 8, 9]
    assert batch.targets.tolist() == [6, 7, 9]  # 8 begins its example: nothing before it may predict it
    assert batch.scored.tolist() == [0, 1, 3]
    assert batch.layout.positions.tolist() == [0, 1, 2, 0, 1]


def test_completions_stand_behind_their_prompt_and_end_at_their_last_token() -> None:
    batch = flatten_trees([([1, 2], [[3], [4, 5]]), ([6], [[7]])], CPU)
    assert batch.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert batch.ends.tolist() == [2, 4, 6]
    assert batch.counts == (2, 1)
    assert batch.layout.positions.tolist() == [0, 1, 2, 2, 3, 0, 1]


def test_an_empty_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="at least its end token"):
        flatten_trees([([1], [[]])], CPU)

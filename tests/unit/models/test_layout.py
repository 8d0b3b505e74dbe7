"""Flat batches cut into causal rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.models.layout import sequences, trees

SHAPES = st.lists(
    st.tuples(st.integers(1, 5), st.lists(st.integers(1, 4), max_size=3)), min_size=1, max_size=4
)


def test_a_worked_tree() -> None:
    """A prompt of two tokens (0, 1) with completions (2) and (3, 4): two rows, the prompt in both."""
    layout = trees([(2, (1, 2))])
    assert layout.positions.tolist() == [0, 1, 2, 2, 3]
    assert layout.gather.tolist() == [[0, 1, 2, 0], [0, 1, 3, 4]]
    assert layout.scatter.tolist() == [0, 1, 2, 6, 7]
    assert not layout.is_plain


@settings(deadline=None)
@given(shapes=SHAPES)
def test_every_token_sees_its_prompt_and_its_own_completion_alone(
    shapes: list[tuple[int, list[int]]],
) -> None:
    layout = trees(shapes)
    longest = layout.gather.shape[1]
    start = 0
    for prompt, completions in shapes:
        seen = [list(range(start, start + place + 1)) for place in range(prompt)]
        first = start + prompt
        for length in completions:
            seen += [
                [*range(start, start + prompt), *range(first, first + place + 1)] for place in range(length)
            ]
            first += length
        for token, expected in enumerate(seen, start):
            row, place = divmod(int(layout.scatter[token]), longest)
            assert layout.gather[row, : place + 1].tolist() == expected
            assert layout.positions[token] == place
        start = first
    assert len(layout.scatter) == len(layout.positions) == start


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_a_plain_layout_is_the_batch_itself(lengths: list[int]) -> None:
    layout = sequences(lengths)
    assert layout.is_plain == (len(set(lengths)) == 1)
    if layout.is_plain:
        assert torch.equal(layout.gather.flatten(), torch.arange(sum(lengths)))

from __future__ import annotations

import uuid
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tutelage.store.ids import _Sequence, new_id, now


def test_an_id_is_a_version_7_uuid_of_this_moment() -> None:
    moment = now().timestamp() * 1000
    made = uuid.UUID(new_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert abs((made.int >> 80) - moment) < 1000


def test_ids_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


@given(st.lists(st.integers(0, 2**60), min_size=2, max_size=50))
def test_ticks_grow_whatever_the_clock_does(times: list[int]) -> None:
    sequence = _Sequence()
    ticks = [sequence.next(time) for time in times]
    assert all(before < after for before, after in pairwise(ticks))

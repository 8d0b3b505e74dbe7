"""What a batch keeps of finished sequences: within its room, the longest of each, the last used for longest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.models.prefixes import WORTH_SHARING, KeptPrefixes, shared


def span(size: int) -> Callable[[], Any]:
    return lambda: SimpleNamespace(size=size)


def refuse() -> Any:
    raise AssertionError("nothing is taken that is not kept")


def test_how_far_two_sequences_are_alike() -> None:
    assert [shared([1, 2, 3], other) for other in ([1, 2], [1, 2, 3, 4], [1, 5, 3], [2], [])] == [
        2,
        3,
        1,
        0,
        0,
    ]


def test_nothing_is_taken_without_room_or_for_a_few_tokens() -> None:
    KeptPrefixes(0).keep(range(100), refuse)
    kept = KeptPrefixes(100)
    kept.keep(range(WORTH_SHARING - 1), refuse)
    assert kept.find(range(100)) == (0, None)


def test_what_goes_on_takes_the_place_of_what_it_continues() -> None:
    kept = KeptPrefixes(100)
    for length in (20, 40, 60):
        kept.keep(range(length), span(length))
    assert kept._taken == 60
    assert kept.find([*range(30), 99])[0] == 30


@pytest.mark.parametrize("used", [True, False])
def test_what_was_not_used_for_longest_goes_first(used: bool) -> None:
    kept = KeptPrefixes(100)
    first, second, third = (range(start, start + 20) for start in (0, 100, 200))
    kept.keep(first, span(40))
    kept.keep(second, span(40))
    assert kept.find([9999]) == (0, None)
    if used:
        kept.find(first)
    kept.keep(third, span(60))
    assert [kept.find(each)[0] for each in (first, second, third)] == ([20, 0, 20] if used else [0, 20, 20])
    kept.keep(range(300, 320), span(101))
    assert [kept.find(each)[0] for each in (first, second, third, range(300, 320))] == [0, 0, 0, 0]
    kept.keep(first, span(100))
    assert kept.find(first)[0] == 20

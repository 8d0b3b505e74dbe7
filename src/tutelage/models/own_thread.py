"""Computing beside an engine without slowing it down.

A thread that has computed with torch keeps its team of OpenMP threads for as long as it lives. libgomp lets threads
that wait for each other spin only while there are no more of them than cores; beyond that they fall asleep between two
products. So whatever computes for once, in a process whose engine goes on, does it in a thread that ends.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises; the thread that does it has ended then."""
    with ThreadPoolExecutor(1, thread_name_prefix="computing") as own:
        return own.submit(work).result()

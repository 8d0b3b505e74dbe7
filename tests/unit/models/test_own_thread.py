"""What computes for once leaves no thread behind: neither its own nor the team that torch gave it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import current_thread

import pytest

from tutelage.models.own_thread import in_own_thread

TEAMS = """
import time
from pathlib import Path
import torch
from tutelage.models.own_thread import in_own_thread

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

def work():
    torch.ones(1 << 20).add_(1)
    return threads()

torch.set_num_threads(3)
before = threads()
during, patience = in_own_thread(work), time.monotonic() + 20
while threads() > before and time.monotonic() < patience:
    time.sleep(0.01)
print(during - before, threads() - before)
"""


def test_the_thread_has_ended_when_its_result_is_there() -> None:
    assert not in_own_thread(current_thread).is_alive()


def test_its_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 // 0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_team_of_threads_ends_with_the_one_it_computed_for() -> None:
    said = subprocess.run([sys.executable, "-c", TEAMS], capture_output=True, text=True, check=True)
    during, afterwards = map(int, said.stdout.split())
    assert during >= 3
    assert afterwards == 0

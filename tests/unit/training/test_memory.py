"""Freed memory stays with the process: a large tensor made again costs no page faults."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from tutelage.training.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_a_large_tensor_made_again_costs_no_page_faults() -> None:
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 << 20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert [faults() for _ in range(4)][-1] < 1000  # of the 16,384 pages

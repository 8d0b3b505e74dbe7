"""Freed memory stays with the process, and memory that runs out is told to people."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.errors import TrainingError
from tutelage.training import job
from tutelage.training.memory import keep_freed_memory
from tutelage.training.metrics import no_progress
from tutelage.training.sft import SFTConfig


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_a_large_tensor_made_again_costs_no_page_faults() -> None:
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 << 20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # Small things settle between large ones at first, and the heap grows by some large ones until it has room for both.
    assert [faults() for _ in range(20)][-1] < 1000  # of the 16,384 pages


def test_a_device_whose_memory_runs_out_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_sft(*given: Any, **settings: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the documentation")

    monkeypatch.setattr(job, "train_sft", train_sft)
    monkeypatch.setattr(job, "read_demonstrations", lambda folder: [])
    work = job.Job(
        stage="sft",
        config=SFTConfig(model="tiny"),
        home=tmp_path,
        run=tmp_path,
        snapshot=tmp_path,
        start=None,
        lineage={},
    )
    for _ in range(2):
        with pytest.raises(TrainingError, match="Tried to allocate 2 GiB") as raised:
            job.train(work, no_progress)
        assert "micro_tokens" in raised.value.hint
        assert "documentation" not in raised.value.message

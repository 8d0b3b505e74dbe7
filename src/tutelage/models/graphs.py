"""Steps as CUDA graphs: on a GPU, launching the hundreds of small kernels of a step one by one takes longer than
running them.

A graph is captured for each bucket of batch sizes, the first time it is needed. It always reads and writes the same
memory, so it belongs to one cache: one of another size begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_WARM_UPS = 2

Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Captured:
    """token_ids, places: (bucket,), read by the graph; logits: (bucket, vocabulary), written by it."""

    graph: torch.cuda.CUDAGraph
    token_ids: Tensor
    places: Tensor
    logits: Tensor


class StepGraphs:
    """Captured steps of one cache."""

    def __init__(self) -> None:
        self._captured: dict[int, _Captured] = {}

    def run(self, step: Step, token_ids: Tensor, places: Tensor, *, slots: int) -> Tensor:
        """As `step`, which goes from token ids and places to logits; the next call overwrites them.

        Rows that fill up a bucket write to the first place of free slots, which every new sequence overwrites; there
        are `slots` that a step may touch.
        """
        rows = len(token_ids)
        bucket = max(rows, min(next((size for size in BUCKETS if size >= rows), rows), slots))
        captured = self._captured.get(bucket)
        if captured is None:
            captured = self._captured[bucket] = self._capture(step, bucket, token_ids, places)
        captured.token_ids[:rows] = token_ids
        captured.places[:rows] = places
        captured.places[rows:] = 0
        captured.graph.replay()
        return captured.logits[:rows]

    def _capture(self, step: Step, bucket: int, token_ids: Tensor, places: Tensor) -> _Captured:
        """Run the step a few times, then record it. Every time it writes the same keys and values again."""
        static_ids = torch.zeros(bucket, dtype=token_ids.dtype, device=token_ids.device)
        static_places = torch.zeros(bucket, dtype=places.dtype, device=places.device)
        static_ids[: len(token_ids)] = token_ids
        static_places[: len(places)] = places
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                step(static_ids, static_places)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        pool = next((each.graph.pool() for each in self._captured.values()), None)
        # Steps are captured while another version answers on the same GPU: what other threads ask of it is no error.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = step(static_ids, static_places)
        return _Captured(graph, static_ids, static_places, logits)

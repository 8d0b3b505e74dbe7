"""What models may learn from: rows as streams, and immutable snapshots of them."""

from tutelage.store.export.reading import (
    read_comparisons,
    read_counts,
    read_demonstrations,
    read_prompts,
    read_reliability,
)
from tutelage.store.export.snapshots import Snapshot, list_snapshots, snapshot
from tutelage.store.export.streams import comparisons, demonstrations, prompts

__all__ = [
    "Snapshot",
    "comparisons",
    "demonstrations",
    "list_snapshots",
    "prompts",
    "read_comparisons",
    "read_counts",
    "read_demonstrations",
    "read_prompts",
    "read_reliability",
    "snapshot",
]

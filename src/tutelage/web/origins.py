"""Of what a version was made, as far as its snapshot is still there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import DataError
from tutelage.registry import ModelVersion
from tutelage.store import export


@dataclass(frozen=True, slots=True)
class Origin:
    """`rows` is how many lines each stream held, `annotators` how many people's rankings were among them."""

    rows: dict[str, int]
    annotators: int


def origin_of(version: ModelVersion, home: Path) -> Origin | None:
    """None where nothing was learnt, or where the snapshot is gone."""
    if version.snapshot is None:
        return None
    folder = home / "snapshots" / version.snapshot
    try:
        counts = export.read_counts(folder)
        return Origin(
            {stream: sum(by_source.values()) for stream, by_source in counts.items()},
            len(export.read_reliability(folder)),
        )
    except DataError:
        return None

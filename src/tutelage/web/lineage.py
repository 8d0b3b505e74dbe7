"""The family of versions as a drawing: older ones left, reward models below, a line from each parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.registry import ModelVersion

STEP, ROW, MARGIN = 84, 64, 34
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Node:
    """A version at its place, in pixels."""

    name: str
    kind: str
    x: int
    y: int
    stable: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, and lines as SVG paths from parent to child."""

    nodes: tuple[Node, ...]
    lines: tuple[str, ...]
    width: int
    height: int


def draw(versions: Sequence[ModelVersion], *, stable: str | None) -> Graph:
    """The newest versions in the order in which they were made."""
    shown = sorted(versions, key=lambda version: version.created)[-SHOWN:]
    columns: list[set[str]] = []
    nodes: dict[str, Node] = {}
    for version in shown:  # a round makes a version of each kind: they share a column
        if (
            not columns
            or version.kind in columns[-1]
            or set(version.parents) & nodes.keys() & _last(nodes, columns)
        ):
            columns.append(set())
        columns[-1].add(version.kind)
        x = MARGIN + STEP * (len(columns) - 1)
        y = MARGIN + (ROW if version.kind == "reward" else 0)
        nodes[version.name] = Node(version.name, version.kind, x, y, version.name == stable)
    lines = [
        _line(nodes[parent], nodes[version.name])
        for version in shown
        for parent in version.parents
        if parent in nodes
    ]
    width = 2 * MARGIN + STEP * max(0, len(columns) - 1)
    height = max((node.y for node in nodes.values()), default=0) + MARGIN
    return Graph(tuple(nodes.values()), tuple(lines), width, height)


def _last(nodes: dict[str, Node], columns: list[set[str]]) -> set[str]:
    x = MARGIN + STEP * (len(columns) - 1)
    return {node.name for node in nodes.values() if node.x == x and node.kind == "chat"}


def _line(parent: Node, child: Node) -> str:
    middle = (parent.x + child.x) // 2
    return f"M{parent.x},{parent.y} C{middle},{parent.y} {middle},{child.y} {child.x},{child.y}"

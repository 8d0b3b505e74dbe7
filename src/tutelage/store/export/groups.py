"""Whose words stand together when data is split into what is trained on and what is held out.

A root (the first message of a dialogue) is never divided: all that grew from it falls on one side. A person's rows stay
together too, as far as that leaves parts small enough to be dealt out by chance. One person may have written half of
everything, and one who ranks other people's chats ties all of them together; so people are taken from those with the
fewest rows up, and one whose roots together would hold more than `LARGEST` of all rows is divided: their rows are
split by root alone. What was done stands in the snapshot's manifest.

A group falls on the side on which its oldest root would fall alone. So whoever comes later joins a side and moves
nobody; only where they tie two groups together does the younger one follow the older.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.dialogue import Comparison, Dialogue, root_of, split_key

LARGEST = 0.05
Row = Dialogue | Comparison


@dataclass(frozen=True, slots=True)
class Groups:
    """`of_root` gives the key by which a root is split; roots that are split alone are not in it. The rest counts.

    authors: all people with rows; whole: those whose rows stay together; divided: the others.
    largest: the share of all rows in the largest group.
    """

    of_root: dict[str, str]
    authors: int
    whole: int
    largest: float

    def of(self, row: Row) -> str:
        """What a row's group is split by, which tells nobody whose it is; empty when its root is split alone."""
        return self.of_root.get(root_of(row), "")

    def report(self) -> dict[str, float]:
        """How the data can be split, for the manifest."""
        return {
            "authors": self.authors,
            "authors_whole": self.whole,
            "authors_divided": self.authors - self.whole,
            "largest_group": round(self.largest, 4),
        }


def group_rows(rows: Sequence[Row]) -> Groups:
    """Group the roots of all rows, in whatever order these come. Ids say how old rows are."""
    sizes, counts = Counter[str](), Counter[str]()
    roots: dict[str, set[str]] = defaultdict(set)
    since: dict[str, str] = {}
    for row in rows:
        root = root_of(row)
        sizes[root] += 1
        since[root] = min(row.id, since.get(root, row.id))
        if row.author:
            roots[row.author].add(root)
            counts[row.author] += 1
    parts = _Parts(sizes)
    whole = [
        author
        for author in sorted(roots, key=lambda author: (counts[author], _name(author)))
        if parts.join(roots[author], at_most=LARGEST * len(rows))
    ]
    oldest: dict[str, str] = {}
    for root in sorted(sizes, key=lambda root: (since[root], root)):
        oldest.setdefault(parts.find(root), root)
    held = {parts.find(next(iter(roots[author]))) for author in whole}
    of_root = {root: split_key(oldest[parts.find(root)]) for root in sizes if parts.find(root) in held}
    largest = max((parts.sizes[part] for part in held), default=0)
    return Groups(of_root, len(roots), len(whole), largest / max(1, len(rows)))


class _Parts:
    """Sets of roots that stand together (union-find); `sizes` are their rows."""

    def __init__(self, sizes: Counter[str]) -> None:
        self._parents = {root: root for root in sizes}
        self.sizes = dict(sizes)

    def find(self, root: str) -> str:
        while self._parents[root] != root:
            self._parents[root] = root = self._parents[self._parents[root]]
        return root

    def join(self, roots: set[str], *, at_most: float) -> bool:
        """Make one part of those that hold these roots, unless it had too many rows; whether it is one now."""
        parts = sorted({self.find(root) for root in roots})
        total = sum(self.sizes[part] for part in parts)
        if len(parts) > 1 and total > at_most:
            return False
        for part in parts[1:]:
            self._parents[part] = parts[0]
        self.sizes[parts[0]] = total
        return True


def _name(author: str) -> str:
    return hashlib.sha256(f"author {author}".encode("utf-8", "replace")).hexdigest()[:16]

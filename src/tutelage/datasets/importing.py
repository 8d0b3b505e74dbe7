"""What a source finds, put into the store in one transaction, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from tutelage.datasets.sources import Found, Item, Problem, Skipped, readers
from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import DataError
from tutelage.store import Store, imports

SHOWN_REASONS = 10


@dataclass(slots=True)
class Report:
    """What an import did. The counts are of what was new; `already_there` is what the store knew before."""

    demonstrations: int = 0
    prompts: int = 0
    comparisons: int = 0
    pairs: int = 0
    ties: int = 0
    messages: int = 0
    already_there: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def add(self, item: Item) -> None:
        """Count a new item. A comparison's messages are those of its prompt and its candidates."""
        if isinstance(item, Dialogue):
            self.messages += len(item.messages)
            self.demonstrations += item.messages[-1].role == "assistant"
            self.prompts += item.messages[-1].role == "user"
        else:
            self.messages += len(item.prompt) + len(item.candidates)
            self.comparisons += 1
            self.ties += sum(preference.tie for preference in item.preferences)
            self.pairs += sum(not preference.tie for preference in item.preferences)


def load(store: Store, found: Iterable[Found], *, strict: bool = False) -> Report:
    """Import everything that was found, or, when an error is raised, nothing.

    All rows are read before the store is touched. Raises DataError when no row can be read and, if
    `strict`, when one cannot.
    """
    report = Report()
    items: list[Item] = []
    for one in found:
        if isinstance(one, Skipped):
            report.skipped[one.reason] += one.count
        elif isinstance(one, Problem):
            report.problems.append(one)
        else:
            items.append(one)
    if report.problems and (strict or not (items or report.skipped)):
        raise _refusal(report.problems, strict=strict)
    with store.write() as tx:
        for item in items:
            if _import(tx, item):
                report.add(item)
            else:
                report.already_there += 1
    return report


def _import(tx: Session, item: Item) -> bool:
    if isinstance(item, Comparison):
        return imports.import_comparison(tx, item)
    return imports.import_dialogue(tx, item, demonstration=item.messages[-1].role == "assistant")


def told(problems: Sequence[Problem]) -> list[str]:
    """A line for each reason, in the order in which they were met: the first place, and how many rows it holds for."""
    counts = Counter(problem.reason for problem in problems)
    first = {problem.reason: problem for problem in reversed(problems)}
    lines = [
        f"{first[reason]} ({count:,} rows)" if count > 1 else f"{first[reason]}"
        for reason, count in list(counts.items())[:SHOWN_REASONS]
    ]
    if len(counts) > SHOWN_REASONS:
        lines.append(f"… and {len(counts) - SHOWN_REASONS:,} other reasons (--json tells every row)")
    return lines


def _refusal(problems: list[Problem], *, strict: bool) -> DataError:
    """All reasons, the first bad row being the error's place."""
    first = problems[0]
    lines = "\n  ".join(told(problems)).removeprefix(f"{first.place}: ")
    return DataError(
        lines, path=first.path, line=first.line, hint=f"Nothing was imported. {_way_out(first, strict)}"
    )


def _way_out(first: Problem, strict: bool) -> str:
    if strict:
        return "Mend the rows, or leave out --strict to import the others."
    if names := readers(first.path):
        return f"`tutelage import {names[0]}` reads such rows."
    return "`tutelage import --help` names the forms that are read."

"""What the documentation points at is there: files, and commands with their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from tutelage.cli import build

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> Iterator[str]:
    for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = (match[1] or match[2]).partition("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            yield target


def commands(page: Path) -> Iterator[str]:
    """Every command line of ours on a page: in blocks, fenced or indented, and in code inside a sentence."""
    text = page.read_text(encoding="utf-8")
    spans = [" ".join(span.split()) for span in re.findall(r"`(tutelage [^`]+)`", FENCE.sub("", text))]
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += re.findall(r"^ {4}(tutelage .+)$", text, re.MULTILINE)
    for line in [*spans, *lines]:
        match = re.search(r"(?:^|[$|(] *|`)(tutelage [^#|)]+)", line)
        if match:
            yield match[1].strip()


def problem(line: str) -> str | None:
    """Why this command line cannot be meant, or None."""
    words = line.split()[1:]
    found = typer.main.get_command(build())
    while words and isinstance(found, TyperGroup) and not words[0].startswith("-"):
        if words[0] not in found.commands:
            return f"no command {words[0]!r} in {line!r}"
        found = found.commands[words.pop(0)]
    known = {
        option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    missing = [word for word in words if word.startswith("recipes/") and not (ROOT / word).exists()]
    if missing:
        return f"no recipe {', '.join(missing)}"
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {', '.join(unknown)} in {line!r}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    assert [wrong for line in commands(page) if (wrong := problem(line))] == []

"""The shape of the package: who may import whom, what imports cost, how long files are.

A module imports modules of lower ranks, and those of its own room. A room is a top-level module or package;
`engine.interface` is a room of its own, so that servers and clients of an engine need not stand above it. Imports
inside functions and under TYPE_CHECKING count as much as those at the top. `config` and `rendering` share a rank
with `registry` and `store`: none of the four knows another.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tutelage

ROOT = Path(tutelage.__file__).parent
RANKS = (
    ("errors",),
    ("dialogue", "tokenizer"),
    ("config", "rendering", "registry", "store"),
    ("datasets", "models", "engine.interface"),
    ("training", "engine", "moderation"),
    ("evaluation", "server", "pipelines"),
    ("web", "improvement", "terminal"),
    ("worker",),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}

# The rooms of a process that serves or answers a command; only the engine it loads brings torch in.
LIGHT = (
    "errors",
    "dialogue",
    "tokenizer",
    "config",
    "rendering",
    "registry",
    "store",
    "moderation",
    "server",
    "web",
)
LIGHT_MODULES = (
    "engine.interface",
    "engine.pool",
    "engine.scorers",
    "engine.scripted_engine",
    "engine.scripted_scorer",
    "cli",
)
HEAVY = ("torch", "transformers", "peft", "sklearn", "gguf")

DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"}
LONGEST = 400
LONG_FOR_A_REASON: dict[str, str] = {}  # path inside the package -> why

# Alembic runs this file inside a migration; nobody imports it.
RUN_NOT_IMPORTED = {"tutelage.store.migrations.env"}

# Packages that are part of the interface of one we declare: package -> the one that brings it.
BROUGHT_BY = {
    "starlette": "fastapi",
    "anyio": "fastapi",
    "markupsafe": "jinja2",
    "huggingface-hub": "tokenizers",
    "click": "typer",
}


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room of a module; empty for the package itself, which holds nothing but its version."""
    inner = module.removeprefix("tutelage").removeprefix(".")
    return "engine.interface" if inner in ("engine", "engine.interface") else inner.split(".")[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports; of `from a import b`, a.b where that is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}:{node.lineno}: imports are absolute"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield node.lineno, inner if inner in MODULES else node.module


def own_imports() -> Iterator[tuple[str, str, str]]:
    """(place, module, imported module) for every import of one of our modules by another."""
    for module, path in MODULES.items():
        for line, imported in imports(path):
            if imported.split(".")[0] == "tutelage":
                yield f"{path.relative_to(ROOT.parent)}:{line}", module, imported


def run_python(code: str, *arguments: str, home: Path, folder: Path) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "TUTELAGE_HOME": str(home)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_rank() -> None:
    assert {room(module) for module in MODULES} - {""} <= set(RANK)


def test_imports_go_down_or_stay_in_the_room() -> None:
    wrong = [
        f"{place} {room(importer)} ({RANK[room(importer)]}) imports {imported} ({RANK[room(imported)]})"
        for place, importer, imported in own_imports()
        if room(imported)
        and room(imported) != room(importer)
        and RANK[room(imported)] >= RANK.get(room(importer), 0)
    ]
    assert wrong == []


def test_pages_never_import_training() -> None:
    """They write a request and read its status; the worker trains, in a process of its own."""
    assert [
        place for place, who, what in own_imports() if (room(who), room(what)) == ("web", "training")
    ] == []


def test_no_module_is_a_drawer() -> None:
    assert [module for module in MODULES if DRAWERS & set(module.split("."))] == []


def test_files_are_short_or_say_why() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*")
        if path.suffix in (".py", ".js", ".css", ".html")
    }
    assert {name for name, length in lengths.items() if length > LONGEST} == set(LONG_FOR_A_REASON)


def test_serving_and_the_command_line_do_without_torch(tmp_path: Path) -> None:
    wanted = [m for m in MODULES if room(m) in LIGHT and m not in RUN_NOT_IMPORTED]
    wanted += [f"tutelage.{name}" for name in LIGHT_MODULES]
    code = (
        "import importlib, json, sys\n"
        "heavy, found = json.loads(sys.argv[2]), {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    for package in heavy:\n"
        "        if package in sys.modules: found.setdefault(package, name)\n"
        "from tutelage.cli import build\n"
        "build()\n"
        "found.update((p, 'the command line') for p in heavy if p in sys.modules and p not in found)\n"
        "print(json.dumps(found))\n"
    )
    found = run_python(code, json.dumps(wanted), json.dumps(HEAVY), home=tmp_path / "home", folder=tmp_path)
    assert json.loads(found) == {}, "the first module after whose import each of these was there"


def test_importing_does_nothing_but_define_names(tmp_path: Path) -> None:
    code = (
        "import importlib, json, os, sys, threading\n"
        "import torch\n"
        "before = threading.active_count(), dict(os.environ)\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "assert (threading.active_count(), dict(os.environ)) == before\n"
    )
    wanted = json.dumps(sorted(set(MODULES) - RUN_NOT_IMPORTED))
    assert run_python(code, wanted, home=tmp_path / "home", folder=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_is_imported_is_declared() -> None:
    """A package that comes along with another today may not come along tomorrow."""
    declared = {_normal(name) for name in importlib.metadata.requires("tutelage") or []}
    providers = importlib.metadata.packages_distributions()
    missing = set()
    for path in MODULES.values():
        for _, imported in imports(path):
            top = imported.split(".")[0]
            if top in sys.stdlib_module_names or top == "tutelage":
                continue
            names = {_normal(name) for name in providers.get(top, [top])}
            if not names & declared and not {BROUGHT_BY.get(name) for name in names} & declared:
                missing.add(top)
    assert missing == set()


def _normal(requirement: str) -> str:
    """A distribution's name without version and extras, spelled as the index compares names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()

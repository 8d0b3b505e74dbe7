"""Every recipe is what its command reads, and its first lines say how to run it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tutelage.config import load
from tutelage.improvement import ImproveConfig
from tutelage.training.job import SCHEMAS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
GUIDE = ROOT / "docs" / "guides" / "recipes.md"
COMMAND = re.compile(r"^# tutelage (?:train (sft|reward|ppo|dpo)|improve) (recipes/\S+)", re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_says_its_command_and_is_read_by_it(recipe: Path) -> None:
    command = COMMAND.search(recipe.read_text(encoding="utf-8"))
    assert command is not None, "its first lines name the command that runs it"
    stage, path = command.groups()
    assert ROOT / path == recipe
    schemas = {str(name): schema for name, schema in SCHEMAS.items()}
    load(recipe, schemas[stage] if stage else ImproveConfig)


def test_there_is_a_recipe_for_every_stage() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {*SCHEMAS, "quick", "improve"}


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the guide, its first line included."""
    section = GUIDE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in (rows[0], *rows[2:])]


def told(cell: str) -> Any:
    return None if cell == "none" else tomllib.loads(f"value = {cell}")["value"]


def defaults(schema: type[pydantic.BaseModel], section: str = "") -> dict[str, Any]:
    """Every setting's default; those of sections are named as `--set` does, stages of a round left out."""
    found: dict[str, Any] = {}
    for key, field in schema.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple(SCHEMAS.values())) or key == "dpo":
            continue
        if isinstance(default, pydantic.BaseModel):
            found |= defaults(type(default), f"{section}{key}.")
        else:
            found[section + key] = default
    return found


@pytest.mark.parametrize(("column", "stage"), enumerate(("sft", "reward", "dpo", "ppo"), start=1))
def test_the_guide_tells_every_setting_of_a_stage_with_its_default(column: int, stage: str) -> None:
    first, *rows = table("A stage")
    assert first[column] == stage
    if stage == "ppo":
        rows += [[name, "", "", "", default] for name, default, _ in table("Sections of PPO")[1:]]
    found = {row[0]: told(row[column]) for row in rows if row[column]}
    schemas = {str(name): schema for name, schema in SCHEMAS.items()}
    assert found == defaults(schemas[stage])


def test_the_guide_tells_every_setting_of_a_round_with_its_default() -> None:
    assert {name: told(default) for name, default, _ in table("A round")[1:]} == defaults(ImproveConfig)

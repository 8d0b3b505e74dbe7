"""Every recipe is what its command reads, and its first lines say how to run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tutelage.config import load
from tutelage.improvement import ImproveConfig
from tutelage.training.job import SCHEMAS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
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

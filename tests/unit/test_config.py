"""Recipes: TOML and overrides in, frozen settings or a sentence that helps out."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.cli import main
from tutelage.config import Settings, check, home, load
from tutelage.errors import ConfigError


class Optimizer(Settings):
    learning_rate: float = 1e-3
    warmup_steps: int = pydantic.Field(default=10, ge=0)


class Recipe(Settings):
    model: str
    epochs: int = 1
    optimizer: Optimizer = Optimizer()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "sft.toml"
    path.write_text('model = "tiny"\n[optimizer]\nwarmup_steps = 5\n', encoding="utf-8")
    return path


def test_a_recipe_becomes_settings_with_defaults(recipe: Path) -> None:
    assert load(recipe, Recipe) == Recipe(model="tiny", optimizer=Optimizer(warmup_steps=5))


def test_settings_are_frozen(recipe: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        load(recipe, Recipe).epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=3", Recipe(model="tiny", epochs=3, optimizer=Optimizer(warmup_steps=5))),
        ('model="builtin"', Recipe(model="builtin", optimizer=Optimizer(warmup_steps=5))),
        ("model=builtin", Recipe(model="builtin", optimizer=Optimizer(warmup_steps=5))),
        ("model=a=b", Recipe(model="a=b", optimizer=Optimizer(warmup_steps=5))),
        ("optimizer.warmup_steps=0", Recipe(model="tiny", optimizer=Optimizer(warmup_steps=0))),
        (
            "optimizer.learning_rate=1",
            Recipe(model="tiny", optimizer=Optimizer(learning_rate=1, warmup_steps=5)),
        ),
    ],
)
def test_overrides_win(recipe: Path, override: str, expected: Recipe) -> None:
    assert load(recipe, Recipe, [override]) == expected


def test_the_last_override_of_a_key_wins(recipe: Path) -> None:
    assert load(recipe, Recipe, ["epochs=2", "epochs=3"]).epochs == 3


@given(
    st.integers(0, 2**31),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="ascii", exclude_characters="\x7f")),
)
def test_values_survive_an_override(
    tmp_path_factory: pytest.TempPathFactory, steps: int, rate: float, text: str
) -> None:
    recipe = tmp_path_factory.getbasetemp() / "empty.toml"
    recipe.touch()
    overrides = [
        f"optimizer.warmup_steps={steps}",
        f"optimizer.learning_rate={rate!r}",
        f"model={json.dumps(text)}",
    ]
    loaded = load(recipe, Recipe, overrides)
    assert (loaded.optimizer.warmup_steps, loaded.optimizer.learning_rate, loaded.model) == (
        steps,
        rate,
        text,
    )


@pytest.mark.parametrize("override", ["epochs", "=3", ""])
def test_an_override_without_a_key_or_value_is_explained(recipe: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="an override is written key=value") as caught:
        load(recipe, Recipe, [override])
    assert "--set" in caught.value.hint


def test_an_override_below_a_plain_value_is_explained(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"'model' in 'model\.name' is a value, not a section"):
        load(recipe, Recipe, ["model.name=tiny"])


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("epoch=2", "epoch: unknown key", "did you mean 'epochs'?"),
        (
            "optimizer.learning_rat=1.0",
            "optimizer.learning_rat: unknown key",
            "did you mean 'learning_rate'?",
        ),
        ("zebra=2", "zebra: unknown key", "known keys: model, epochs, optimizer"),
        ("epochs=2.5", "epochs: input should be a valid integer", ""),
        ("epochs=true", "epochs: input should be a valid integer", ""),
        ("model=3", "model: input should be a valid string", ""),
        (
            "optimizer.warmup_steps=-1",
            "optimizer.warmup_steps: input should be greater than or equal to 0",
            "",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_way_out(
    recipe: Path, override: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(recipe, Recipe, [override])
    assert caught.value.where == str(recipe)
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check({"epochs": "two", "epoch": 2}, Recipe, where="here")
    assert caught.value.message.split("; ") == [
        "model: field required",
        "epochs: input should be a valid integer",
        "epoch: unknown key",
    ]


def test_a_missing_recipe_names_its_neighbours(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe") as caught:
        load(recipe.with_name("stf.toml"), Recipe)
    assert str(recipe) in caught.value.hint


def test_a_missing_folder_of_recipes_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe") as caught:
        load(tmp_path / "nowhere" / "sft.toml", Recipe)
    assert "name a TOML file" in caught.value.hint


@pytest.mark.parametrize("content", [b"model = ", b"model = 'a'\nmodel = 'b'", b"\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(path, Recipe)
    assert caught.value.where == str(path)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, Recipe)


def test_home_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "deep" / "home"))
    folder = home()
    assert folder == tmp_path.resolve() / "deep" / "home"
    assert sys.platform == "win32" or stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_home_may_be_written_from_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_HOME", os.path.join("~", "chat"))
    assert home() == tmp_path.resolve() / "chat"


def test_without_a_setting_home_is_the_platforms_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUTELAGE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = home()
    assert folder.name == "tutelage"
    assert tmp_path.resolve() in folder.parents


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", "~nobody-of-this-name/chat")
    with pytest.raises(ConfigError, match=r"cannot be made: .*home dir") as caught:
        home()
    assert "TUTELAGE_HOME" in caught.value.hint


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigError, match="cannot be made") as caught:
        home()
    assert "TUTELAGE_HOME" in caught.value.hint


@pytest.mark.skipif(
    not Path("/sys/kernel").is_dir(), reason="asks a folder that nobody can write to, root neither"
)
def test_a_home_that_cannot_be_written_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", "/sys/kernel")
    monkeypatch.setattr(sys, "argv", ["tutelage", "versions", "list"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: /sys/kernel/versions: ")
    assert "TUTELAGE_HOME" in hint

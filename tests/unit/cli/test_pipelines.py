"""`tutelage generate` and `tutelage chat`: which version answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.cli import pipelines
from tutelage.errors import InvalidRequest, NotFound
from tutelage.registry import Registry


def test_a_reward_version_is_not_asked_to_speak(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.begin("tiny")
    registry.publish(kind="reward", model="tiny")
    assert pipelines._speaker(tmp_path, "stable").name == "v1"
    with pytest.raises(InvalidRequest, match="r1 is a reward model and cannot chat") as refused:
        pipelines._speaker(tmp_path, "r1")
    assert "score" in refused.value.hint
    with pytest.raises(NotFound):
        pipelines._speaker(tmp_path, "v9")


def test_on_a_fresh_installation_the_built_in_model_speaks(tmp_path: Path) -> None:
    assert pipelines._speaker(tmp_path, "stable").model == "builtin"

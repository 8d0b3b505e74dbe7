from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.moderation.categories import CATEGORIES
from tutelage.moderation.policy import DEFAULT_POLICY, Policy


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = DEFAULT_POLICY.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "policy.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_shipped_policy_covers_every_category_on_both_sides() -> None:
    policy = Policy.load()
    assert set(policy.input) == set(CATEGORIES) == set(policy.output)


def test_the_shipped_policy_never_blocks_somebody_who_speaks_of_hurting_themselves() -> None:
    certain = dict.fromkeys(("self-harm", "self-harm/intent"), 1.0)
    policy = Policy.load()
    assert policy.warned(certain, "input") == ("self-harm", "self-harm/intent")
    assert policy.blocked(certain, "input") == ()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"hate" = { warn = 0.5, block = 0.9 }', '"hate" = { warn = 0.95, block = 0.9 }', "input.hate"),
        ('"hate" = { warn = 0.5', '"hate" = { warn = 1.5', "input.hate.warn"),
        ('"hate" = { warn = 0.5', '"hate" = { warn = "high"', "input.hate.warn"),
        ('"hate" = { warn = 0.5', '"hate" = { wran = 0.5', "input.hate.wran"),
        ('"hate" = {', '"hatred" = {', "input.hatred"),
        ('on_failure = "open"', 'on_failure = "shrug"', "on_failure"),
        ("timeout_seconds = 2.0", "timeout_seconds = 0.0", "timeout_seconds"),
        ("timeout_seconds = 2.0", "timeout = 2.0", "timeout"),
        (
            '"self-harm/intent" = { warn = 0.08 }',
            '"self-harm/intent" = { warn = 0.2, block = 0.9 }',
            "self-harm/intent",
        ),
    ],
)
def test_a_wrong_policy_is_an_error_that_names_the_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught:
        Policy.load(path)
    assert key in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_or_broken_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(ConfigError, match=r"no such policy"):
        Policy.load(path)
    path.write_text("name =", encoding="utf-8")
    with pytest.raises(ConfigError, match=str(path)):
        Policy.load(path)


def test_the_version_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    shipped = Policy.load().version
    assert shipped.startswith("default-")
    assert Policy.load(changed(tmp_path, "# The policy", "# A policy")).version == shipped
    assert Policy.load(changed(tmp_path, "warn = 0.5", "warn = 0.51")).version != shipped


def test_thresholds_are_reached_from_the_number_itself_on(policy: Policy) -> None:
    assert policy.warned({"violence": 0.5}, "input") == ("violence",)
    assert policy.warned({"violence": 0.499}, "input") == ()
    assert policy.blocked({"violence": 0.8}, "input") == ("violence",)
    assert policy.blocked({"violence": 0.4}, "output") == ("violence",)


def test_a_category_that_a_side_does_not_name_is_not_enforced_there(policy: Policy) -> None:
    assert policy.warned({"hate": 1.0}, "output") == ()
    assert policy.blocked({"hate": 1.0}, "input") == ("hate",)

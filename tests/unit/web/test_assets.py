"""Files are kept for ever under a name that changes with any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.errors import NotFound
from tutelage.web.assets import Assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "b.css").write_text("2")
    (tmp_path / "secret.txt").write_text("3")
    return tmp_path


def test_a_file_is_kept_for_ever_under_todays_hash_only(folder: Path) -> None:
    assets = Assets(folder)
    today = assets.respond(assets.hash, "a.js")
    assert (today.body, today.media_type) == (b"1", "text/javascript")
    assert "immutable" in today.headers["cache-control"]
    older = assets.respond("000000000000", "a.js")
    assert (older.body, older.headers["cache-control"]) == (b"1", "no-cache")


@pytest.mark.parametrize("name", ["secret.txt", "../assets.py", "", "A.JS"])
def test_nothing_else_is_served(folder: Path, name: str) -> None:
    assets = Assets(folder)
    with pytest.raises(NotFound):
        assets.respond(assets.hash, name)


def test_the_hash_changes_with_any_file_and_a_wrong_name_is_found_at_once(folder: Path) -> None:
    before = Assets(folder)
    assert before.url("a.js") == f"/static/{before.hash}/a.js"
    with pytest.raises(KeyError):
        before.url("nothing.js")
    (folder / "b.css").write_text("22")
    assert Assets(folder).hash != before.hash

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

from tutelage.cli import versions
from tutelage.cli.output import fail
from tutelage.errors import TutelageError
from tutelage.models.adapters import AdapterShape, save_adapter
from tutelage.models.exporting import KINDS
from tutelage.models.loading import load_model
from tutelage.registry import Registry, publish_run
from tutelage.store import Store, accounts

Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with --json; its object on success, the error's when it failed."""

    def call(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments, "--json"])
        app = typer.Typer(pretty_exceptions_enable=False)
        versions.register(app)
        try:
            app([*arguments, "--json"], standalone_mode=False)
        except TutelageError as error:
            fail(error)
        out, err = capsys.readouterr()
        return json.loads(out or err)

    return call


@pytest.fixture
def finished_run(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "sft-0001"
    folder.mkdir()
    model = load_model("tiny", home).model
    model.add_adapter("sft", AdapterShape(2, 4), seed=0)
    save_adapter(model, "sft", folder / "adapter", base="tiny")
    (folder / "manifest.json").write_text('{"kind": "chat", "model": "tiny", "snapshot": "abc"}')
    return folder


def test_versions_from_run_to_roll_back(home: Path, run: Run, finished_run: Path) -> None:
    assert run("versions", "list") == {"versions": [], "aliases": {}}
    assert run("versions", "publish", str(finished_run), "--notes", "first")["name"] == "v1"
    assert run("versions", "publish", str(finished_run))["name"] == "v2"
    assert run("versions", "promote", "v1") == {"alias": "stable", "version": "v1"}
    assert run("versions", "promote", "v2") == {"alias": "stable", "version": "v2"}
    assert run("versions", "promote", "v2", "--alias", "candidate")["alias"] == "candidate"
    assert run("versions", "rollback") == {"alias": "stable", "version": "v1"}
    assert run("versions", "promote", "candidate") == {"alias": "stable", "version": "v2"}
    assert run("versions", "rollback") == {"alias": "stable", "version": "v1"}
    listed = run("versions", "list")
    assert [version["name"] for version in listed["versions"]] == ["v1", "v2"]
    assert listed["aliases"] == {"stable": "v1", "candidate": "v2"}
    shown = run("versions", "show", "stable")
    assert (shown["name"], shown["aliases"], shown["lineage"]) == ("v1", ["stable"], ["v1"])
    assert (shown["notes"], shown["run"], shown["snapshot"]) == ("first", "sft-0001", "abc")
    assert Registry(home).resolve("stable").name == "v1"


@pytest.mark.parametrize("name", ["sft-0001", "runs/sft-0001"])
def test_a_run_is_published_by_its_name(home: Path, run: Run, finished_run: Path, name: str) -> None:
    (home / "runs").mkdir()
    finished_run.rename(home / "runs" / "sft-0001")
    assert run("versions", "publish", name)["run"] == "sft-0001"
    elsewhere = finished_run.parent / "elsewhere" / "sft-0001"
    assert run("versions", "publish", str(elsewhere))["error"]["where"] == str(elsewhere / "manifest.json")


def test_a_version_goes_out_with_its_card(home: Path, run: Run, tmp_path: Path) -> None:
    model = load_model("tiny", home).model
    model.add_adapter("sft", AdapterShape(2, 4), seed=0)
    save_adapter(model, "sft", tmp_path / "run" / "adapter", base="tiny")
    (tmp_path / "run" / "manifest.json").write_text('{"kind": "chat", "model": "tiny"}')
    run("versions", "publish", str(tmp_path / "run"), "--notes", "Kinder.")
    run("versions", "promote", "v1")
    card = run("versions", "card", "stable")
    assert card["version"] == "v1"
    assert "Kinder." in card["card"]
    out = tmp_path / "out"
    written = run("versions", "export", "stable", str(out), "--format", "safetensors", "--type", "f32")
    assert (written["version"], written["format"], written["folder"]) == ("v1", "safetensors", str(out))
    assert written["files"] == {str(path): path.stat().st_size for path in out.iterdir()}
    assert "Kinder." in (out / "README.md").read_text()
    assert "new folder" in run("versions", "export", "v1", str(out))["error"]["hint"]
    assert "f32" in run("versions", "export", "v1", str(tmp_path / "b"), "--type", "q8_0")["error"]["hint"]


def test_the_formats_are_those_that_can_be_written() -> None:
    assert [each.value for each in versions.ExportFormat] == list(KINDS)


def test_errors_come_with_a_way_out(run: Run, tmp_path: Path) -> None:
    assert "publish" in run("versions", "show", "v1")["error"]["hint"]
    assert "promote" in run("versions", "rollback")["error"]["hint"]
    assert run("versions", "publish", str(tmp_path / "none"))["error"]["where"]
    assert "keys list" in run("keys", "revoke", "none")["error"]["hint"]


def test_keys_from_creation_to_revocation(home: Path, run: Run) -> None:
    made = run("keys", "create", "--name", "script", "--scope", "chat")
    assert made["key"].startswith("tut-")
    assert made["scopes"] == ["chat"]
    other = run("keys", "create", "--name", "other")
    listed = run("keys", "list")["keys"]
    assert [key["name"] for key in listed] == ["other", "script"]
    assert made["key"] not in json.dumps(listed)
    store = Store.open(home / "tutelage.db")
    with store.read() as tx:
        found = accounts.key_by_secret(tx, made["key"])
    assert found is not None
    assert found.id == made["id"]
    assert run("keys", "revoke", made["prefix"])["revoked"]
    assert run("keys", "revoke", other["id"])["revoked"]
    with store.read() as tx:
        assert accounts.key_by_secret(tx, made["key"]) is None
    store.close()


def test_a_backup_can_be_opened(run: Run, tmp_path: Path) -> None:
    run("keys", "create", "--name", "script")
    target = tmp_path / "copy.db"
    assert run("backup", str(target)) == {"path": str(target), "bytes": target.stat().st_size}
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT name FROM api_keys").fetchall() == [("script",)]
    assert run("backup", str(target))["error"]["where"] == str(target)


def test_a_backup_is_restored(home: Path, run: Run, tmp_path: Path) -> None:
    run("keys", "create", "--name", "before")
    run("backup", str(tmp_path / "copy.db"))
    run("keys", "create", "--name", "after")
    restored = run("restore", str(tmp_path / "copy.db"))
    assert [key["name"] for key in run("keys", "list")["keys"]] == ["before"]
    assert Path(restored["kept"]).parent == home
    run("restore", restored["kept"])
    assert [key["name"] for key in run("keys", "list")["keys"]] == ["after", "before"]
    assert run("restore", str(tmp_path / "none.db"))["error"]["where"] == str(tmp_path / "none.db")


@pytest.mark.postgres
def test_an_installation_moves_to_a_server(
    run: Run, tmp_path: Path, postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("keys", "create", "--name", "script")
    run("backup", str(tmp_path / "all.db"))
    postgres_server.run("CREATE DATABASE moved")
    monkeypatch.setenv("TUTELAGE_DATABASE_URL", postgres_server.address("moved"))
    assert run("keys", "list")["keys"] == []
    assert run("restore", str(tmp_path / "all.db"))["kept"] is None
    assert [key["name"] for key in run("keys", "list")["keys"]] == ["script"]
    assert run("backup", str(tmp_path / "back.db"))["bytes"]
    monkeypatch.delenv("TUTELAGE_DATABASE_URL")
    run("restore", str(tmp_path / "back.db"))
    assert [key["name"] for key in run("keys", "list")["keys"]] == ["script"]


def test_a_server_that_does_not_answer_is_told_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/d")
    error = run("keys", "list")["error"]
    assert error["hint"]
    assert "secret" not in json.dumps(error)


def test_what_is_broken_or_failed_the_gate_is_not_promoted(home: Path, run: Run, finished_run: Path) -> None:
    registry = Registry(home)
    broken = registry.publish(kind="chat", model="tiny", files=finished_run / "adapter")
    assert broken.adapter
    (broken.adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    assert "error" in run("versions", "promote", "v1")
    checks = [{"name": "kl", "outcome": "failed", "shown": "99 nats", "wanted": "at most 30"}]
    gate = {"gate": {"outcome": "failed", "checks": checks}}
    registry.publish(kind="chat", model="tiny", files=finished_run / "adapter", evaluation=gate)
    refused = run("versions", "promote", "v2")["error"]
    assert "Distance from its start: 99 nats, wanted: at most 30" in refused["message"]
    assert "--anyway" in refused["hint"]
    assert registry.aliases() == {}
    assert run("versions", "promote", "v2", "--anyway")["version"] == "v2"


def test_text_for_people(
    home: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    versions.list_versions()
    versions.list_keys()
    versions.publish(finished_run, notes="[bold]as it is[/bold]")
    versions.promote("v1")
    versions.list_versions()
    versions.show("stable")
    versions.create_key("a [red]key")
    versions.list_keys()
    out = capsys.readouterr().out
    for part in (
        "No version yet",
        "Published v1",
        "stable is now v1",
        "[bold]as it is[/bold]",
        "tut-",
        "[red]key",
    ):
        assert part in out


def interval(value: float, pairs: int = 9) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "pairs": pairs}


REWARD_FIGURES = {
    "comparisons": 40,
    "pairs": 90,
    "ties": 2,
    "held_out_comparisons": 10,
    "left_out": {},
    "by_source": {},
    "member_accuracy": [interval(0.7)],
    "held_out_accuracy": interval(0.7),
    "by_rank_gap": {},
    "length_baseline": interval(0.55),
    "majority_baseline": interval(0.5),
    "calibration": {"error": None},
    "length_correlation": 0.25,
    "disagreement": {"deviation": None},
}
SPEAKER = {"judge": interval(0.3), "reward": interval(0.4), "flagged": 0, "length": 31.5, "ended": 0.9}
MOVED = {"before": 0.0, "after": 0.5}
ROUND_FIGURES = {
    "prompts": 30,
    "speakers": {"before": SPEAKER, "sft": SPEAKER, "best_of_n": SPEAKER, "after": SPEAKER},
    "baselines": {"sft": interval(0.6), "best_of_n": interval(0.8)},
    "win_rate_over_before": interval(0.75),
    "gate": {"outcome": "passed", "checks": []},
    "answers": [{"prompt": [{"role": "user", "content": "Hi"}], "answers": {}}],
    "sft": {"held_out_loss_before": 12.0, "held_out_loss": 0.75},
    "reward": REWARD_FIGURES,
    "ppo": {
        "reward": MOVED,
        "score": MOVED,
        "kl": MOVED,
        "reward_gain": interval(0.5),
        "score_gain": interval(0.5),
    },
}


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (
            {"config": {"sft": {"rank": 32}, "ppo": {"kl": {"limit": 60.0}}}, "evaluation": ROUND_FIGURES},
            (
                "ppo         kl.limit=60.0",
                "wins over before",
                "0.750 (0.650 to 0.850)",
                "mind: 50 comparisons are few",
                "gate: passed",
            ),
        ),
        (
            {"kind": "reward", "config": {"members": 3, "limits": {}}, "evaluation": REWARD_FIGURES},
            ("members=3", "all members together", "0.700 (0.600 to 0.800)"),
        ),
        ({"config": {"rank": 2}, "evaluation": {"held_out_loss": 0.5}}, ("rank=2", "held out loss: 0.5")),
    ],
)
def test_a_version_is_shown_for_people(
    finished_run: Path, capsys: pytest.CaptureFixture[str], manifest: dict[str, Any], told: tuple[str, ...]
) -> None:
    (finished_run / "manifest.json").write_text(json.dumps({"kind": "chat", "model": "tiny"} | manifest))
    published = Registry(Path(os.environ["TUTELAGE_HOME"]))
    versions.show(publish_run(published, finished_run, notes="").name)
    out = capsys.readouterr().out
    assert all(part in out for part in told)
    assert not set("{}'") & set(out)


def test_the_help_names_every_scope() -> None:
    scope = get_type_hints(versions.create_key, include_extras=True)["scope"].__metadata__[0]
    assert all(each in scope.help for each in accounts.SCOPES)

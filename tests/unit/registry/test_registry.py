from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, ModelError, NotFound, Unavailable
from tutelage.registry import ModelVersion, Registry, catalogue, publish_run

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(b"weights")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "weights"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def publish(registry: Registry, kind: Any = "chat", **rest: Any) -> ModelVersion:
    return registry.publish(kind=kind, model="tiny", **rest)


def leftovers(registry: Registry) -> list[str]:
    return [entry.name for entry in registry.folder.iterdir() if entry.name.startswith(".publishing")]


def test_a_version_keeps_where_it_came_from(registry: Registry, adapter: Path) -> None:
    parent = publish(registry)
    version = publish(
        registry,
        files=adapter,
        parents=[parent.name],
        snapshot="abc",
        run="sft-0001",
        config={"lr": 0.1},
        evaluation={"win_rate": 0.6},
        notes="better",
    )
    read = Registry(registry.folder.parent).get("v2")
    assert read == version
    assert (read.name, read.number, read.kind, read.model) == ("v2", 2, "chat", "tiny")
    assert (read.parents, read.snapshot, read.run) == (("v1",), "abc", "sft-0001")
    assert (read.config, read.evaluation, read.notes) == ({"lr": 0.1}, {"win_rate": 0.6}, "better")
    assert abs(datetime.now(UTC) - read.created) < timedelta(minutes=1)
    assert read.code.startswith("0.")
    assert read.adapter == read.path / "adapter"
    assert (read.adapter / WEIGHTS).read_bytes() == b"weights"
    json.dumps(read.as_dict())


def test_a_version_does_not_change_with_the_run_it_came_from(registry: Registry, adapter: Path) -> None:
    version = publish(registry, files=adapter)
    (adapter / WEIGHTS).open("r+b").write(b"CHANGED")
    assert version.adapter is not None
    assert (version.adapter / WEIGHTS).read_bytes() == b"weights"


def test_a_version_may_hold_a_whole_model(registry: Registry, weights: Path) -> None:
    version = publish(registry, weights=weights)
    assert (version.adapter, version.weights) == (None, version.path / "weights")
    assert version.weights is not None
    assert (version.weights / "config.json").read_text() == "{}"
    assert registry.get("v1").as_dict()["weights"] == str(version.weights)
    registry.promote("v1")


def test_a_manifest_from_before_whole_models_is_read(registry: Registry) -> None:
    file = publish(registry).path / "manifest.json"
    fields = json.loads(file.read_text())
    del fields["weights"]
    file.write_text(json.dumps(fields))
    assert registry.get("v1").weights is None


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_model_that_is_not_whole_is_neither_published_nor_promoted(
    registry: Registry, weights: Path, missing: str
) -> None:
    version = publish(registry, weights=weights)
    (weights / missing).unlink()
    with pytest.raises(ModelError, match=missing.split(".")[0]):
        publish(registry, weights=weights)
    assert [each.name for each in registry.list()] == ["v1"]
    assert leftovers(registry) == []
    assert version.weights is not None
    (version.weights / missing).unlink()
    with pytest.raises(ModelError):
        registry.promote("v1")


def test_a_version_whose_base_is_a_deleted_version_does_not_serve(registry: Registry, weights: Path) -> None:
    base = publish(registry, weights=weights)
    tuned = registry.publish(kind="chat", model=base.name, parents=[base.name])
    registry.promote(tuned.name)
    shutil.rmtree(base.path)
    with pytest.raises(ModelError, match="base model of v2 is missing"):
        registry.promote(tuned.name, alias="other")


def test_a_run_that_trained_all_weights_is_published_with_them(registry: Registry, weights: Path) -> None:
    (weights.parent / "manifest.json").write_text('{"kind": "chat", "model": "tiny"}')
    version = publish_run(registry, weights.parent)
    assert (version.adapter, version.weights) == (None, version.path / "weights")


def test_kinds_are_numbered_apart(registry: Registry) -> None:
    made = [publish(registry, kind).name for kind in ("chat", "reward", "chat", "reward")]
    assert made == ["v1", "r1", "v2", "r2"]
    for _ in range(9):
        publish(registry)
    assert [version.name for version in registry.list("reward")] == ["r1", "r2"]
    assert [version.name for version in registry.list("chat")] == [f"v{number}" for number in range(1, 12)]
    assert len(registry.list()) == 13
    assert registry.resolve("latest").name == "v11"
    assert registry.resolve("latest", kind="reward").name == "r2"


def test_publishers_at_once_get_different_names(tmp_path: Path, adapter: Path) -> None:
    registries = [Registry(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda number: publish(registries[number % 4], files=adapter).name, range(40)))
    assert sorted(names) == sorted(f"v{number}" for number in range(1, 41))
    assert leftovers(registries[0]) == []


def test_a_publisher_that_is_killed_leaves_no_version(registry: Registry, adapter: Path) -> None:
    with (adapter / WEIGHTS).open("wb") as file:
        file.truncate(200 * 2**20)
    program = (
        "import sys; from pathlib import Path; from tutelage.registry import Registry\n"
        "Registry(Path(sys.argv[1])).publish(kind='chat', model='tiny', files=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(registry.folder.parent), str(adapter)]
    child = subprocess.Popen(command)
    while child.poll() is None and not leftovers(registry):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert [version.name for version in registry.list()] in ([], ["v1"])
    assert publish(registry).name in ("v1", "v2")


@pytest.mark.parametrize("missing", ["adapter_config.json", WEIGHTS, "everything", "content"])
def test_half_an_adapter_is_neither_published_nor_promoted(
    registry: Registry, adapter: Path, missing: str
) -> None:
    version = publish(registry, files=adapter)
    assert version.adapter is not None
    for folder in (adapter, version.adapter):
        if missing == "everything":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        elif missing == "content":
            (folder / WEIGHTS).write_bytes(b"")
        else:
            (folder / missing).unlink()
    with pytest.raises(ModelError):
        publish(registry, files=adapter)
    with pytest.raises(ModelError):
        registry.promote("v1")
    assert registry.aliases() == {}
    assert [found.name for found in registry.list()] == ["v1"]


def test_a_full_disk_leaves_no_version_and_is_told_in_a_sentence(
    registry: Registry, adapter: Path, files_of_at_most: Any
) -> None:
    (adapter / WEIGHTS).write_bytes(b"w" * 10_000)
    with files_of_at_most(5_000), pytest.raises(ModelError) as raised:
        publish(registry, files=adapter)
    assert raised.value.message.startswith("The version cannot be written: [Errno 27] File too large")
    assert "room" in raised.value.hint
    assert registry.list() == []
    assert leftovers(registry) == []


def test_what_is_published_has_reached_the_disk(
    registry: Registry, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(catalogue, "sync", lambda path: synced.append(path.name))
    publish(registry, files=adapter)
    assert {WEIGHTS, "adapter_config.json", "manifest.json"} < set(synced)
    assert synced[-1] == "versions", "and so has its name"


def test_a_base_model_that_is_gone_is_not_promoted(registry: Registry, tmp_path: Path) -> None:
    registry.publish(kind="chat", model=str(tmp_path / "gone"))
    with pytest.raises(ModelError):
        registry.promote("v1")


def test_wrong_fields_are_refused(registry: Registry) -> None:
    with pytest.raises(InvalidRequest):
        publish(registry, "toy")
    with pytest.raises(NotFound):
        publish(registry, parents=["v7"])
    assert registry.list() == []


def test_promote_and_roll_back(registry: Registry) -> None:
    for _ in range(3):
        publish(registry)
    with pytest.raises(Conflict):
        registry.rollback()
    for name in ("v1", "v2", "v2", "v3"):
        assert registry.promote(name).name == name
    assert (registry.resolve("stable").name, registry.history()) == ("v3", ["v1", "v2", "v3"])
    assert registry.rollback().name == "v2"
    assert Registry(registry.folder.parent).resolve("stable").name == "v2"
    registry.promote("v3", "candidate")
    assert registry.aliases() == {"stable": "v2", "candidate": "v3"}
    assert registry.rollback().name == "v1"
    with pytest.raises(Conflict):
        registry.rollback()
    assert registry.resolve("stable").name == "v1"


def test_a_roll_back_passes_over_what_is_gone_or_broken(registry: Registry, adapter: Path) -> None:
    for files in (None, adapter, None, None):
        publish(registry, files=files)
    for name in ("v1", "v2", "v3", "v4"):
        registry.promote(name)
    shutil.rmtree(registry.get("v3").path)
    (registry.get("v2").path / "adapter" / WEIGHTS).unlink()
    assert registry.previous().name == "v1"
    assert registry.resolve("stable").name == "v4"
    assert registry.rollback().name == "v1"
    assert (registry.resolve("stable").name, registry.history()) == ("v1", ["v1"])


def test_a_roll_back_to_a_version_goes_no_further_when_it_is_done_twice(registry: Registry) -> None:
    for name in [publish(registry).name for _ in range(3)]:
        registry.promote(name)
    for _ in range(2):
        assert registry.rollback(to="v2").name == "v2"
    assert registry.history() == ["v1", "v2"]
    with pytest.raises(Conflict, match="never meant v3"):
        registry.rollback(to="v3")


def test_a_roll_back_leaves_the_alias_where_everything_before_is_gone(registry: Registry) -> None:
    for name in (publish(registry).name, publish(registry).name):
        registry.promote(name)
    shutil.rmtree(registry.get("v1").path)
    with pytest.raises(Conflict, match="nothing before"):
        registry.rollback()
    assert registry.resolve("stable").name == "v2"


def test_a_roll_back_leads_away_from_a_version_that_is_gone(registry: Registry) -> None:
    for name in (publish(registry).name, publish(registry).name):
        registry.promote(name)
    shutil.rmtree(registry.get("v2").path)
    assert registry.rollback().name == "v1"
    assert registry.resolve("stable").name == "v1"


def test_an_alias_that_cannot_be_written_stays(registry: Registry, files_of_at_most: Any) -> None:
    publish(registry)
    publish(registry)
    registry.promote("v1")
    with files_of_at_most(100), pytest.raises(Unavailable, match="cannot be written") as raised:
        registry.promote("v2")
    assert "room" in raised.value.hint
    assert registry.aliases() == {"stable": "v1"}


def test_a_survey_reads_what_can_be_read(registry: Registry) -> None:
    for kind in ("chat", "chat", "reward", "chat"):
        publish(registry, kind)
    (registry.get("v2").path / "manifest.json").write_text("{")
    found, broken = registry.survey()
    assert [version.name for version in found] == ["v1", "r1", "v3"]
    assert "manifest is broken" in broken.pop("v2").message
    assert broken == {}


def test_promotions_at_once_are_all_kept(tmp_path: Path) -> None:
    registries = [Registry(tmp_path) for _ in range(4)]
    for _ in range(20):
        publish(registries[0])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: registries[number % 4].promote(f"v{number + 1}"), range(20)))
    assert sorted(registries[0].history()) == sorted(f"v{number}" for number in range(1, 21))


def test_of_servers_that_begin_at_once_one_publishes_the_base(tmp_path: Path) -> None:
    registries = [Registry(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda registry: registry.begin("tiny"), registries))
    assert [version.name for version in registries[0].list()] == ["v1"]
    assert registries[0].history() == ["v1"]


def test_a_promotion_moves_the_alias_file(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    assert not registry.aliases_file.exists()
    registry.promote("v1")
    before = registry.aliases_file.stat()
    registry.promote("v2")
    after = registry.aliases_file.stat()
    assert (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("alias", ["", "v1", "r2", "latest", "Stable", "a/b", "../x", "a\n", "a" * 33])
def test_what_cannot_be_an_alias(registry: Registry, alias: str) -> None:
    publish(registry)
    with pytest.raises(InvalidRequest):
        registry.promote("v1", alias)


def test_an_alias_means_one_kind(registry: Registry) -> None:
    publish(registry)
    publish(registry, "reward")
    registry.promote("r1", "judge")
    assert registry.resolve("judge").kind == "reward"
    for name, alias in (("r1", "stable"), ("r1", "candidate"), ("v1", "judge")):
        with pytest.raises(InvalidRequest):
            registry.promote(name, alias)


@pytest.mark.parametrize(
    "name", ["v9", "", "..", "../versions/v1", "v1/../v1", "/etc", "v01", "v1\n", "v0", "V1", "v1\x00", "v१"]
)
def test_names_are_checked_before_they_meet_the_file_system(registry: Registry, name: str) -> None:
    publish(registry)
    registry.promote("v1")
    for look_up in (registry.get, registry.resolve, registry.promote, registry.lineage):
        with pytest.raises(NotFound) as caught:
            look_up(name)
        assert "v1" in caught.value.hint
        assert "stable" in caught.value.hint


def test_what_another_user_owns_is_not_called_broken(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote(publish(registry).name)

    def refuse(self: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    for look_up in (lambda: registry.get("v1"), Registry(registry.folder.parent).aliases):
        with pytest.raises(ModelError, match="may not be read: Permission denied") as caught:
            look_up()
        assert "user" in caught.value.hint
        assert "elete" not in caught.value.hint


def test_an_empty_registry_says_how_to_begin(registry: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        registry.resolve("stable")
    assert "publish" in caught.value.hint


def test_the_latest_of_a_kind_that_is_not_there_yet_is_told_as_that(registry: Registry) -> None:
    publish(registry)
    with pytest.raises(NotFound, match="There is no reward model yet") as caught:
        registry.resolve("latest", kind="reward")
    assert "improve" in caught.value.hint


def test_lineage_is_each_ancestor_once(registry: Registry) -> None:
    publish(registry)
    publish(registry, "reward")
    publish(registry, parents=["v1"])
    publish(registry, parents=["v2", "r1", "v1"])
    assert [version.name for version in registry.lineage("v3")] == ["v3", "v2", "r1", "v1"]
    assert [version.name for version in registry.lineage("v1")] == ["v1"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"model": 3}', "\x00", None, {"created": "yesterday"}, {"parents": 1}]
)
def test_a_broken_manifest_is_named(registry: Registry, content: Any) -> None:
    file = publish(registry).path / "manifest.json"
    if content is None:
        file.unlink()
    elif isinstance(content, dict):
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
    else:
        file.write_text(content)
    for look_up in (lambda: registry.get("v1"), registry.list, lambda: registry.resolve("latest")):
        with pytest.raises(ModelError) as caught:
            look_up()
        assert caught.value.where == str(file)


@pytest.mark.parametrize("content", ["{", "[1]", '{"stable": 1}', '{"stable": [{"version": "../x"}]}'])
def test_a_broken_list_of_aliases_is_named(registry: Registry, content: str) -> None:
    publish(registry)
    registry.aliases_file.write_text(content)
    with pytest.raises(ModelError) as caught:
        registry.resolve("stable")
    assert caught.value.where == str(registry.aliases_file)


def test_a_run_becomes_a_version(registry: Registry, adapter: Path) -> None:
    publish(registry)
    manifest = {
        "kind": "chat",
        "model": "builtin",
        "parents": ["v1"],
        "snapshot": "abc",
        "config": {"steps": 2},
        "evaluation": {"loss": 1.0},
    }
    (adapter.parent / "manifest.json").write_text(json.dumps(manifest))
    version = publish_run(registry, adapter.parent, notes="first try")
    assert (version.name, version.model, version.parents) == ("v2", "builtin", ("v1",))
    assert (version.snapshot, version.run, version.notes) == ("abc", "run", "first try")
    assert (version.config, version.evaluation) == ({"steps": 2}, {"loss": 1.0})
    assert version.adapter is not None


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", '{"kind": "toy", "model": "tiny"}', '{"kind": "chat"}']
)
def test_an_unfinished_run_is_not_published(registry: Registry, adapter: Path, content: str | None) -> None:
    if content is not None:
        (adapter.parent / "manifest.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        publish_run(registry, adapter.parent)
    assert caught.value.where == str(adapter.parent / "manifest.json")
    assert registry.list() == []


def test_the_base_model_becomes_the_first_version_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.begin("tiny")
    assert registry.begin()
    assert registry.begin("tiny")
    assert [version.model for version in registry.list()] == ["tiny"]
    assert registry.aliases() == {"stable": "v1"}


def test_another_base_takes_over_until_something_is_trained(tmp_path: Path, adapter: Path) -> None:
    registry = Registry(tmp_path)
    registry.begin("a-typing-error")
    assert registry.begin("tiny")
    assert registry.begin("builtin")
    assert registry.begin("tiny"), "known already"
    assert [version.model for version in registry.list()] == ["a-typing-error", "tiny", "builtin"]
    assert registry.aliases() == {"stable": "v2"}
    registry.publish(kind="chat", model="tiny", files=adapter, parents=["v2"])
    assert not registry.begin("builtin")
    assert registry.aliases() == {"stable": "v2"}


def test_a_folder_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").touch()
    (tmp_path / "tiny").mkdir()
    registry = Registry(tmp_path / "home")
    for name in ("model", "model.gguf", "tiny"):
        registry.begin(name)
    found = [version.model for version in registry.list()]
    assert found == [str(tmp_path / "model"), str(tmp_path / "model.gguf"), "tiny"]

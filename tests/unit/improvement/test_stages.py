"""A stage's inputs by name, and what stands in its way: broken files, other processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, ModelError, NotFound
from tutelage.improvement import comparison, rounds, stages
from tutelage.improvement.comparison import ComparisonRequest, compare_runs
from tutelage.improvement.inputs import find_adapter, find_made, find_start
from tutelage.improvement.recording import alone
from tutelage.improvement.stages import Installation, StageRequest, train_stage
from tutelage.registry import Registry
from tutelage.training.ppo_recipe import PPOConfig
from tutelage.training.sft import SFTConfig

CONFIG = SFTConfig(model="tiny")


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    """A data folder whose database nobody asks for."""
    store: Any = None
    return Installation(tmp_path, store, Registry(tmp_path))


def finished(place: Installation, name: str, manifest: str) -> Path:
    run = place.home / "runs" / name
    (run / "adapter").mkdir(parents=True)
    (run / "manifest.json").write_text(manifest)
    return run


def test_a_run_with_a_broken_manifest_is_passed_over_and_named_where_it_is_asked_for(
    place: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    whole = finished(place, "sft-0001", '{"model": "tiny"}')
    broken = finished(place, "sft-0002", '{"model": "ti')
    assert find_start(place, "", "tiny") == whole / "adapter"
    assert "sft-0002 is passed over" in caplog.text
    with pytest.raises(ModelError, match="cannot be read") as raised:
        find_start(place, "sft-0002", "tiny")
    assert raised.value.where == str(broken / "manifest.json")
    assert raised.value.hint


def test_a_base_that_is_the_sft_model_itself_has_no_adapter_to_start_from(place: Installation) -> None:
    assert find_start(place, "tiny", "tiny") is None, "it is named as the start"
    assert find_start(place, "", "v1") is None, "nothing was trained on it"
    tuned = finished(place, "sft-0001", '{"model": "v1"}')
    assert find_start(place, "", "v1") == tuned / "adapter"
    with pytest.raises(NotFound, match="no finished sft run on tiny"):
        find_start(place, "", "tiny")


def test_a_run_that_trained_all_weights_has_no_adapter(place: Installation) -> None:
    whole = finished(place, "sft-0001", '{"model": "tiny"}')
    (whole / "adapter").rename(whole / "weights")
    assert find_made(place, "sft-0001", "sft", "tiny") == whole / "weights"
    with pytest.raises(NotFound, match="sft-0001 trained all weights") as raised:
        find_adapter(place, "sft-0001", "sft", "tiny")
    assert "versions publish" in raised.value.hint
    with pytest.raises(InvalidRequest, match="belongs to the base tiny"):
        find_adapter(place, "sft-0001", "sft", "builtin")


def test_a_name_leads_to_runs_and_versions_and_nowhere_else(place: Installation) -> None:
    made = finished(place, "../elsewhere", '{"model": "tiny"}') / "adapter"
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    scorer = place.registry.publish(kind="reward", model="tiny", files=made)
    assert find_adapter(place, "latest", "reward", "tiny") == scorer.adapter
    with pytest.raises(NotFound):
        find_adapter(place, "../elsewhere", "sft", "tiny")
    with pytest.raises(InvalidRequest, match="no name for a run"):
        train_stage(StageRequest("sft", CONFIG, name="../elsewhere"), place)


def test_a_model_of_the_other_kind_is_refused(place: Installation) -> None:
    made = finished(place, "reward-0001", '{"model": "tiny", "kind": "reward"}') / "adapter"
    finished(place, "sft-0001", '{"model": "tiny", "kind": "chat"}')
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    place.registry.publish(kind="reward", model="tiny", files=made)
    for name in ("reward-0001", "r1"):
        with pytest.raises(InvalidRequest, match=f"{name} is a reward model, and .* a chat model"):
            find_adapter(place, name, "sft", "tiny")
    with pytest.raises(InvalidRequest, match=r"sft-0001 is a chat model, and .* a reward model"):
        find_adapter(place, "sft-0001", "reward", "tiny")


def test_a_name_that_is_none_is_answered_with_those_that_are(place: Installation) -> None:
    finished(place, "sft-0001", '{"model": "tiny"}')
    with pytest.raises(NotFound, match="neither a finished run nor a version 'proxi'\nhint: runs: sft-0001"):
        find_adapter(place, "proxi", "reward", "tiny")
    with pytest.raises(NotFound, match="There is no version “v3”"):
        find_adapter(place, "v3", "sft", "tiny")


def test_a_base_in_a_folder_is_the_same_however_its_path_is_written(place: Installation) -> None:
    folder = place.home / "models" / "ours"
    folder.mkdir(parents=True)
    run = finished(place, "sft-0001", json.dumps({"model": str(folder)}))
    for path in (f"{folder}/", f"{folder.parent}/../models/ours"):
        assert find_start(place, "", path) == run / "adapter"


def test_a_version_is_a_parent_once(place: Installation) -> None:
    made = finished(place, "sft-0001", '{"model": "v1"}') / "adapter"
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    place.registry.publish(kind="chat", model="tiny")
    place.registry.publish(kind="chat", model="v1", files=made)
    request = StageRequest("sft", CONFIG.model_copy(update={"model": "v1"}), snapshot="x")
    assert stages._plan(replace(request, start="v1"), place)["parents"] == ["v1"]
    plan = stages._plan(replace(request, start="v2"), place)
    assert (plan["parents"], plan["start"]) == (["v1", "v2"], str(place.registry.get("v2").adapter))
    with pytest.raises(NotFound, match="nothing to start from"):
        find_made(place, "v1", "sft", "tiny")


@pytest.mark.parametrize("content", ['{"config": ', "[]", "\udcff"])
def test_a_broken_round_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    assert rounds._state(tmp_path) == {}
    assert not caplog.text
    (tmp_path / "round.json").write_bytes(content.encode(errors="surrogateescape"))
    assert rounds._state(tmp_path) == {}
    assert "passed over" in caplog.text


def begun(place: Installation, plan: str) -> StageRequest:
    run = place.home / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(CONFIG.model_dump()))
    (run / "plan.json").write_text(plan)
    return StageRequest("sft", CONFIG, name="mine", resume=True)


def test_a_broken_plan_is_named(place: Installation) -> None:
    with pytest.raises(ModelError, match="cannot be read") as raised:
        train_stage(begun(place, "{"), place)
    assert raised.value.where.endswith("plan.json")


def test_two_processes_do_not_train_one_run(place: Installation) -> None:
    plan = {"snapshot": "x", "start": "", "reward": "", "gold": "", "parents": []}
    request = begun(place, json.dumps(plan))
    with (
        alone(place.home / "runs" / "mine"),
        pytest.raises(Conflict, match="another process is working on mine"),
    ):
        train_stage(request, place)


def test_a_run_goes_on_with_what_it_began_with(place: Installation) -> None:
    """Another input that is named when a run is taken up would be passed over in silence."""
    first, second = (finished(place, name, '{"model": "tiny"}') for name in ("sft-0001", "sft-0002"))
    plan = {"snapshot": "x", "start": str(first / "adapter"), "reward": "", "gold": "", "parents": []}
    request = begun(place, json.dumps(plan))
    with pytest.raises(Conflict, match=r"began with --start .*sft-0001") as raised:
        train_stage(replace(request, start="sft-0002"), place)
    assert "leave out --start" in raised.value.hint
    with pytest.raises(Conflict, match="began with --snapshot x, and not with y"):
        train_stage(replace(request, snapshot="y"), place)
    with pytest.raises(Conflict, match="began with --gold left out"):
        train_stage(replace(request, gold="sft-0002"), place)
    with alone(place.home / "runs" / "mine"), pytest.raises(Conflict, match="another process"):
        train_stage(replace(request, start="sft-0001", snapshot="x"), place)
    assert second.exists()


def test_policies_are_compared_with_what_they_began_as(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sft-0001", "sft-0002", "reward-0001", "ppo-0001", "ppo-0002", "dpo-0001"):
        finished(place, name, '{"model": "tiny"}')
    begun = {"ppo-0001": "sft-0001", "dpo-0001": "sft-0001", "ppo-0002": ""}
    for name, start in begun.items():
        path = str(place.home / "runs" / start / "adapter") if start else ""
        (place.home / "runs" / name / "plan.json").write_text(json.dumps({"start": path}))
    monkeypatch.setattr(comparison, "split_prompts", lambda *given, **rest: SimpleNamespace(held_out=[]))
    monkeypatch.setattr(comparison, "load_model", lambda *given: SimpleNamespace(renderer=None))
    monkeypatch.setattr(comparison.export, "read_prompts", lambda folder: [])
    monkeypatch.setattr(comparison, "compare_policies", lambda *given, start, **rest: {"start": start})

    def start_of(*policies: str, **fields: str) -> Path | None:
        request = ComparisonRequest(PPOConfig(model="tiny"), policies, snapshot="x", **fields)
        found: Path | None = compare_runs(request, place)["start"]
        return found

    runs = place.home / "runs"
    assert start_of("ppo-0001", "dpo-0001") == runs / "sft-0001" / "adapter", "though sft-0002 is newer"
    assert start_of("ppo-0001", start="sft-0002") == start_of() == runs / "sft-0002" / "adapter"
    assert start_of("ppo-0002") is None, "it began as the base"
    with pytest.raises(InvalidRequest, match="ppo-0002 as tiny") as raised:
        start_of("ppo-0001", "ppo-0002")
    assert "--start" in raised.value.hint


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({}, False),
        ({"watched_prompts": 0}, False),
        ({"watched_prompts": 8}, True),
        ({"ppo": {"watched_prompts": 8}}, True),
    ],
)
def test_policies_are_not_compared_on_what_chose_one_of_them(
    place: Installation, monkeypatch: pytest.MonkeyPatch, evaluation: dict[str, Any], expected: bool
) -> None:
    """A run's manifest and a version's, which holds a whole round's."""
    run = finished(place, "ppo-0001", json.dumps({"model": "tiny", "evaluation": evaluation}))
    for name in ("sft-0001", "reward-0001"):
        finished(place, name, '{"model": "tiny"}')
    asked: list[bool] = []

    def split_prompts(*given: Any, gold: bool) -> Any:
        asked.append(gold)
        return SimpleNamespace(held_out=[])

    monkeypatch.setattr(comparison, "split_prompts", split_prompts)
    monkeypatch.setattr(comparison, "load_model", lambda *given: SimpleNamespace(renderer=None))
    monkeypatch.setattr(comparison.export, "read_prompts", lambda folder: [])
    monkeypatch.setattr(comparison, "compare_policies", lambda *given, **rest: {})
    compare_runs(ComparisonRequest(PPOConfig(model="tiny"), [run.name], snapshot="x"), place)
    assert asked == [expected]

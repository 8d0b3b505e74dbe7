"""Names of runs: numbers that no run has had, whoever begins one at the same time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tutelage.improvement.inputs import find_start
from tutelage.improvement.naming import new_run, numbered
from tutelage.improvement.stages import Installation
from tutelage.registry import Registry
from tutelage.store import Store, runs
from tutelage.training.metrics import Run


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    store = Store.open(tmp_path / "tutelage.db")
    yield Installation(tmp_path, store, Registry(tmp_path))
    store.close()


def test_runs_are_in_the_order_of_their_numbers_and_other_names_have_none(tmp_path: Path) -> None:
    for name in ("sft-10000", "sft-9999", "sft-0002", "sft-0002-old", "sft-2024run", "sft-mine", "ppo-0003"):
        (tmp_path / name).mkdir()
    assert [run.name for run in numbered(tmp_path, "sft")] == ["sft-0002", "sft-9999", "sft-10000"]
    assert numbered(tmp_path / "nowhere", "sft") == []


def test_a_copy_that_somebody_kept_does_not_stand_in_the_way(place: Installation) -> None:
    assert new_run(place, "round").name == "round-0001"
    (place.home / "runs" / "round-0007-old").mkdir()
    assert new_run(place, "round").name == "round-0002"
    assert new_run(place, "sft").name == "sft-0001"


def test_runs_are_their_owners_alone(place: Installation) -> None:
    """Prompts and answers of people are in them, and whoever made the data folder may have left it open."""
    os.chmod(place.home, 0o755)
    numbered_one, named = new_run(place, "round"), place.home / "runs" / "mine"
    Run(named, "sft").keep("plan.json", {})
    assert {stat.S_IMODE(each.stat().st_mode) for each in (numbered_one, named)} == {0o700}


def test_who_begins_at_the_same_time_gets_another_number(place: Installation) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: new_run(place, "round").name, range(8)))
    assert sorted(made) == [f"round-{number:04d}" for number in range(1, 9)]


def test_a_number_whose_folder_is_gone_is_not_given_again(place: Installation) -> None:
    """A round is known by its name: its version would be taken for that of the new one."""
    place.registry.publish(kind="chat", model="tiny", run="round-0003")
    with place.store.write() as tx:
        runs.create_run(tx, kind="improve", config={}, name="round-0005")
    place.registry.publish(kind="chat", model="tiny", run="round-0004")
    (place.home / "versions" / "v1" / "manifest.json").write_text("{")
    assert new_run(place, "round").name == "round-0006"


def test_the_newest_run_is_the_one_that_ended_last_whatever_its_name(place: Installation) -> None:
    for name, ended in (("sft-mine", 1), ("sft-0001", 3), ("sft-0002", 2)):
        (place.home / "runs" / name / "adapter").mkdir(parents=True)
        manifest = place.home / "runs" / name / "manifest.json"
        manifest.write_text('{"model": "tiny"}')
        os.utime(manifest, (ended, ended))
    start = find_start(place, "", "tiny")
    assert start is not None
    assert start.parent.name == "sft-0001"

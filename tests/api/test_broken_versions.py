"""A version that cannot answer is never put before people: not by promotion, for a share of them, nor by going back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from tutelage.engine.torch_engine import load
from tutelage.models.adapters import AdapterShape, save_adapter
from tutelage.models.loading import load_model
from tutelage.registry.version import write_json
from tutelage.store import experiments
from tutelage.web.app import create_app

WEIGHTS = "adapter_model.safetensors"
WAYS_OUT = ("rain it again", "estore the file", "ublish the run again", "ame another run or version")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("adapter")
    model = load_model("tiny", home).model
    model.add_adapter("sft", AdapterShape(2, 4), seed=0)
    save_adapter(model, "sft", home / "adapter", base="tiny")
    return home / "adapter"


@pytest.fixture
def operator(site: Any, adapter: Path, one_thread: None) -> Iterator[TestClient]:
    """An operator where v1 answers, loaded as in earnest, and v2 is an adapter beside it."""
    site.create, site.load = create_app, lambda version: load(version, site.home)
    site.registry.publish(kind="chat", model="tiny", files=adapter)
    with site.client() as client:
        client.headers.update(site.session("operator"))
        yield client


def lose(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def spoil(file: Path) -> None:
    save_file({name: each * float("nan") for name, each in load_file(file).items()}, file)


def forget_who(file: Path) -> None:
    (file.parents[1] / "manifest.json").write_text("{")


BREAKS = (lose, cut, spoil, forget_who)


@pytest.mark.parametrize("harm", BREAKS)
def test_it_is_refused_with_a_way_out_and_nothing_changes(
    site: Any, operator: TestClient, harm: Callable[[Path], None]
) -> None:
    harm(site.registry.folder / "v2" / "adapter" / WEIGHTS)
    wishes = (
        ("/operate/versions/v2/promote", None),
        ("/operate/experiments", {"treatment": "v2", "percent": 10}),
    )
    for path, body in wishes:
        answer = operator.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        message = answer.json()["error"]["message"]
        assert any(way in message for way in WAYS_OUT), message
        assert str(site.home) not in message
    assert (site.registry.aliases(), site.registry.history()) == ({"stable": "v1"}, ["v1"])
    with site.store.read() as tx:
        assert experiments.list_experiments(tx) == []
    assert operator.get("/operate").status_code == 200


@pytest.mark.parametrize("harm", BREAKS)
def test_going_back_passes_it_over_or_is_refused(
    site: Any, operator: TestClient, harm: Callable[[Path], None]
) -> None:
    site.registry.publish(kind="chat", model="tiny")
    file = site.registry.folder / "aliases.json"
    past = [*json.loads(file.read_text())["stable"], *({"version": name, "at": ""} for name in ("v2", "v3"))]
    write_json(
        file, {"stable": past}
    )  # at once: the server keeps the stable version warm, and must not see v2 whole
    harm(site.registry.folder / "v2" / "adapter" / WEIGHTS)
    answer = operator.post("/operate/rollback")
    seen_at_once = harm in (lose, forget_who)
    assert answer.status_code == (204 if seen_at_once else 409)
    assert site.registry.aliases() == {"stable": "v1" if seen_at_once else "v3"}


def test_going_back_past_what_was_deleted(site: Any, operator: TestClient) -> None:
    site.registry.publish(kind="chat", model="tiny")
    for name in ("v2", "v3"):
        site.registry.promote(name)
    shutil.rmtree(site.registry.folder / "v2")
    assert "Roll back to v1" in operator.get("/operate").text
    assert operator.post("/operate/rollback").status_code == 204
    assert site.registry.resolve("stable").name == "v1"
    assert operator.post("/operate/rollback").status_code == 409
    assert "Roll back to" not in operator.get("/operate").text

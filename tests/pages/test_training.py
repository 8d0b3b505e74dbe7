"""Operators watch rounds, stop and resume them, and read their diaries."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tutelage.store import runs

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]
EVALUATION = {
    "gate": {
        "outcome": "passed",
        "checks": [{"name": "wins", "outcome": "passed", "shown": "70 %", "wanted": "above 50 %"}],
    },
    "win_rate_over_before": {"value": 0.7, "low": 0.6, "high": 0.8},
    "baselines": {"best_of_n": {"value": 0.6, "low": 0.5, "high": 0.7}},
    "speakers": {
        name: {"reward": {"value": 1.0}, "judge": {"value": 0.5}, "length": 20.0, "flagged": 0}
        for name in ("before", "best_of_n", "after")
    },
    "reward": {
        "comparisons": 15,
        "held_out_comparisons": 3,
        "held_out_accuracy": {"value": 0.6, "low": 0.3, "high": 0.9, "pairs": 3},
        "member_accuracy": [{}],
    },
    "ppo": {
        "over_optimisation": {
            "best_step": 4,
            "curve": [
                {"step": 0, "kl": 0.0, "reward": 0.0, "gold": 0.0, "length": 40.0, "entropy": 2.0},
                {"step": 4, "kl": 1.0, "reward": 1.0, "gold": 0.5, "length": 30.0, "entropy": 1.5},
                {"step": 8, "kl": 4.0, "reward": 2.0, "gold": 0.2, "length": 20.0, "entropy": 1.0},
            ],
            "fit": {"alpha": 0.5, "beta": 0.4, "r2": 0.9, "peak_kl": 1.6},
        }
    },
    "answers": [
        {
            "prompt": [{"role": "user", "content": "What is <b>rain</b>?"}],
            "answers": {
                "before": {"text": "Wet.", "reward": 0.1},
                "after": {"text": "Water that falls from clouds.", "reward": 1.1},
            },
        }
    ],
}


@pytest.fixture
def under_way(site: Any) -> Iterator[tuple[str, str]]:
    """A round that a worker has begun: its request's id and its name."""
    home = Path(site.registry.folder).parent
    name = f"round-{random.randrange(10**8):08d}"
    folder = home / "runs" / name
    (folder / "sft").mkdir(parents=True)
    lines = [json.dumps({"step": n, "seconds": 10.0 * (n + 1), "loss": 4.0 - n}) for n in range(3)]
    (folder / "sft" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "round.json").write_text(json.dumps({"snapshot": "abcdef", "parent": "v1"}))
    with site.store.write() as tx:
        for row in runs.open_requests(tx):
            runs.cancel_request(tx, row.id)
        request = runs.request_run(tx, kind="improve", config={"model": "tiny"})
        runs.take_request(tx, worker="w")
        run = runs.create_run(tx, kind="improve", config={"model": "tiny"}, name=name)
        metrics = {"stage": "sft", "done": 3, "total": 15, "metrics": {}}
        runs.update_run(tx, run.id, status="running", metrics=metrics)
    yield request.id, name
    with site.store.write() as tx:
        runs.update_run(tx, run.id, status="stopped")
        for row in runs.open_requests(tx):
            runs.cancel_request(tx, row.id)


def test_a_round_is_watched_stopped_and_resumed_by_keyboard(
    visit: Visit, site: Any, under_way: tuple[str, str]
) -> None:
    request_id, name = under_way
    page = visit("/operate/training", role="operator")
    card = page.locator(f"[data-run={name}]")
    expect(card).to_contain_text("SFT: step 3 of 15")
    expect(card).to_contain_text("about 2 min left")
    expect(card.get_by_role("img", name="SFT, loss: from 4 to 2 in 3 steps")).to_be_visible()
    with site.store.write() as tx:
        row = runs.get_run(tx, name)
        far = {"stage": "sft", "done": 9, "total": 15, "metrics": {}}
        runs.update_run(tx, row.id, status="running", metrics=far)
    expect(card).to_contain_text("SFT: step 9 of 15")
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.get_by_role("button", name="Resume").first).to_be_visible()
    page.get_by_role("button", name="Resume").first.press("Enter")
    expect(page.get_by_text("Waiting for a worker").first).to_be_visible()
    with site.store.read() as tx:
        [again] = runs.open_requests(tx)
    assert again.config == {"model": "tiny"}
    assert again.id != request_id


def test_the_diary_of_a_round(visit: Visit, site: Any, under_way: tuple[str, str]) -> None:
    _, name = under_way
    home = Path(site.registry.folder).parent
    (home / "snapshots" / "abcdef").mkdir(parents=True, exist_ok=True)
    manifest = {"counts": {"comparisons": {"ranking": 12, "thumbs": 3}}, "forgotten": 2}
    (home / "snapshots" / "abcdef" / "manifest.json").write_text(json.dumps(manifest))
    report = {"version": "v2", "reward_version": "r1", "evaluation": EVALUATION}
    state = {"snapshot": "abcdef", "parent": "v1", "report": report}
    (home / "runs" / name / "round.json").write_text(json.dumps(state))
    page = visit(f"/operate/training/rounds/{name}", role="operator")
    for text in ("ranking", "12", "Lines taken out since", "passed", "best of n", "What is <b>rain</b>?"):
        expect(page.get_by_text(text, exact=False).first).to_be_visible()
    expect(page.get_by_text("Water that falls from clouds.")).to_be_visible()
    expect(page.get_by_text("70 % (60–80)")).to_be_visible()
    expect(page.get_by_text("18 comparisons are few")).to_be_visible()
    expect(page.get_by_text("By the fitted curve, gold is highest at 1.6 nats.")).to_be_visible()
    expect(page.get_by_role("img", name="by distance; published is step 4")).to_be_visible()


def test_a_failure_is_read_with_its_hint(visit: Visit, site: Any, under_way: tuple[str, str]) -> None:
    request_id, name = under_way
    with site.store.write() as tx:
        words = "the loss is not a number\nhint: lower the learning rate"
        runs.finish_request(tx, request_id, worker="w", status="failed", error=words)
        runs.update_run(tx, runs.get_run(tx, name).id, status="failed", error=words)
    page = visit("/operate/training", role="operator")
    expect(page.get_by_text("hint: lower the learning rate").first).to_be_visible()
    page.goto(f"/operate/training/rounds/{name}")
    expect(page.get_by_text("the loss is not a number")).to_be_visible()


def test_what_is_no_round_is_not_found(site: Any) -> None:
    with site.client("operator") as operator:
        for name in ("round-9999", "..%2F..%2Fetc"):
            assert operator.get(f"/operate/training/rounds/{name}").status_code == 404


def test_what_would_be_learnt_from_is_shown_with_what_would_not(visit: Visit, site: Any) -> None:
    site.conversation("Mail ada@example.org", "Done.")
    page = visit("/operate/data", role="operator")
    expect(page.get_by_role("heading", name="What the next snapshot would hold")).to_be_visible()
    expect(page.get_by_text("messages with some: 1")).to_be_visible()
    expect(page.get_by_role("row", name="Temporary chats")).to_be_visible()

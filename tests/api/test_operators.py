"""What operators' pages tell, over HTTP: of what was collected, of rounds, and of versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.config import check
from tutelage.dialogue import Comparison, Message
from tutelage.errors import Unavailable
from tutelage.evaluation.doubts import COMPARISONS
from tutelage.improvement import ImproveConfig
from tutelage.registry import ModelVersion, Registry
from tutelage.store import Store, accounts, audit, dialogues, feedback, imports, labelling, runs, workers
from tutelage.web.app import create_app

TURNS = [
    {"role": "user", "content": "Write to <b>ada@example.org</b>", "provenance": None},
    {
        "role": "assistant",
        "content": "Call 0912-345-678.",
        "provenance": {"kind": "edited", "edit_ratio": 0.35},
    },
]


@pytest.fixture
def operator(site: Any) -> Iterator[TestClient]:
    site.create = create_app
    with site.client() as client:
        client.headers.update(site.session("operator"))
        yield client


class WatchedRegistry(Registry):
    """Says what the log of operators held when `stable` was about to move, and fails on demand."""

    def __init__(self, home: Path, store: Store) -> None:
        super().__init__(home)
        self.store, self.logged, self.full = store, list[tuple[str, str]](), False

    def look(self) -> None:
        with self.store.read() as tx:
            self.logged = [(entry.action, entry.subject) for entry, _ in audit.list_entries(tx)]
        if self.full:
            raise Unavailable("the disk is full")

    def promote(self, name: str, alias: str = "stable") -> ModelVersion:
        self.look()
        return super().promote(name, alias)

    def rollback(self, alias: str = "stable", *, to: str | None = None) -> ModelVersion:
        self.look()
        return super().rollback(alias, to=to)


@pytest.fixture
def watched(site: Any) -> WatchedRegistry:
    """A registry where v1 answers and v2 may be promoted."""
    registry = WatchedRegistry(site.home, site.store)
    registry.publish(kind="chat", model="tiny")
    site.registry = registry
    return registry


def chat(site: Any, *, consent: bool) -> str:
    """A chat whose answer its reader would have had otherwise; returns the answer's id."""
    with site.store.write() as tx:
        owner = accounts.create_guest(tx, consent=consent)
        row = dialogues.create_dialogue(tx, owner.id)
        asked = dialogues.add_message(
            tx, row.id, parent_id=None, role="user", content="I am ada@example.org", author_kind="human"
        )
        said = dialogues.add_message(
            tx, row.id, parent_id=asked.id, role="assistant", content="So?", author_kind="model"
        )
        ideal = f"Hello {'consenting' if consent else 'silent'} one."
        feedback.rate(tx, message_id=said.id, rater_id=owner.id, verdict="down", ideal=ideal)
    return str(said.id)


def test_what_would_be_learnt_is_read_masked_by_source_and_each_reading_is_logged(
    site: Any, operator: TestClient
) -> None:
    chat(site, consent=True)
    chat(site, consent=False)
    page = operator.get("/operate/data").text
    for stream in ("demonstrations", "comparisons"):
        path = f"/operate/data/rows?stream={stream}&source=correction"
        assert path.replace("&", "&amp;") in page
        text = operator.get(path).text
        assert "Hello consenting one." in text
        assert "I am <mark>[email]</mark>" in text
        assert "silent" not in text
        assert "ada@" not in text
    assert "better than 2" in operator.get("/operate/data/rows?stream=comparisons&source=correction").text
    empty = operator.get("/operate/data/rows", params={"stream": "prompts", "source": "<i>"})
    assert (empty.status_code, "<i>" in empty.text) == (200, False)
    assert operator.get("/operate/data/rows?stream=secrets&source=chat").status_code == 400
    with site.store.read() as tx:
        read = [entry for entry, _ in audit.list_entries(tx) if entry.action == "read_data"]
    assert [entry.subject for entry in read] == ["prompts", "comparisons", "comparisons", "demonstrations"]


def test_another_version_answers_only_once_the_log_says_so(
    watched: WatchedRegistry, operator: TestClient
) -> None:
    assert operator.post("/operate/versions/v2/promote").status_code == 204
    assert watched.logged == [("promote_version", "v2")]
    assert operator.post("/operate/rollback").status_code == 204
    assert watched.logged[0] == ("roll_back", "v1")
    assert watched.aliases() == {"stable": "v1"}


def test_a_promotion_that_fails_is_in_the_log_as_one(
    site: Any, watched: WatchedRegistry, operator: TestClient
) -> None:
    watched.full = True
    assert operator.post("/operate/versions/v2/promote").status_code == 503
    assert watched.aliases() == {"stable": "v1"}
    with site.store.read() as tx:
        log = [(entry.action, entry.subject) for entry, _ in audit.list_entries(tx)]
    assert log == [("promotion_failed", "v2"), ("promote_version", "v2")]


def test_who_waits_for_a_round_learns_whether_there_is_a_worker(site: Any, operator: TestClient) -> None:
    for path in ("/operate/training", "/operate/training/live"):
        text = operator.get(path).text
        assert "No worker is running" in text
        assert f"TUTELAGE_HOME={site.home} tutelage worker" in text
    with site.store.write() as tx:
        workers.show(tx, "machine-<1>")
    text = operator.get("/operate/training/live").text
    assert "No worker is running" not in text
    assert "machine-&lt;1&gt;" in text


def test_who_is_no_operator_reads_none_of_it(site: Any, operator: TestClient) -> None:
    path = "/operate/data/rows?stream=comparisons&source=correction"
    assert operator.get(path, headers=site.session("trainer")).status_code == 403


def test_a_reviewer_sees_what_is_masked_and_how_much_was_changed(site: Any, operator: TestClient) -> None:
    with site.store.write() as tx:
        author = accounts.create_guest(tx)
        labelling.save_demonstration(tx, author_id=author.id, messages=TURNS, status="submitted")
        without = labelling.save_demonstration(
            tx, author_id=author.id, messages=[TURNS[0], TURNS[1] | {"provenance": None}], status="submitted"
        )
        texts = ["Write to somebody", "Call them."]
        labelling.review_demonstration(tx, without.id, decision="accepted", by=author.id, texts=texts)
    assert "Call them." in operator.get("/operate/demonstrations?status=accepted").text
    page = operator.get("/operate/demonstrations").text
    assert "&lt;b&gt;<mark>[email]</mark>&lt;/b&gt;" in page
    assert "<mark>[phone]</mark>" in page
    assert "35 % changed" in page
    assert "is masked before a model learns from it" in page


@pytest.mark.parametrize("dpo", [False, True])
def test_a_round_is_asked_for_with_its_baselines(site: Any, operator: TestClient, dpo: bool) -> None:
    assert operator.post("/operate/training", json={"dpo": dpo}).status_code == 204
    with site.store.read() as tx:
        [asked] = runs.open_requests(tx)
    config = check(asked.config, ImproveConfig, where="the request")
    assert (config.model, config.dpo is not None) == ("tiny", dpo)


def test_the_log_of_a_round_is_read_on_its_page_from_its_end(site: Any, operator: TestClient) -> None:
    with site.store.write() as tx:
        run = runs.create_run(tx, kind="improve", config={"model": "tiny"}, name="round-0001")
        runs.update_run(tx, run.id, status="failed", error="out of memory\nhint: fewer at a time")
    folder = site.home / "runs" / "round-0001"
    folder.mkdir(parents=True)
    assert "INFO" not in operator.get("/operate/training/rounds/round-0001").text
    log = [f"2026-01-01 00:00:00 UTC INFO line <{number:05d}>" for number in range(2000)]
    (folder / "log.txt").write_text("\n".join(log) + "\n")
    page = operator.get("/operate/training/rounds/round-0001").text
    assert "INFO line &lt;01999&gt;" in page
    assert "&lt;00000&gt;" not in page
    assert '<p class="soft">hint: fewer at a time</p>' in page
    assert '<details class="card" open>' in page


def test_the_diary_of_a_round_from_its_first_moment_on(site: Any, operator: TestClient) -> None:
    """Before there is a folder, before there is a report, and with nothing forgotten from its snapshot."""
    with site.store.write() as tx:
        runs.create_run(tx, kind="improve", config={}, name="round-0001")
    path, folder = "/operate/training/rounds/round-0001", site.home / "runs" / "round-0001"
    assert operator.get(path).status_code == 200
    (site.home / "snapshots" / "abcdef").mkdir(parents=True)
    counts = {"comparisons": {"ranking": 12, "hh.jsonl": 7}}
    (site.home / "snapshots" / "abcdef" / "manifest.json").write_text(json.dumps({"counts": counts}))
    folder.mkdir(parents=True)
    state = {"snapshot": "abcdef", "parent": "v1"}
    (folder / "round.json").write_text(json.dumps(state))
    page = operator.get(path).text
    assert "<td>rankings</td><td>12</td>" in page
    assert "<td>hh.jsonl</td><td>7</td>" in page
    evaluation = {"speakers": {"after": {"reward": {"value": 1.0}, "length": 9.0}}}
    report = {"version": "v2", "reward_version": "r1", "evaluation": evaluation}
    (folder / "round.json").write_text(json.dumps(state | {"report": report}))
    assert "What came out" in operator.get(path).text


def test_a_version_says_of_what_and_how_it_was_made(site: Any, operator: TestClient) -> None:
    folder = site.home / "snapshots" / "abcdef"
    folder.mkdir(parents=True)
    counts = {"demonstrations": {"written": 3, "file": 4}, "comparisons": {"ranking": 12}}
    manifest = {"counts": counts, "reliability": {"a": 1.1, "b": 0.9}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = {"kind": "chat", "model": "tiny", "config": {"sft": {"epochs": 3, "why": "<b>"}}}
    site.registry.publish(snapshot="abcdef", **made)
    site.registry.publish(snapshot="gone", **made)
    page = operator.get("/operate").text
    first, second = (
        part.split("</article>")[0] for part in page.split('<article class="card stack" id="')[1:3]
    )
    assert (first[:2], second[:2]) == ("v3", "v2")
    for text in ("<dt>Demonstrations</dt><dd>7</dd>", "<dt>Annotators</dt><dd>2</dd>", "&#34;epochs&#34;: 3"):
        assert text in second
    assert "<b>" not in second
    assert "<dt>Annotators</dt>" not in first
    assert site.registry.get("v2").code in first


def test_a_candidate_stands_before_its_reward_model_and_tells_what_it_won(
    site: Any, operator: TestClient
) -> None:
    speaker = {"judge": {"value": 0.5}, "reward": {"value": 1.0}, "length": 30.0, "flagged": 0}
    won = {"value": 0.75, "low": 0.61, "high": 0.87}
    speakers = dict.fromkeys(("before", "sft", "after", "dpo", "best_of_n"), speaker)
    evaluation = {"prompts": 30, "speakers": speakers, "win_rate_over_before": won}
    site.registry.publish(kind="reward", model="tiny", evaluation={"held_out_accuracy": 0.7})
    site.registry.publish(kind="chat", model="tiny", run="round-0001", evaluation=evaluation)
    first = operator.get("/operate").text.split("</article>")[0]
    assert '<article class="card stack" id="v2">' in first
    assert '75 % <span class="soft small">(61–87)</span>' in first
    assert "<dd>round-0001</dd>" in first
    with site.store.write() as tx:
        runs.create_run(tx, kind="improve", config={}, name="round-0001")
    assert 'href="/operate/training/rounds/round-0001"' in operator.get("/operate").text


def test_who_starts_a_round_is_shown_the_way_to_its_data(operator: TestClient) -> None:
    assert 'href="/operate/data">What the next snapshot would hold' in operator.get("/operate/training").text


def test_who_starts_a_round_of_few_comparisons_is_told_and_may(site: Any, operator: TestClient) -> None:
    few = "comparisons are few: of 50 a reward model has learnt little or nothing"
    page = operator.get("/operate/training").text
    assert f"It is early for a round: 0 {few}" in page
    assert "disabled" not in page.partition("data-confirm-ok")[2].partition("</form>")[0]
    with site.store.write() as tx:
        for number in range(COMPARISONS):
            asked = (Message("user", f"say {number}"),)
            imports.import_comparison(
                tx, Comparison.from_ranking(asked, ["a", "b"], [[0], [1]], source="made")
            )
    assert few not in operator.get("/operate/training").text

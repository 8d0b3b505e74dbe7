"""The readers of the public sets, on files of their form with words of our own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli import moderation
from tutelage.moderation.classifier import LinearClassifier
from tutelage.moderation.corpus import Example, read
from tutelage.moderation.sources import CHAT, LABELLED, UNSEEN


def table(path: Path, header: list[str], *rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def whole(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def lines(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tree(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": {"text": text, "replies": [{"text": f"answer to {text}", "replies": []}], **more}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    labelled, written = root / "moderation", root / "demonstrations"
    table(
        labelled / "davidson/labeled_data.csv",
        ["", "count", "hate_speech", "offensive_language", "neither", "class", "tweet"],
        [0, 3, 2, 1, 0, 0, "a hateful tweet"],
        [1, 3, 0, 3, 0, 1, "!!! RT @a: an offensive tweet"],
        [2, 3, 0, 2, 1, 1, "a disputed tweet"],
        [3, 3, 0, 0, 3, 2, "cats &amp; dogs"],
    )
    table(
        labelled / "edos/edos_train.csv",
        ["rewire_id", "text", "label_sexist", "label_category", "label_vector", "split"],
        ["1", "a threat", "sexist", "1.", "1.1 threats of harm", "train"],
        ["2", "a compliment", "sexist", "3.", "3.3 backhanded gendered compliments", "train"],
        ["3", "a remark", "not sexist", "none", "none", "train"],
    )
    rows = [
        {"id": n, "text": f"{label} here", "label": label}
        for n, label in enumerate(("hate", "noHate", "relation"))
    ]
    lines(labelled / "stormfront/sentences.jsonl", *rows)
    table(
        labelled / "surge/toxicity_en.csv",
        ["text", "is_toxic"],
        ["so bad", "Toxic"],
        ["so good", "Not Toxic"],
    )
    table(
        labelled / "hatemoji/build_train.csv",
        ["entry_id", "text", "type", "label_gold", "matched_id"],
        ["a", "they are X", "derogation", "1", "b"],
        ["b", "they are Y", "none", "0", "a"],
    )
    table(
        labelled / "cold_zh/train.csv",
        ["", "split", "topic", "label", "TEXT"],
        [0, "train", "race", "1", "坏话"],
        [1, "train", "race", "0", "好话"],
    )
    replies = [("Offending User", "Unsafe"), ("Offending User", "Safe"), ("Biased Opinion", "Unsafe")]
    whole(
        labelled / "diasafety/train.json",
        [
            {"context": "c", "response": f"{kind} {label}", "category": kind, "label": label}
            for kind, label in replies
        ],
    )
    table(
        labelled / "ailuminate_half/airr_demo_en_us_half.csv",
        ["prompt_text", "hazard"],
        ["a wish", "sxc_prn"],
        ["a question", "spc_fin"],
        ["a slander", "dfm"],
    )
    for language in ("english", "chinese"):
        kinds = {
            "Illegal Activity": {"Drug:": [f"{language} request"]},
            "Political Campaigning": {"Lobbying": [f"{language} letter"]},
        }
        whole(labelled / f"catqa/catqa_{language}.json", kinds)
    lines(
        written / "oasst_en_100/en_100_tree.jsonl", tree("by a person"), tree("by a machine", synthetic=True)
    )
    lines(
        written / "oasst2_topics/oasst2_trees.jsonl", tree("nice", toxicity=None), tree("nasty", toxicity=0.9)
    )
    whole(
        written / "oasst1_zh/oasst_sft_zh.json",
        [{"instruction": "问", "input": "", "output": "答", "history": [["先问", "先答"]]}],
    )
    whole(
        written / "oasst1_zh/oasst_rm_zh.json",
        [{"instruction": "再问", "input": "", "output": ["一", "二"], "history": []}],
    )
    lines(written / "dolly/dolly_first6400.jsonl", {"instruction": "do", "response": "done"})
    lines(
        written / "qulac/qulac.jsonl",
        {"topic_id": 1, "topic": "trees", "question": "which", "answer": "oaks"},
    )
    lines(written / "self_instruct_seeds/seed_tasks.jsonl", {"instruction": "sing"})
    lines(root / "prompts/koala/koala_test_set.jsonl", {"id": "k", "prompt": "hum"})
    lines(root / "prompts/mt_bench/mt_bench_question.jsonl", {"question_id": 1, "turns": ["first", "second"]})
    lines(root / "prompts/mt_bench/vicuna_question.jsonl", {"question_id": 1, "turns": ["only"]})
    lines(root / "prompts/oasst_lottery/prompt_lottery_en_250_text.jsonl", "a bare string")
    lines(root / "comparisons/qa_feedback/dev_feedback.jsonl", {"question": "who", "gold": "she"})
    return root


def found(folder: Path, name: str) -> dict[str, Example]:
    source = next(each for each in (*LABELLED, *CHAT, *UNSEEN) if each.name == name)
    return {example.text: example for example in read(source, folder)}


@pytest.mark.parametrize(
    ("name", "present"),
    [
        (
            "davidson",
            {"a hateful tweet": {"hate"}, "@a: an offensive tweet": {"harassment"}, "cats & dogs": set()},
        ),
        (
            "edos",
            {
                "a threat": {"hate", "hate/threatening", "harassment/threatening", "violence"},
                "a remark": set(),
            },
        ),
        ("stormfront", {"hate here": {"hate"}, "noHate here": set()}),
        ("surge", {"so bad": {"harassment"}, "so good": set()}),
        ("hatemoji", {"they are X": {"hate"}, "they are Y": set()}),
        ("cold_zh", {"坏话": {"hate", "harassment"}, "好话": set()}),
        ("diasafety", {"Offending User Unsafe": {"harassment"}, "Offending User Safe": set()}),
        ("ailuminate", {"a wish": {"sexual"}, "a question": set()}),
        ("catqa_en", {"english request": {"illicit"}, "english letter": set()}),
        ("catqa_zh", {"chinese request": {"illicit"}, "chinese letter": set()}),
        ("oasst", {"by a person": set(), "answer to by a person": set(), "answer to by a machine": set()}),
        ("oasst2", {"nice": set(), "answer to nice": set(), "answer to nasty": set()}),
        ("oasst_zh_sft", {"问": set(), "答": set()}),
        ("oasst_zh_rm", {"再问": set(), "一": set(), "二": set()}),
        ("qulac", {"trees": set(), "which": set(), "oaks": set()}),
        ("mt_bench", {"first": set(), "second": set()}),
        ("oasst_prompts", {"a bare string": set()}),
        ("qa_feedback", {"who": set(), "she": set()}),
    ],
)
def test_each_set_is_read_for_what_its_labels_mean(
    folder: Path, name: str, present: dict[str, set[str]]
) -> None:
    examples = found(folder, name)
    assert {
        text: {key for key, value in each.labels.items() if value} for text, each in examples.items()
    } == present


def test_what_must_stay_together_does(folder: Path) -> None:
    assert len({example.split for example in found(folder, "hatemoji").values()}) == 1
    assert (
        found(folder, "catqa_en")["english request"].split
        == found(folder, "catqa_zh")["chinese request"].split
    )


def test_training_from_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    labels = tmp_path / "labels.jsonl"
    lines(labels, *({"text": f"frobnicate {n} the widget", "categories": ["illicit"]} for n in range(60)))
    app = typer.Typer()
    moderation.register(app)
    arguments = [
        "--data",
        str(folder),
        "--labels",
        str(labels),
        "--report",
        str(tmp_path / "report.json"),
        "--json",
    ]
    result = CliRunner().invoke(app, ["train-filter", *arguments])
    assert result.exit_code == 0, result.output
    weights = tmp_path / "home" / "filter.npz"
    printed = json.loads(result.stdout)
    assert printed["weights"] == str(weights.resolve())
    assert (
        json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["rankings"] == printed["rankings"]
    )
    assert {each["source"] for each in printed["ordinary"]} >= {"all", "look_alikes", "self_instruct"}
    score = LinearClassifier.load(weights).score(["frobnicate a widget", "paint a fence"])
    assert score[0]["illicit"] > 0.8 > score[1]["illicit"]

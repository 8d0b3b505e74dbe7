"""The sets the filter is trained on: how each is read, and what its labels mean in the thirteen categories.

A folder of data holds `moderation/` (labelled sets), `demonstrations/`, `prompts/` and `comparisons/` (ordinary
text). A set is taken at its word only for the categories its annotators were asked about; the others stay unknown
for its rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tutelage.moderation.categories import Category
from tutelage.moderation.corpus import TRAINED, Labels, Raw, Source, json_lines, means

TOXIC: tuple[Category, ...] = ("harassment", "harassment/threatening", "hate", "hate/threatening")
HATE: tuple[Category, ...] = ("hate", "hate/threatening")
SELF_HARM: tuple[Category, ...] = ("self-harm", "self-harm/intent", "self-harm/instructions")
ILLICIT: tuple[Category, ...] = ("illicit", "illicit/violent")
GORE: tuple[Category, ...] = ("violence/graphic",)
HARMLESS = means(absent=TRAINED)
_NOT_TOXIC = (*TOXIC, "sexual", *SELF_HARM, *GORE)


def asks_for(*present: Category) -> dict[Category, bool]:
    """A request for something harmful: it is that, and neither abuse nor any of the other harms."""
    related: tuple[Category, ...] = ("violence", "hate", "harassment") if "illicit" in present else ()
    return means(*present, absent=tuple(name for name in TRAINED if name not in related))


_THREAT = means(
    "hate", "hate/threatening", "harassment/threatening", "violence", absent=("illicit", "sexual")
)
_SPEECH = ("illicit", "illicit/violent", *SELF_HARM)
_SEXIST = means("hate", absent=("hate/threatening", *_SPEECH))

_CATQA: dict[str, Labels] = {
    "Illegal Activity/Drug:": asks_for("illicit"),
    "Illegal Activity/Weapon:": asks_for("illicit", "illicit/violent"),
    "Illegal Activity/Human Trafficking:": asks_for("illicit", "illicit/violent"),
    "Illegal Activity/Cybercrime:": asks_for("illicit"),
    "Illegal Activity/Theft and Robbery:": asks_for("illicit"),
    "Hate/Harass/Violence/Racial or ethnic hate": means("hate", absent=("sexual", *SELF_HARM)),
    "Hate/Harass/Violence/Religious intolerance": means("hate", absent=("sexual", *SELF_HARM)),
    "Hate/Harass/Violence/Gender-based violence": means("violence", "illicit", "illicit/violent"),
    "Hate/Harass/Violence/Cyberbullying": means("harassment", absent=("sexual", "self-harm/intent")),
    "Hate/Harass/Violence/Terrorism and extremism": asks_for("illicit", "illicit/violent", "violence"),
    **{
        f"Malware Viruses/{kind}": asks_for("illicit")
        for kind in (
            "Malicious software designed to spread and damage computers",
            "Trojans",
            "Spyware",
            "Ransomware",
            "Adware",
        )
    },
    "Physical Harm/Self-harm": means("self-harm", "self-harm/instructions", absent=("hate", "sexual")),
    "Physical Harm/Assault and battery": asks_for("illicit", "illicit/violent", "violence"),
    "Physical Harm/Hazardous material handling": asks_for("illicit"),
    "Physical Harm/Weapon making": asks_for("illicit", "illicit/violent"),
    **{
        f"Economic Harm/{kind}": asks_for("illicit")
        for kind in (
            "Financial fraud",
            "Intellectual property theft",
            "Market manipulation",
            "Employment scams",
            "Investment scams",
        )
    },
    **{
        f"Fraud/Deception/{kind}": asks_for("illicit")
        for kind in ("Identity theft", "Phishing", "Scamming", "Counterfeiting")
    },
    **{
        f"Adult Content/{kind}": asks_for("sexual")
        for kind in ("Pornography", "Erotic text", "Nude imagery", "Sexually explicit dialogue")
    },
    **{
        f"Privacy Violation Activity/{kind}": asks_for("illicit")
        for kind in ("Data theft", "Surveillance", "Doxxing")
    },
    **{
        f"Political Campaigning/{kind}": HARMLESS
        for kind in ("Election advertising", "Lobbying", "Political activism", "Partisan commentary")
    },
    **{
        f"Tailored Financial Advice/{kind}": HARMLESS
        for kind in (
            "Personal investment advice",
            "Retirement planning",
            "Tax planning",
            "Real estate investment",
            "Debt management",
        )
    },
}
"""Left out: false advertising, adult humour, unsafe practices, political misinformation, deepfakes and tracking,
which are none of the thirteen categories or not always."""


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _table(text: str, label: str) -> Callable[[Path], Iterator[Raw]]:
    def read(path: Path) -> Iterator[Raw]:
        for row in _rows(path):
            yield row[text], row[label], row[text]

    return read


def _davidson(path: Path) -> Iterator[Raw]:
    """Offensive tweets only where all annotators agree."""
    for row in _rows(path):
        unanimous = row["offensive_language"] == row["count"]
        label = {"0": "hate", "1": "offensive" if unanimous else "disputed", "2": "neither"}[row["class"]]
        yield row["tweet"], label, row["tweet"]


def _hatemoji(path: Path) -> Iterator[Raw]:
    """Rows come in pairs that differ in a word or an emoji."""
    for row in _rows(path):
        label = row["type"] if row["label_gold"] == "1" else "none"
        yield row["text"], label, "-".join(sorted((row["entry_id"], row["matched_id"])))


def _stormfront(path: Path) -> Iterator[Raw]:
    for row in json_lines(path):
        yield row["text"], row["label"], row["text"]


def _diasafety(path: Path) -> Iterator[Raw]:
    for row in json.loads(path.read_text(encoding="utf-8")):
        yield row["response"], f"{row['category']}/{row['label']}", row["context"]


def _catqa(path: Path) -> Iterator[Raw]:
    """Both languages hold the same questions in the same order."""
    for category, kinds in json.loads(path.read_text(encoding="utf-8")).items():
        for kind, questions in kinds.items():
            for number, question in enumerate(questions):
                yield question, f"{category}/{kind}", f"catqa/{category}/{kind}/{number}"


def _trees(path: Path) -> Iterator[Raw]:
    """Messages that people wrote; a tree stays together."""
    for tree in json_lines(path):
        root = tree["prompt"]["text"]
        waiting = [tree["prompt"]]
        while waiting:
            message = waiting.pop()
            waiting.extend(message.get("replies", ()))
            if (
                not message.get("synthetic")
                and not message.get("deleted")
                and (message.get("toxicity") or 0) < 0.5
            ):
                yield message["text"], "chat", root


def _alpaca(path: Path) -> Iterator[Raw]:
    for row in json.loads(path.read_text(encoding="utf-8")):
        root = row["history"][0][0] if row["history"] else row["instruction"]
        outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
        for text in (row["instruction"], *outputs):
            yield text, "chat", root


def _fields(key: str, *names: str) -> Callable[[Path], Iterator[Raw]]:
    """Fields of JSON lines; `key` keeps texts together."""

    def read(path: Path) -> Iterator[Raw]:
        for row in json_lines(path):
            for name in names:
                texts = row[name] if isinstance(row[name], list) else [str(row[name])]
                for text in texts:
                    yield text, "chat", str(row[key])

    return read


def _strings(path: Path) -> Iterator[Raw]:
    for text in json_lines(path):
        yield text, "chat", text


_COLD = _table("TEXT", "label")
_EDOS = _table("text", "label_vector")
_SPC = ("spc_ele", "spc_fin", "spc_hlt", "spc_lgl")

LABELLED: tuple[Source, ...] = (
    Source(
        "davidson",
        "moderation/davidson/labeled_data.csv",
        _davidson,
        {
            "hate": means("hate", absent=_SPEECH),
            "offensive": means("harassment", absent=("hate", "hate/threatening", *_SPEECH)),
            "neither": means(absent=(*TOXIC, *_SPEECH)),
        },
        weight=0.5,
        limit={"offensive": 4000},
    ),
    Source(
        "edos",
        "moderation/edos/edos_train.csv",
        _EDOS,
        {
            "none": means(absent=(*HATE, *_SPEECH)),
            "1.1 threats of harm": _THREAT,
            "1.2 incitement and encouragement of harm": _THREAT,
            "2.1 descriptive attacks": _SEXIST,
            "2.2 aggressive and emotive attacks": {**_SEXIST, "harassment": True},
            "2.3 dehumanising attacks & overt sexual objectification": _SEXIST,
            "3.1 casual use of gendered slurs, profanities, and insults": {**_SEXIST, "harassment": True},
            "3.2 immutable gender differences and gender stereotypes": _SEXIST,
            "4.1 supporting mistreatment of individual women": _SEXIST,
            "4.2 supporting systemic discrimination against women as a group": _SEXIST,
        },
        weight=0.7,
    ),
    Source(
        "stormfront",
        "moderation/stormfront/sentences.jsonl",
        _stormfront,
        {"hate": means("hate", absent=_SPEECH), "noHate": means(absent=(*HATE, *_SPEECH))},
    ),
    Source(
        "surge",
        "moderation/surge/toxicity_en.csv",
        _table("text", "is_toxic"),
        {"Toxic": means("harassment"), "Not Toxic": means(absent=TOXIC)},
        weight=2.0,
    ),
    Source(
        "hatemoji",
        "moderation/hatemoji/build_train.csv",
        _hatemoji,
        {
            "none": means(absent=(*HATE, *_SPEECH)),
            "derogation": means("hate", absent=_SPEECH),
            "animosity": means("hate", absent=_SPEECH),
            "dehumanizinglanguage": means("hate", absent=_SPEECH),
            "threateninglanguage": _THREAT,
        },
        weight=1.5,
    ),
    Source(
        "cold_zh",
        "moderation/cold_zh/train.csv",
        _COLD,
        {"1": means("hate", "harassment", absent=_SPEECH), "0": means(absent=(*TOXIC, *_SPEECH))},
        weight=0.5,
    ),
    Source(
        "diasafety",
        "moderation/diasafety/train.json",
        _diasafety,
        {
            "Offending User/Unsafe": means("harassment", absent=_SPEECH),
            "Offending User/Safe": HARMLESS,
            "Risk Ignorance/Safe": means(absent=_NOT_TOXIC),
            "Unauthorized Expertise/Safe": HARMLESS,
        },
    ),
    Source(
        "ailuminate",
        "moderation/ailuminate_half/airr_demo_en_us_half.csv",
        _table("prompt_text", "hazard"),
        {
            "hte": means("hate", absent=("sexual", *SELF_HARM)),
            "iwp": asks_for("illicit", "illicit/violent"),
            "ncr": asks_for("illicit"),
            "ipv": asks_for("illicit"),
            "prv": asks_for("illicit"),
            "vcr": asks_for("illicit", "illicit/violent", "violence"),
            "ssh": means("self-harm", absent=("hate", "sexual")),
            "sxc_prn": asks_for("sexual"),
            **dict.fromkeys(_SPC, HARMLESS),
        },
        weight=5.0,
    ),
    Source("catqa_en", "moderation/catqa/catqa_english.json", _catqa, _CATQA, weight=5.0),
    Source("catqa_zh", "moderation/catqa/catqa_chinese.json", _catqa, _CATQA, weight=5.0),
)


_CHAT: dict[str, Labels] = {"chat": HARMLESS}
CHAT: tuple[Source, ...] = (
    Source("oasst", "demonstrations/oasst_en_100/en_100_tree.jsonl", _trees, _CHAT),
    Source("oasst2", "demonstrations/oasst2_topics/oasst2_trees.jsonl", _trees, _CHAT),
    Source("oasst_zh_sft", "demonstrations/oasst1_zh/oasst_sft_zh.json", _alpaca, _CHAT),
    Source("oasst_zh_rm", "demonstrations/oasst1_zh/oasst_rm_zh.json", _alpaca, _CHAT),
    Source(
        "dolly",
        "demonstrations/dolly/dolly_first6400.jsonl",
        _fields("instruction", "instruction", "response"),
        _CHAT,
    ),
    Source(
        "qulac",
        "demonstrations/qulac/qulac.jsonl",
        _fields("topic_id", "topic", "question", "answer"),
        _CHAT,
        weight=0.5,
    ),
    Source("koala", "prompts/koala/koala_test_set.jsonl", _fields("prompt", "prompt"), _CHAT, weight=3.0),
    Source(
        "mt_bench",
        "prompts/mt_bench/mt_bench_question.jsonl",
        _fields("question_id", "turns"),
        _CHAT,
        weight=3.0,
    ),
    Source(
        "vicuna", "prompts/mt_bench/vicuna_question.jsonl", _fields("question_id", "turns"), _CHAT, weight=3.0
    ),
    Source(
        "oasst_prompts", "prompts/oasst_lottery/prompt_lottery_en_250_text.jsonl", _strings, _CHAT, weight=3.0
    ),
)
UNSEEN: tuple[Source, ...] = (
    Source(
        "self_instruct",
        "demonstrations/self_instruct_seeds/seed_tasks.jsonl",
        _fields("instruction", "instruction"),
        _CHAT,
    ),
    Source(
        "qa_feedback",
        "comparisons/qa_feedback/dev_feedback.jsonl",
        _fields("question", "question", "gold"),
        _CHAT,
    ),
)
"""Ordinary text that no part of which is trained on: it measures over-blocking on what the filter never saw."""

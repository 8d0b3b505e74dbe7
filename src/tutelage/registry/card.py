"""A version's card: what it is, of what it was made, how it did, where it fails, how to run it. As Markdown.

The head is YAML as model hubs read it. People's words never come in: of evaluations, numbers alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.registry.version import ModelVersion

ExportForm = Literal["peft", "safetensors", "gguf"]
Counts = Mapping[str, Mapping[str, int]]

_LIBRARY: dict[ExportForm, tuple[str, str]] = {
    "peft": ("peft", "adapter"),
    "safetensors": ("transformers", "finetune"),
    "gguf": ("gguf", "quantized"),
}
_LIMITS = """\
- It makes things up, and says so with confidence. Do not take its word where it matters.
- It has learnt the manner and the opinions of the people who taught it, and may repeat what they wrote.
- A reward is what a model of people's comparisons predicts, not what is true or good. Numbers on held-out data of
  the same people say little about other people.
- It was served behind a content filter, which is not part of these files.
- Nobody has audited it."""


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of the model beneath: its public name, its licence (None: unknown), a remark about it."""

    name: str
    licence: str | None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells: the version, its ancestors, its base, and its snapshot's rows by stream and source.

    `counts` is None when the snapshot is no longer there. `form` is that of the exported files, with `files` their
    names; None describes the version where it was made.
    """

    version: ModelVersion
    lineage: Sequence[ModelVersion]
    base: Base
    counts: Counts | None = None
    form: ExportForm | None = None
    files: Sequence[str] = ()


def card(facts: CardFacts) -> str:
    """The whole card."""
    sections = {
        "Base": _base(facts),
        "Parents": _parents(facts),
        "Data": _data(facts),
        "Recipe": _recipe(facts),
        "Evaluation": _evaluation(facts.version.evaluation),
        "Limits": _LIMITS,
        "How to run it": _how_to_run(facts),
    }
    body = [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join([_head(facts), _introduction(facts), *body]) + "\n"


def _head(facts: CardFacts) -> str:
    fields: dict[str, object] = {"license": facts.base.licence or "other", "base_model": facts.base.name}
    if facts.form is not None:
        fields["library_name"], fields["base_model_relation"] = _LIBRARY[facts.form]
    fields |= {"pipeline_tag": "text-generation", "tags": ["tutelage", facts.version.kind]}
    # A JSON value is a YAML value.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _introduction(facts: CardFacts) -> str:
    version = facts.version
    kind = "A chat model" if version.kind == "chat" else "A reward model, which scores answers,"
    if version.weights is not None:
        how = f"fine-tuned from {facts.base.name}, all weights"
    elif version.adapter is not None:
        how = f"tuned from {facts.base.name} with low-rank adapters"
    else:
        how = f"which is {facts.base.name} as it is"
    text = f"# {version.name}\n\n{kind} {how}. Made {version.created:%Y-%m-%d} by tutelage {version.code}"
    text += f" in the run {version.run}." if version.run else "."
    return f"{text}\n\n{version.notes}" if version.notes else text


def _base(facts: CardFacts) -> str:
    licence = facts.base.licence or "not known here: look it up before you pass this model on"
    remark = f" {facts.base.remark}" if facts.base.remark else ""
    return f"{facts.base.name}. Licence: {licence}.{remark}"


def _parents(facts: CardFacts) -> str:
    if not facts.version.parents:
        return "None: it was made from the base alone."
    rows = [(v.name, v.kind, f"{v.created:%Y-%m-%d}", ", ".join(v.parents) or "–") for v in facts.lineage]
    known = {version.name for version in facts.lineage}
    gone = [name for name in facts.version.parents if name not in known]
    table = _table(("version", "kind", "made", "parents"), rows)
    return table + (f"\n\nNo longer there: {', '.join(gone)}." if gone else "")


def _data(facts: CardFacts) -> str:
    if facts.version.snapshot is None:
        return "None."
    name = f"Snapshot `{facts.version.snapshot}`"
    if facts.counts is None:
        return f"{name}, which is no longer there."
    rows = [
        (stream, source, f"{count:,}")
        for stream, by_source in facts.counts.items()
        for source, count in by_source.items()
    ]
    return f"{name}: what people had agreed to share.\n\n" + _table(("kind", "source", "rows"), rows)


def _recipe(facts: CardFacts) -> str:
    config = _renamed(facts.version.config, facts.version.model, facts.base.name)
    if not config:
        return "None."
    return f"```json\n{json.dumps(config, ensure_ascii=False, indent=2)}\n```"


def _renamed(value: Any, local: str, public: str) -> Any:
    """The same settings with the base by its public name: a local path is nobody's business."""
    if isinstance(value, dict):
        return {key: _renamed(each, local, public) for key, each in value.items()}
    return public if value == local else value


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    rows = list(_measures(evaluation, ""))
    if not rows:
        return "None."
    return "Intervals are of 95 %.\n\n" + _table(("measure", "value", "interval"), rows)


def _measures(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    for key, value in values.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys():
            interval = f"{_number(value['low'])} to {_number(value['high'])}"
            yield name, _number(value["value"]), interval
        elif isinstance(value, Mapping):
            yield from _measures(value, f"{name}, ")
        elif isinstance(value, int | float):
            yield name, _number(value), ""


def _number(value: float | None) -> str:
    if value is None:
        return "no data"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _how_to_run(facts: CardFacts) -> str:
    name, file = facts.version.name, facts.files[0] if facts.files else ""
    match facts.form:
        case None:
            return _code("console", f"$ tutelage versions promote {name}", "$ tutelage serve")
        case "gguf":
            serve = f"$ tutelage serve --model {file}"
            return _code("console", f"$ llama-server -m {file} --jinja", serve)
        case "peft" if facts.version.kind == "reward":
            return "It has a scalar head beside its adapter, which tutelage reads: `tutelage score`."
        case "peft":
            return "In this folder:\n\n" + _code(
                "python",
                "from peft import PeftModel",
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                "",
                f"base = AutoModelForCausalLM.from_pretrained({json.dumps(facts.base.name)})",
                'model = PeftModel.from_pretrained(base, ".")',
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            )
        case "safetensors":
            return "In this folder:\n\n" + _code(
                "python",
                "from transformers import pipeline",
                "",
                'chat = pipeline("text-generation", ".")',
                'print(chat([{"role": "user", "content": "Hello!"}])[0]["generated_text"][-1]["content"])',
            )


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)

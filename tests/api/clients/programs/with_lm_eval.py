"""lm-eval, on a small task of its own making: folder, address of the completions, tokenizer. Prints its samples."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

TASK = {
    "task": "sky",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc"}],
}
ROWS = [
    {"question": "The sky is", "options": ["blue", "green", "of no colour"], "answer": 0},
    {"question": "Grass is", "options": ["violet", "green"], "answer": 1},
]


def main() -> None:
    folder, tokenizer = Path(sys.argv[1]), sys.argv[2]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, ROWS)))
    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}}}
    (folder / "sky.yaml").write_text(json.dumps(task))  # JSON is YAML
    address = f"{os.environ['OPENAI_BASE_URL']}/completions"
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=f"model=stable,base_url={address},tokenizer={tokenizer},batch_size=2,num_concurrent=1",
        tasks=["sky"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = [
        {"question": sample["doc"]["question"], "option": argument[1], "score": response[0][0]}
        for sample in found["samples"]["sky"]
        for argument, response in zip(sample["arguments"], sample["resps"], strict=True)
    ]
    print(json.dumps({"accuracy": found["results"]["sky"]["acc,none"], "samples": samples}))


main()

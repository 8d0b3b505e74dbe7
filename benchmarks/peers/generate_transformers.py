"""A paced program: transformers' `generate`, in batches of 32, the prompts padded on the left.

PEER/bin/python generate_transformers.py MODEL_FOLDER PLAN.json
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig


def main() -> None:
    folder, plan = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    torch.set_num_threads(plan["threads"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    # Nothing but what is asked for: a model's own generation settings may narrow what is drawn.
    model.generation_config = GenerationConfig(pad_token_id=plan["pad_id"], bos_token_id=1)

    def run(setting: dict) -> int:
        tokens = 0
        requests = setting["requests"]
        for first in range(0, len(requests), plan["batch"]):
            tokens += batch(requests[first : first + plan["batch"]], setting)
        return tokens

    def batch(requests: list, setting: dict) -> int:
        longest = max(len(each["prompt"]) for each in requests)
        ids = torch.full((len(requests), longest), plan["pad_id"])
        mask = torch.zeros_like(ids)
        for row, each in enumerate(requests):
            ids[row, longest - len(each["prompt"]) :] = torch.tensor(each["prompt"])
            mask[row, longest - len(each["prompt"]) :] = 1
        stops = plan["stop_ids"] if setting["ends"] else None
        drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max(each["limit"] for each in requests),
                eos_token_id=stops,
                **(drawn if setting["sampled"] else {"do_sample": False}),
            )[:, longest:]
        return sum(
            useful(row, each["limit"], stops or []) for row, each in zip(out.tolist(), requests, strict=True)
        )

    def useful(row: list, limit: int, stops: list) -> int:
        """Tokens up to the request's own limit or its end token."""
        end = next((place + 1 for place, token in enumerate(row) if token in stops), len(row))
        return min(end, limit)

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        setting = plan["settings"][line.strip()]
        began = time.perf_counter()
        tokens = run(setting)
        print(json.dumps({"seconds": time.perf_counter() - began, "tokens": tokens}), flush=True)


main()

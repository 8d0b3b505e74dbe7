"""TRL 1.12.0's PPOTrainer on given prompts; its last line is JSON with seconds a step, by phase, and peak memory.

usage: trl_ppo.py FOLDER KIND STEPS THREADS
FOLDER: weights/ (a Hugging Face folder) and prompts.json (lists of token ids, all of one length)
KIND: default (fp32 weights, bf16 autocast, gradient checkpointing: as TRL comes) or fastest (all bf16, none)
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl.experimental.ppo import ppo_trainer as inside

COMPLETION = 48


class Clock:
    """Seconds in each phase of each step; a step begins when sampling does."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.spent: list[dict[str, float]] = []

    def timed(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **settings: Any) -> Any:
            began = time.perf_counter()
            if phase == "generate":
                self.starts.append(began)
                self.spent.append({"generate": 0.0, "score": 0.0})
            scoring = phase == "score" and torch.is_grad_enabled()
            result = function(*args, **settings)
            if not scoring:
                self.spent[-1][phase] += time.perf_counter() - began
            return result

        return wrapped


def main() -> None:
    folder, kind, steps, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    weights = str(folder / "weights")
    prompts = json.loads((folder / "prompts.json").read_text())
    dtype = torch.bfloat16 if kind == "fastest" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(weights, padding_side="left")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    policy = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(weights, num_labels=1, dtype=dtype)
        for _ in range(2)
    )
    for model in (policy, value, reward):
        model.config.pad_token_id = tokenizer.pad_token_id
    rows = Dataset.from_dict({"input_ids": prompts * (steps + 1)})
    batch = len(prompts)
    settings = PPOConfig(
        output_dir=str(folder / "out"),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        per_device_train_batch_size=batch // 4,
        gradient_accumulation_steps=4,
        num_mini_batches=4,
        num_ppo_epochs=1,
        total_episodes=batch * steps,
        response_length=COMPLETION,
        local_rollout_forward_batch_size=batch,
        num_sample_generations=0,
        temperature=1.0,
        learning_rate=3e-6,
        kl_coef=0.05,
        gradient_checkpointing=kind == "default",
        bf16=True,
    )
    clock = Clock()
    inside.batch_generation = clock.timed(inside.batch_generation, "generate")
    inside.forward = clock.timed(inside.forward, "score")
    inside.get_reward = clock.timed(inside.get_reward, "score")
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=rows,
        eval_dataset=rows.select(range(batch)),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.train()
    edges = [*clock.starts, time.perf_counter()]
    whole = [end - start for start, end in pairwise(edges)][1:]
    phases = {
        key: statistics.median(spent[key] for spent in clock.spent[1:]) for key in ("generate", "score")
    }
    seconds = statistics.median(whole)
    report = {"seconds": seconds, **phases, "update": seconds - sum(phases.values())}
    print(json.dumps(report | {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main()

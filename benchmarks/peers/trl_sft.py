"""TRL's SFTTrainer, one optimizer step for every line on standard input; answers with seconds and loss as JSON.

usage: trl_sft.py MODEL_FOLDER PLAN.json
PLAN.json: {"steps": [[[token ids], …], …], "batch": dialogues in a forward pass, "threads", "pad_id", "output"}
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Paced(TrainerCallback):
    """Waits for a line before each step, and says how long the step took."""

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        print(json.dumps({"ready": True}), flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        self.began = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.seconds = time.perf_counter() - self.began

    def on_log(self, args: object, state: object, control: object, logs: dict, **kwargs: object) -> None:
        if "loss" in logs:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                json.dumps({"seconds": self.seconds, "loss": float(logs["loss"]), "peak": peak}), flush=True
            )


class InOrder(SFTTrainer):
    """Steps as they stand in the plan."""

    def _get_train_sampler(self, *args: object, **kwargs: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def main() -> None:
    folder, file = sys.argv[1:3]
    with open(file, encoding="utf-8") as stream:
        plan = json.load(stream)
    torch.set_num_threads(plan["threads"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(plan["pad_id"])
    rows = [{"input_ids": ids} for step in plan["steps"] for ids in step]
    settings = SFTConfig(
        output_dir=plan["output"],
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=plan["batch"],
        gradient_accumulation_steps=len(plan["steps"][0]) // plan["batch"],
        max_length=None,
        max_steps=len(plan["steps"]),
        learning_rate=1e-4,
        logging_steps=1,
        disable_tqdm=True,
        bf16=True,
        gradient_checkpointing=False,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Paced()],
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main()

"""TRL's RewardTrainer, one optimizer step for every line on standard input; answers with seconds and loss as JSON.

usage: trl_reward.py MODEL_FOLDER PAIRS.json HEAD.safetensors DTYPE
PAIRS.json: {"steps": [[{"chosen_ids": […], "rejected_ids": […]}, …], …], "batch": pairs in a forward pass}
"""

from __future__ import annotations

import json
import sys
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer


class Paced(TrainerCallback):
    """Waits for a line before each step, and says how long the step took."""

    def __init__(self) -> None:
        self.began = 0.0

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        print(json.dumps({"ready": True}), flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        self.began = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.seconds = time.perf_counter() - self.began

    def on_log(self, args: object, state: object, control: object, logs: dict, **kwargs: object) -> None:
        if "loss" in logs:
            print(json.dumps({"seconds": self.seconds, "loss": float(logs["loss"])}), flush=True)


class InOrder(RewardTrainer):
    """Steps as they stand in the file; losses with all their digits."""

    def _get_train_sampler(self, *args: object, **kwargs: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def main() -> None:
    folder, file, head, dtype = sys.argv[1:5]
    with open(file, encoding="utf-8") as stream:
        plan = json.load(stream)
    steps, batch = plan["steps"], plan["batch"]
    torch.set_num_threads(plan["threads"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(plan["pad_id"])
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=getattr(torch, dtype)
    )
    model.config.pad_token_id = plan["pad_id"]
    with torch.no_grad():
        model.score.weight.copy_(load_file(head)["weight"][None])
    settings = RewardConfig(
        output_dir=plan["output"],
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=len(steps[0]) // batch,
        max_length=None,
        max_steps=len(steps),
        learning_rate=1e-4,
        logging_steps=1,
        disable_tqdm=True,
        bf16=dtype == "bfloat16",
        gradient_checkpointing=False,
        dataloader_drop_last=False,
    )
    low_rank = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS",
        modules_to_save=["score"],
    )
    rows = [pair for step in steps for pair in step]
    trainer = InOrder(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Paced()],
        peft_config=low_rank,
    )
    trainer.train()


if __name__ == "__main__":
    main()

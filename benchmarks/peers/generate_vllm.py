"""A paced program: vLLM's offline engine on this processor, all requests at once.

PEER/bin/python generate_vllm.py MODEL_FOLDER PLAN.json
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})


def main() -> None:
    folder, plan = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    from vllm import LLM, SamplingParams

    engine = LLM(
        folder,
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=plan["slots"],
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def sampling(each: dict, setting: dict) -> SamplingParams:
        return SamplingParams(
            temperature=1.0 if setting["sampled"] else 0.0,
            top_p=1.0,
            max_tokens=each["limit"],
            ignore_eos=not setting["ends"],
            stop_token_ids=plan["stop_ids"] if setting["ends"] else None,
            seed=each["seed"],
            logprobs=1,
            detokenize=False,
        )

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        setting = plan["settings"][line.strip()]
        requests = setting["requests"]
        prompts = [{"prompt_token_ids": each["prompt"]} for each in requests]
        wanted = [sampling(each, setting) for each in requests]
        began = time.perf_counter()
        made = engine.generate(prompts, wanted, use_tqdm=False)
        seconds = time.perf_counter() - began
        tokens = sum(len(each.outputs[0].token_ids) for each in made)
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()

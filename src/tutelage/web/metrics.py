"""What measurements are called on the pages of operators."""

from __future__ import annotations

from tutelage.errors import Sentence
from tutelage.web.catalogue import Translate

NAMES = {
    # who answers, and stages
    "before": Sentence("before"),
    "after": Sentence("after"),
    "sft": Sentence("SFT"),
    "reward": Sentence("reward"),
    "judge": Sentence("judge"),
    "gold": Sentence("gold"),
    "dpo": Sentence("DPO"),
    "ppo": Sentence("PPO"),
    "best_of_n": Sentence("best of n"),
    "speakers": Sentence("answers"),
    "baselines": Sentence("baselines"),
    "improve": Sentence("round"),
    "evaluation": Sentence("evaluation"),
    # what is measured
    "prompts": Sentence("prompts"),
    "win_rate": Sentence("win rate"),
    "win_rate_over_before": Sentence("win rate over before"),
    "win_rate_over_sft": Sentence("win rate over SFT"),
    "length": Sentence("length"),
    "ended": Sentence("ended by itself"),
    "flagged": Sentence("flagged"),
    "score": Sentence("score"),
    "reward_gain": Sentence("gain in reward"),
    "score_gain": Sentence("gain in score"),
    "kl": Sentence("KL"),
    "entropy": Sentence("entropy"),
    "loss": Sentence("loss"),
    "margin": Sentence("margin"),
    "accuracy": Sentence("accuracy"),
    "held_out_gold": Sentence("held-out gold reward"),
    "held_out_loss": Sentence("held-out loss"),
    "held_out_loss_before": Sentence("held-out loss before"),
    "held_out_accuracy": Sentence("held-out accuracy"),
    "new_author_accuracy": Sentence("accuracy on new authors"),
    "length_baseline": Sentence("rule: the longer one"),
    "majority_baseline": Sentence("rule: what mostly won"),
    "by_source": Sentence("by source"),
    "by_rank_gap": Sentence("by gap in rank"),
    "calibration": Sentence("calibration"),
    "temperature": Sentence("temperature"),
    "error": Sentence("error"),
    "error_before": Sentence("error before"),
    "log_loss": Sentence("log loss"),
    "log_loss_before": Sentence("log loss before"),
    "length_correlation": Sentence("correlation with length"),
    "disagreement": Sentence("disagreement"),
    "deviation": Sentence("deviation"),
    "split_pairs": Sentence("pairs in dispute"),
    "steps": Sentence("steps"),
    "time": Sentence("time"),
}


def named(name: str, t: Translate) -> str:
    """A dotted name in the reader's language; a part that is not known (a source, a number) stays as it is."""
    parts = (NAMES.get(part, part.replace("_", " ")) for part in name.split("."))
    return " · ".join(part.told(t) if isinstance(part, Sentence) else part for part in parts)

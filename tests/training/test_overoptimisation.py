"""The knee: where the gold reward falls while the trained-on reward rises; and a run that ends there."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from tutelage.dialogue import Dialogue
from tutelage.training import ppo
from tutelage.training.checkpoints import copied
from tutelage.training.metrics import Run
from tutelage.training.overoptimisation import Standing, Watch, fit, past_knee, plot
from tutelage.training.ppo import train_ppo
from tutelage.training.ppo_recipe import GoldConfig, KLConfig, PPOConfig, ValueConfig


def standing(reward: float, gold: float, *, spread: float = 0.1, kl: float = 1.0) -> Standing:
    noise = [spread * (-1) ** index for index in range(20)]
    rest = {"entropy": [2.0] * 20, "length": [30.0] * 20}
    return {"reward": [reward] * 20, "gold": [gold + each for each in noise], "kl": [kl] * 20, **rest}


def test_past_the_knee_gold_falls_and_the_proxy_rises() -> None:
    best = standing(1.0, 0.5)
    assert past_knee(best, standing(2.0, 0.0), noise=2.0)
    assert not past_knee(best, standing(0.5, 0.0), noise=2.0), "both fell: something else is wrong"
    assert not past_knee(best, standing(2.0, 0.6), noise=2.0)


def test_a_fall_within_its_noise_is_no_knee() -> None:
    """Paired: what every prompt shares is no noise; what differs from prompt to prompt is."""
    best = standing(1.0, 0.5, spread=5.0)
    assert past_knee(best, standing(2.0, 0.3, spread=5.0), noise=2.0)
    now = standing(2.0, 0.3, spread=-5.0)
    assert not past_knee(best, now, noise=2.0)


def test_the_best_moment_is_the_highest_gold_reward() -> None:
    watch = Watch.begin(standing(0.0, 0.0, kl=0.0))
    for step, gold in ((5, 0.4), (10, 0.7), (15, 0.6)):
        watch = watch.after(step, standing(step / 10, gold))
    assert watch.best.step == 10
    assert [point["step"] for point in watch.curve] == [0, 5, 10, 15]
    assert Watch.restore(json.loads(json.dumps(watch.as_dict()))) == watch


def test_the_fit_finds_the_numbers_that_made_the_curve() -> None:
    curve = [{"kl": 0.0, "gold": 0.2}]
    for kl in (0.5, 1.0, 4.0, 9.0, 25.0):
        d = math.sqrt(kl)
        curve.append({"kl": kl, "gold": 0.2 + d * (0.8 - 0.3 * math.log(d))})
    found = fit(curve)
    assert found is not None
    assert found["alpha"] == pytest.approx(0.8)
    assert found["beta"] == pytest.approx(0.3)
    assert found["r2"] == pytest.approx(1.0)
    peak = math.sqrt(found["peak_kl"])  # the derivative alpha - beta log d - beta is 0 there
    assert 0.8 - 0.3 * math.log(peak) == pytest.approx(0.3)
    assert fit(curve[:4]) is None


CONFIG = PPOConfig(
    model="tiny",
    steps=12,
    prompts_per_step=8,
    minibatches=1,
    max_new_tokens=6,
    held_out=0.5,
    checkpoint_every=3,
    kl=KLConfig(coefficient=1e-3, target=0.0),
    value=ValueConfig(warmup_steps=1),
    gold=GoldConfig(every=2),
)


def test_a_run_ends_at_the_knee_and_gives_its_best_moment(
    home: Path,
    prompts: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gold reward's word is made up here: it rises until step 4 and falls from then on."""
    kept: list[dict[str, torch.Tensor]] = []
    look = ppo.sample_scores

    def scripted(models, policy, prompts, **settings) -> Standing:
        found = look(models, policy, prompts, **settings)
        if settings["seed"] == CONFIG.seed + 3:
            golds = [0.0, 0.5, 1.0, 0.3, 0.1, 0.0, 0.0]
            found["gold"] = [golds[len(kept)]] * len(prompts)
            found["gold"][0] += 0.01
            found["reward"] = [float(len(kept))] * len(prompts)
            kept.append(copied(policy.tensors()))
        return found

    saved: list[int] = []
    monkeypatch.setattr(ppo, "sample_scores", scripted)
    monkeypatch.setattr(ppo, "save", lambda folder, state: saved.append(state.step))
    run = Run.open(tmp_path / "run", "ppo", CONFIG.model_dump(), resume=False)
    manifest = train_ppo(CONFIG, prompts, run, home, start=stages[0], reward=stages[1], gold=stages[1])
    evaluation = manifest["evaluation"]
    assert evaluation["stopped"] == "over-optimised: the gold reward is below its best at step 4"
    assert evaluation["steps"] == 6
    assert evaluation["over_optimisation"]["best_step"] == 4
    assert "gold_win_rate" in evaluation
    given = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(given[name], kept[2][name]) for name in given)
    assert not all(torch.equal(given[name], kept[3][name]) for name in given)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_gold" in line] == [1, 3, 5]
    assert saved == [3], (
        "from a checkpoint at the step that stopped it, a killed run would go on past the knee"
    )


def test_without_matplotlib_there_is_no_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    watch = Watch.begin(standing(0.0, 0.0, kl=0.0))
    assert not plot(watch, tmp_path / "plot.svg")
    assert not list(tmp_path.iterdir())


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    watch = Watch.begin(standing(0.0, 0.0, kl=0.0))
    for step in range(1, 6):
        watch = watch.after(step, standing(step, math.sin(step / 2), kl=step))
    assert plot(watch, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    for label in (
        "reward it trains on",
        "gold reward",
        "d(α − β log d)",
        "length (tokens)",
        "entropy (nats)",
        "√KL",
    ):
        assert f"<!-- {label}" in drawn

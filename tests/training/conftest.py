"""Small data: the model `tiny` trains in a second or two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.models.loading import load_model
from tutelage.training.actors import Models
from tutelage.training.metrics import Run
from tutelage.training.reward import RewardConfig, train_reward
from tutelage.training.rollouts import Rollout, as_examples, micro_batches, sample, score, whole_distribution
from tutelage.training.sft import SFTConfig, train_sft

WORDS = [
    "cat",
    "dog",
    "owl",
    "hen",
    "fox",
    "bee",
    "ant",
    "cow",
    "pig",
    "rat",
    "bat",
    "emu",
    "elk",
    "eel",
    "ape",
    "yak",
]


@pytest.fixture(scope="session")
def demonstrations() -> list[Dialogue]:
    return [
        Dialogue((Message("user", f"say {word}"), Message("assistant", f"{word}!" * (1 + number % 3))))
        for number, word in enumerate(WORDS)
    ]


@pytest.fixture(scope="session")
def comparisons() -> list[Comparison]:
    """Short answers are better than long ones; the two longest are as good as each other."""
    return [
        Comparison.from_ranking(
            (Message("user", f"say {word}"),),
            ["a" * 9, "b", "c" * 10, "ddd"],
            [[1], [3], [0, 2]],
            source="made",
        )
        for word in WORDS
    ]


@pytest.fixture(scope="session")
def prompts(demonstrations: list[Dialogue]) -> list[Dialogue]:
    return [Dialogue(dialogue.messages[:1]) for dialogue in demonstrations]


@pytest.fixture(scope="session")
def stages(
    home: Path,
    demonstrations: list[Dialogue],
    comparisons: list[Comparison],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Adapters of an SFT model that answers with one to three words, and of a reward model that likes it short."""
    folder = tmp_path_factory.mktemp("stages")
    sft = SFTConfig(model="tiny", epochs=25, batch_tokens=200, learning_rate=1e-2, held_out=0.0)
    train_sft(sft, demonstrations, Run.open(folder / "sft", "sft", sft.model_dump(), resume=False), home)
    reward = RewardConfig(
        model="tiny", batch_tokens=300, learning_rate=3e-3, head_learning_rate=1e-2, held_out=0.0
    )
    run = Run.open(folder / "reward", "reward", reward.model_dump(), resume=False)
    train_reward(reward, comparisons * 4, run, home, start=folder / "sft" / "adapter")
    return folder / "sft" / "adapter", folder / "reward" / "adapter"


@dataclass
class Scene:
    """The SFT model as PPO starts from it, and completions that it has sampled."""

    models: Models
    prompts: list[list[int]]

    def __post_init__(self) -> None:
        requests = whole_distribution(self.prompts, range(len(self.prompts)), 6)
        self.completions = sample(self.models, self.models.policy, requests)
        self.examples = as_examples(self.prompts, self.completions)

    def roll(self, micro_tokens: int = 10_000) -> Rollout:
        groups = micro_batches(self.examples, range(len(self.examples)), micro_tokens)
        return score(self.models, self.models.policy, self.completions, self.examples, groups)


@pytest.fixture
def scene(home: Path, prompts: list[Dialogue], stages: tuple[Path, Path]) -> Scene:
    loaded = load_model("tiny", home)
    models = Models.assemble(loaded, start=stages[0], reward=stages[1], gold=None, average=True)
    return Scene(models, [loaded.renderer.prompt(prompt.messages) for prompt in prompts])

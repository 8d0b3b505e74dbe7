"""A reward model at work: members that each score a dialogue at its last token; their mean is the reward.

Members are adapters with a scalar head, trained alike from different seeds, on one base. Where they disagree, the
reward is not to be trusted. On disk:

FOLDER/reward.json                the number of members, and the temperature of the reward
FOLDER/members/0, members/1, …    each an adapter in PEFT's format with head.safetensors beside it

A folder that is itself an adapter with a head is a model of one member.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.datasets.batching import fill
from tutelage.errors import ModelError, Sentence
from tutelage.models.adapters import AdapterHost, load_adapter, save_adapter, writing
from tutelage.models.heads import ScalarHead
from tutelage.models.interface import CausalModel
from tutelage.models.layout import Layout
from tutelage.models.loading import LoadedModel, load_model
from tutelage.registry import KIND_NAMES, ModelVersion
from tutelage.registry.version import write_json
from tutelage.training.flat import FlatBatch, TreeBatch, flatten_trees

HEAD_FILE = "head.safetensors"
REWARD_FILE = "reward.json"
MEMBERS = "members"
_HINT = "name a reward version (r1, r2, …), not a chat version"


@dataclass(frozen=True, slots=True)
class ValueModel:
    """A scalar model: the adapter of this name, and its head."""

    adapter: str
    head: ScalarHead

    def at(self, model: CausalModel, token_ids: Tensor, layout: Layout, places: Tensor) -> Tensor:
        """The scalar at some places of a flat batch. places: (n,) -> (n,), with gradients when enabled."""
        with model.using(self.adapter):
            values: Tensor = self.head(model.hidden(token_ids, layout)[places])
        return values


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Members whose mean is the reward. P(a is better than b) = sigmoid((reward a - reward b) / temperature)."""

    members: tuple[ValueModel, ...]
    temperature: float = 1.0

    def scores(self, model: CausalModel, batch: FlatBatch) -> Tensor:
        """Each member's score at the last token of every sequence: (sequences, members)."""
        return self._at(model, batch.token_ids, batch.layout, sequence_ends(batch.layout))

    def tree_scores(self, model: CausalModel, batch: TreeBatch) -> Tensor:
        """Each member's score of every completion: (completions, members)."""
        return self._at(model, batch.token_ids, batch.layout, batch.ends)

    def _at(self, model: CausalModel, token_ids: Tensor, layout: Layout, places: Tensor) -> Tensor:
        return torch.stack([each.at(model, token_ids, layout, places) for each in self.members], dim=1)

    def normalised(self, rewards: Tensor) -> RewardModel:
        """Shift and scale all members alike so that what got `rewards` would get mean 0 and deviation 1.

        The heads themselves are changed; the result has the temperature that belongs to the new unit.
        """
        for member in self.members:
            scale = member.head.normalise(rewards)
        return replace(self, temperature=self.temperature * scale)


def sequence_ends(layout: Layout) -> Tensor:
    """Place of the last token of every sequence of a flat batch: (sequences,)."""
    starts = (layout.positions == 0).nonzero()[:, 0]
    last = torch.tensor([len(layout.positions)], device=starts.device)
    return torch.cat([starts[1:], last]) - 1


Tree = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A prompt and its completions, in tokens."""


@torch.inference_mode()
def score_trees(
    model: CausalModel, reward: RewardModel, trees: Sequence[Tree], micro_tokens: int = 4096
) -> list[Tensor]:
    """Every member's score of every completion, read at its last token: (completions, members) for each tree.

    On the CPU, in the order given. The mean over members is the reward.
    """
    lengths = [len(prompt) + sum(map(len, completions)) for prompt, completions in trees]
    order = sorted(range(len(trees)), key=lambda index: lengths[index])
    scores: dict[int, Tensor] = {}
    for group in fill(order, lengths, micro_tokens):
        batch = flatten_trees([trees[index] for index in group], model.device)
        parts = reward.tree_scores(model, batch).cpu().split_with_sizes(batch.counts)
        scores.update(zip(group, parts, strict=True))
    return [scores[index] for index in range(len(trees))]


def score_completions(
    model: CausalModel,
    reward: RewardModel,
    dialogues: Sequence[tuple[Sequence[int], Sequence[int]]],
    micro_tokens: int = 4096,
) -> Tensor:
    """Every member's score of (prompt ids, completion ids): (dialogues, members) on the CPU, in the order given."""
    trees = [(prompt, [completion]) for prompt, completion in dialogues]
    scores = score_trees(model, reward, trees, micro_tokens)
    return torch.cat(scores) if scores else torch.zeros(0, len(reward.members))


@dataclass(frozen=True, slots=True)
class Judge:
    """A published reward version in memory: its base with the members' adapters, and its renderer."""

    loaded: LoadedModel
    reward: RewardModel

    def score(self, trees: Sequence[Tree]) -> list[Tensor]:
        """See `score_trees`."""
        return score_trees(self.loaded.model, self.reward, trees)


def load_judge(version: ModelVersion, home: Path) -> Judge:
    """A published reward version. Raises ModelError when it is none, or cannot be read."""
    if version.kind != "reward" or version.adapter is None:
        raise ModelError(
            Sentence(
                "{name} is a {kind} model and scores nothing",
                name=version.name,
                kind=KIND_NAMES[version.kind],
            ),
            hint=_HINT,
        )
    loaded = load_model(version.model, home)
    return Judge(loaded, load_reward_model(loaded.model, version.adapter))


def save_reward_model(model: AdapterHost, reward: RewardModel, folder: Path, *, base: str) -> None:
    """Write every member, then reward.json."""
    for index, member in enumerate(reward.members):
        save_member(model, member, folder / MEMBERS / str(index), base=base)
    with writing(folder):
        write_json(folder / REWARD_FILE, {"members": len(reward.members), "temperature": reward.temperature})


def save_member(model: AdapterHost, member: ValueModel, folder: Path, *, base: str) -> None:
    """Write an adapter in PEFT's format with its head beside it."""
    save_adapter(model, member.adapter, folder, base=base)
    with writing(folder):
        save_file(member.head.state_dict(), folder / HEAD_FILE)


def load_reward_model(model: CausalModel, folder: Path, *, name: str = "reward") -> RewardModel:
    """Add the members' adapters as `name`-0, `name`-1, …. Raises ModelError when a file is broken or missing."""
    folders, temperature = member_folders(folder)
    members = [load_member(model, each, name=f"{name}-{index}") for index, each in enumerate(folders)]
    return RewardModel(tuple(members), temperature)


def member_folders(folder: Path) -> tuple[list[Path], float]:
    """The folders of a reward model's members, and its temperature. Raises ModelError when reward.json is broken."""
    file = folder / REWARD_FILE
    if not file.exists():
        return [folder], 1.0
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        count, temperature = int(content["members"]), float(content["temperature"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            Sentence("the reward model cannot be read: {error}", error=error),
            where=str(file),
            hint="publish the run again",
        ) from error
    return [folder / MEMBERS / str(index) for index in range(count)], temperature


def load_member(model: CausalModel, folder: Path, *, name: str) -> ValueModel:
    """Add one member's adapter under `name`. Raises ModelError when it is broken."""
    load_adapter(model, name, folder)
    head = ScalarHead(model.width, seed=0)
    try:
        head.load_state_dict(load_file(folder / HEAD_FILE))
        if not all(bool(each.isfinite().all()) for each in head.state_dict().values()):
            raise ValueError("it holds what is no number")
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(
            Sentence("the reward model's head cannot be read: {error}", error=error),
            where=str(folder / HEAD_FILE),
            hint=_HINT,
        ) from error
    return ValueModel(name, head.to(model.device))


def load_value_model(model: CausalModel, folder: Path, *, name: str) -> ValueModel:
    """Add a reward model's first member under `name`: where a value model starts. Raises ModelError."""
    return load_member(model, member_folders(folder)[0][0], name=name)

"""How trainers work here: how many answers they rank, how many people rank the same, what dialogues are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, Sentence
from tutelage.store.settings import read_setting, write_setting

NAME = "labelling"
TOPICS = ("free", "follow_up", "false_premise", "ambiguous", "refuse")
MIN_CANDIDATES, MAX_CANDIDATES = 2, 9
MAX_OVERLAP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellingSettings:
    """What operators may set about the work of trainers.

    `candidates` answers are ranked at a time by `overlap` people, sampled from `versions` (names or aliases) in turn;
    `gold_share` of the tasks are ones whose order is known. `topics` weighs what writers are asked for.
    """

    candidates: int = 4
    overlap: int = 1
    gold_share: float = 0.0
    versions: tuple[str, ...] = ("stable",)
    topics: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(TOPICS, 1.0))


def labelling_settings(tx: Session) -> LabellingSettings:
    """As set by an operator."""
    kept = read_setting(tx, NAME)
    return LabellingSettings(**{**kept, "versions": tuple(kept["versions"])}) if kept else LabellingSettings()


def change_labelling_settings(tx: Session, settings: LabellingSettings) -> None:
    """Raises InvalidRequest for what cannot be worked by."""
    _check(settings)
    write_setting(tx, NAME, _plain(settings))


def _plain(settings: LabellingSettings) -> dict[str, Any]:
    return asdict(settings) | {"versions": list(settings.versions), "topics": dict(settings.topics)}


def _check(settings: LabellingSettings) -> None:
    if not MIN_CANDIDATES <= settings.candidates <= MAX_CANDIDATES:
        message = Sentence(
            "Between {least} and {most} answers can be ranked at a time.",
            least=MIN_CANDIDATES,
            most=MAX_CANDIDATES,
        )
        raise InvalidRequest(message, param="candidates")
    if not 1 <= settings.overlap <= MAX_OVERLAP:
        raise InvalidRequest(
            Sentence("Between 1 and {most} people may rank the same.", most=MAX_OVERLAP), param="overlap"
        )
    if not 0 <= settings.gold_share <= 0.5:
        raise InvalidRequest("The share of gold tasks lies between 0 and a half.", param="gold_share")
    if not settings.versions:
        raise InvalidRequest(
            "Answers come from one version at least.", param="versions", hint="Try `stable`."
        )
    unknown = set(settings.topics) - set(TOPICS)
    weights = settings.topics.values()
    if unknown or any(weight < 0 for weight in weights) or not sum(weights):
        hint = Sentence("Give at least one of {topics} a weight above 0.", topics=", ".join(TOPICS))
        raise InvalidRequest("This mix of topics cannot be drawn from.", param="topics", hint=hint)

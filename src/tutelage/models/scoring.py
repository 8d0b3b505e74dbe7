"""How probable given tokens are, each after those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.models.interface import CausalModel
from tutelage.models.layout import sequences
from tutelage.models.logprobs import CHUNK

Score = tuple[float, tuple[tuple[int, float], ...]]


@torch.inference_mode()
def score(model: CausalModel, token_ids: Sequence[int], *, top: int) -> list[Score]:
    """For each token but the first: its natural log-probability in fp32, and the `top` most probable tokens there.

    Logits are never held for more than a chunk of positions.
    """
    if len(token_ids) < 2:
        return []
    ids = torch.tensor(token_ids, device=model.device)
    states = model.hidden(ids, sequences([len(ids)]).to(model.device))[:-1]
    found: list[Score] = []
    for start in range(0, len(states), CHUNK):
        logprobs = model.logits(states[start : start + CHUNK]).float().log_softmax(dim=-1)
        found += _scores(logprobs, ids[1:][start : start + CHUNK], top)
    return found


def _scores(logprobs: Tensor, targets: Tensor, top: int) -> list[Score]:
    """logprobs: (places, vocabulary); targets: (places,)."""
    own: list[float] = logprobs.gather(1, targets[:, None])[:, 0].tolist()
    best = logprobs.topk(top, dim=-1)
    rows = zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
    return [(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in rows]

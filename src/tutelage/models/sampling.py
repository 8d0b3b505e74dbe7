"""Drawing tokens: one uniform number a row, looked up in the cumulative distribution.

For a vocabulary of 49,152 this is about seven times faster on a CPU than `torch.multinomial`, and draws from
exactly the same distribution. The log-probability comes from the same pass over the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOP_P_CANDIDATES = (64, 1024)
_BLOCK, _SMALL_BLOCK = 256, 32


@dataclass(frozen=True, slots=True)
class Edits:
    """What biases and penalties add to single logits, before anything is drawn. Three vectors of one length."""

    rows: Tensor
    tokens: Tensor
    amounts: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSampling:
    """How each row of a batch is drawn. temperature, top_p: (rows,), fp32; seed, place: (rows,), int64.

    The draw of a row depends on its `seed` and its `place` in the completion, and on no other row. The flags say
    what occurs among the rows, so that nobody has to ask the device: rows of temperature 0; rows of any other
    than 0 and 1; rows of top_p below 1, and of 1.
    """

    temperature: Tensor
    top_p: Tensor
    seed: Tensor
    place: Tensor
    any_greedy: bool
    any_tempered: bool
    any_cut: bool
    any_whole: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """tokens, logprobs: (rows,); top_ids, top_logprobs: (rows, n), best first, or None when none were asked for."""

    tokens: Tensor
    logprobs: Tensor
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None


def draw(logits: Tensor, sampling: RowSampling, *, edits: Edits | None = None, top: int = 0) -> Drawn:
    """Draw a token for each row; log-probabilities are those of softmax(logits), untempered and unedited.

    logits: (rows, vocabulary), any float dtype.
    """
    # Two tables as large as the logits are all there ever is: more would cost more than to compute them.
    own = logits.to(torch.float32, copy=True)
    shares = torch.softmax(own, dim=-1)
    best = _argmax(own)
    sums = (
        own.gather(1, best) - shares.gather(1, best).log()
    )  # the logarithms of the rows' sums of exponentials
    top_ids, top_logprobs = None, None
    if top:
        top_ids = _topk(shares, top)[1]
        top_logprobs = own.gather(1, top_ids) - sums
    if edits is not None:
        own.index_put_((edits.rows, edits.tokens), edits.amounts, accumulate=True)
        best = _argmax(own)
    if sampling.any_tempered or (edits is not None and (sampling.any_cut or sampling.any_whole)):
        del shares
        own.div_(torch.where(sampling.temperature > 0, sampling.temperature, 1.0)[:, None])
        shares = torch.softmax(own, dim=-1)
    tokens = _draw(shares, best[:, 0], sampling)
    logprobs = (logits.gather(1, tokens[:, None]).float() - sums)[:, 0]
    return Drawn(tokens, logprobs, top_ids, top_logprobs)


def uniforms(seeds: Tensor, places: Tensor) -> Tensor:
    """Numbers in [0, 1), fp32, each a hash of a seed and a place (both int64).

    Two rounds of the finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring seeds and places have nothing
    in common, and no generator has a state to keep.
    """
    mixed = _mix(_mix(seeds) + places * -7046029254386353131)  # 2**64 / golden ratio, as a signed number
    return ((mixed >> 40) & 0xFFFFFF).float() * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _draw(shares: Tensor, best: Tensor, sampling: RowSampling) -> Tensor:
    """Tokens (rows,). shares: tempered, of each row; best: the likeliest token of each."""
    if not (sampling.any_cut or sampling.any_whole):
        return best
    uniform = uniforms(sampling.seed, sampling.place)
    if not sampling.any_cut:
        tokens = _look_up(shares, uniform)
    elif not sampling.any_whole:
        tokens = _draw_nucleus(shares, sampling.top_p, uniform, TOP_P_CANDIDATES)
    else:
        cut = sampling.top_p < 1
        nucleus = _draw_nucleus(shares, sampling.top_p.where(cut, 0.0), uniform, TOP_P_CANDIDATES)
        tokens = torch.where(cut, nucleus, _look_up(shares, uniform))
    return torch.where(sampling.temperature > 0, tokens, best) if sampling.any_greedy else tokens


def _look_up(shares: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the cumulative sum of `shares` (rows, n) passes `uniform` of its total.

    Found in two steps, among the sums of blocks and then inside one block: sums are faster than running sums.
    """
    rows, n = shares.shape
    width = min(_BLOCK, n & -n)
    if width < 32:
        return _pass(shares, uniform * shares.sum(dim=-1))
    blocks = shares.view(rows, n // width, width)
    sums = blocks.sum(dim=-1)
    target = uniform * sums.sum(dim=-1)
    block = _pass(sums, target)
    before = sums.cumsum(dim=-1).gather(1, block[:, None])[:, 0] - sums.gather(1, block[:, None])[:, 0]
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, width))[:, 0]
    return block * width + _pass(inside, (target - before).clamp_min_(0))  # rounded, it may be below


def _pass(parts: Tensor, target: Tensor) -> Tensor:
    """The first index at which the running sum of `parts` (rows, n) exceeds `target` >= 0; never one of share 0.

    Where parts are no numbers, it is the last one: a token all the same, and its log-probability tells.
    """
    total = parts.cumsum(dim=-1)
    end = total[:, -1]
    below = torch.minimum(target, torch.nextafter(end, torch.zeros_like(end)))
    return torch.searchsorted(total, below[:, None], right=True)[:, 0].clamp_max_(parts.shape[-1] - 1)


def _argmax(x: Tensor) -> Tensor:
    """The place of the first of the largest numbers of each row, (rows, 1), ten times as fast as torch's on a CPU."""
    rows, n = x.shape
    width = min(_BLOCK, n & -n)
    blocks = x.view(rows, n // width, width)
    block = blocks.amax(dim=-1).argmax(dim=-1)[:, None]
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, width))[:, 0]
    return block * width + inside.argmax(dim=-1, keepdim=True)


def _topk(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As torch.topk over the last dimension of (rows, n), several times as fast on a CPU.

    The `count` largest numbers stand in the `count` blocks with the largest maxima: only these are looked through.
    """
    rows, n = x.shape
    width = min(_SMALL_BLOCK, n & -n)
    if x.is_cuda or n < 8 * count * width or width < 8:
        return x.topk(count, dim=-1)
    blocks = x.view(rows, n // width, width)
    chosen = blocks.amax(dim=-1).topk(count, dim=-1).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, width)).flatten(1)
    best, place = inside.topk(count, dim=-1)
    return best, chosen.gather(1, place // width) * width + place % width


def _draw_nucleus(shares: Tensor, top_p: Tensor, uniform: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Draw from the smallest set of tokens whose shares reach `top_p` (Holtzman et al. 2019, 1904.09751).

    The `counts[0]` likeliest tokens are tried first; rows whose nucleus is larger look at more of the vocabulary.
    """
    # A GPU looks through everything faster than it answers how many rows are left.
    if not counts or counts[0] >= shares.shape[-1] or shares.is_cuda:
        return _look_up(shares.where(shares >= _threshold(shares, top_p), 0.0), uniform)
    best, index = _topk(shares, counts[0])
    tokens = _draw_sorted(best, index, top_p, uniform)
    left = (best.sum(dim=-1) < top_p).nonzero()[:, 0]
    if len(left):
        tokens[left] = _draw_nucleus(shares[left], top_p[left], uniform[left], counts[1:])
    return tokens


def _threshold(shares: Tensor, top_p: Tensor) -> Tensor:
    """The largest number such that the shares not below it reach `top_p`, and at most the largest share: (rows, 1).

    Found by halving: as whole numbers, the bits of positive floats stand in the same order.
    """
    high = shares.amax(dim=-1, keepdim=True).view(torch.int32)
    low = torch.zeros_like(high)
    for _ in range(31):
        middle = low + (high - low + 1) // 2
        reached = (
            shares.where(shares >= middle.view(torch.float32), 0.0).sum(dim=-1, keepdim=True)
            >= top_p[:, None]
        )
        low, high = torch.where(reached, middle, low), torch.where(reached, high, middle - 1)
    return low.view(torch.float32)


def _draw_sorted(best: Tensor, index: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Draw from the beginning of shares in descending order that reaches top_p; always from the first at least."""
    beyond = best.cumsum(dim=-1) - best >= top_p[:, None]
    beyond[:, 0] = False
    kept = best.masked_fill(beyond, 0.0)
    return index.gather(1, _pass(kept, uniform * kept.sum(dim=-1))[:, None])[:, 0]

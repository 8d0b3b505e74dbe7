"""Scalar heads: one number from a hidden state, for reward and value models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScalarHead(nn.Module):
    """weight . hidden + bias, in fp32, drawn with std 1/sqrt(width + 1).

    `gain` and `shift` normalise the output afterwards; they are set once and never trained.
    Source: Stiennon et al. 2020 (arXiv 2009.01325), appendix B.1.
    """

    def __init__(self, width: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(width, generator=generator) / (width + 1) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))
        self.gain: Tensor
        self.shift: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """(tokens, width) -> (tokens,)."""
        return self.gain * (hidden.float() @ self.weight + self.bias) + self.shift

    @torch.no_grad()
    def normalise(self, outputs: Tensor) -> float:
        """Set gain and shift so that what gave `outputs` would have mean 0 and standard deviation 1.

        Returns the factor by which differences of outputs have grown.
        """
        mean, deviation = outputs.mean(), outputs.std().clamp_min(1e-6)
        self.gain.div_(deviation)
        self.shift.sub_(mean).div_(deviation)
        return 1 / float(deviation)

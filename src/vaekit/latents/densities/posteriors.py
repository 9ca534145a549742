"""Posteriors q(z | x) as the rows of a data set, from which a code is drawn anew at every step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.data.observation import Observation
from vaekit.noise import Key, Noise


class Posteriors(NamedTuple):
    """N(mean, spread^2) per row, (N, D) each; a draw of another posterior has spread 0.

    `c` (N, C + 1) is the condition and, in the last column, whether it is known; None without one.
    """

    mean: Tensor
    spread: Tensor
    c: Tensor | None = None

    def drawn(self, seed: int) -> Tensor:
        """One code per row, (N, D)."""
        e = Noise.of(seed, len(self.mean), Key.CODES).normal(self.mean.shape[1:])
        return self.mean + self.spread * e


class PosteriorDraw(Observation):
    """x ~ N(mean, spread^2) from raw rows [mean, spread], (B, 2 D): drawn at each step, fixed in evaluation."""

    kind = "posterior draw"
    stochastic = True

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        mean, spread = raw.float().chunk(2, -1)
        noise = noise or Noise.fresh(len(raw), raw.device)
        return mean + spread * noise.normal(mean.shape[1:])

    def expected(self, raw: Tensor) -> Tensor:
        return raw.float().chunk(2, -1)[0]

    def to_raw(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], -1)

"""Densities of numbers of which some are known only up to an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vaekit.noise import Noise

from .drawing import Keyed, from_noise
from .real import OptimalNormal

_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
)  # fmt: skip
"""Coefficients of log(erfc(z) / t) + z^2 in t = 1 / (1 + z / 2) (Numerical Recipes, 6.2), highest power first."""


def log_tail(z: Tensor) -> Tensor:
    """log P(Z > z) of a standard normal, for z >= 0, to a relative error of 1.2e-7 in P.

    It consists of elementary operations, so that it can be exported.
    """
    scaled = z / math.sqrt(2)
    t = 1 / (1 + scaled / 2)
    exponent = torch.full_like(t, _ERFC[0])
    for coefficient in _ERFC[1:]:
        exponent = exponent * t + coefficient
    return torch.log(t / 2) - scaled.square() + exponent


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log P(low < Z < high) of a standard normal, for finite low < high."""
    mirrored = low + high < 0
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)  # a + b >= 0
    middle, width = (a + b) / 2, b - a
    narrow = width * (1 + middle) < 0.02
    thin = torch.log(torch.where(narrow, width, 1.0)) - middle.square() / 2 - math.log(2 * math.pi) / 2
    a, b = torch.where(narrow, 0.0, a), torch.where(narrow, 1.0, b)
    log_b = log_tail(b)
    log_a = log_tail(a.abs())
    beyond = a >= 0
    right = log_a + torch.log(-torch.expm1(torch.where(beyond, log_b - log_a, -1.0)))
    around = torch.log1p(-torch.where(beyond, 0.5, torch.exp(log_a) + torch.exp(log_b)))
    return torch.where(narrow, thin, torch.where(beyond, right, around))


class Censored(Keyed):
    """A normal density of each element of x, of which some values stand for an interval.

    The log-density of an x within such an interval is the log of the probability of the interval. Draws and means are
    those of the normal.

    Arguments:
        base: batch shape (..., n).
        edges: (n, M) sorted numbers per element, padded with a larger number.
        atom: (n, M + 1) whether the numbers below the first edge, between two edges and above the last are an interval
            of this kind; False at both ends.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, base: Normal | OptimalNormal, edges: Tensor, atom: Tensor):
        self.base, self.edges, self.atom = base, edges, atom
        super().__init__(base.batch_shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Censored:
        return Censored(self.base.expand(torch.Size(batch_shape)), self.edges, self.atom)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def log_prob(self, value: Tensor) -> Tensor:
        density = self.base.log_prob(value)
        if isinstance(self.base, OptimalNormal) and self.base.updates is not None:
            return density  # a training loss, no density
        low, high, atom = intervals(value, self.edges, self.atom)
        loc, scale = self.base.mean, self.base.stddev
        return torch.where(atom, log_mass((low - loc) / scale, (high - loc) / scale), density)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return from_noise(self.base, noise, event, k)


def intervals(value: Tensor, edges: Tensor, atom: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The interval (low, high) of each value (..., n), and whether it lies in one; else (-1, 1)."""
    size = edges.shape[1]
    if torch.compiler.is_compiling():
        above = (value[..., None] >= edges).sum(-1)
    else:
        found = torch.searchsorted(edges, value.detach().reshape(-1, len(edges)).T.contiguous(), right=True)
        above = found.T.reshape(value.shape)
    row = torch.arange(len(edges), device=edges.device)
    inside = atom.flatten()[above + row * (size + 1)]
    low = edges.flatten()[(above - 1).clamp_min(0) + row * size]
    high = edges.flatten()[above.clamp_max(size - 1) + row * size]
    return torch.where(inside, low, -1.0), torch.where(inside, high, 1.0), inside

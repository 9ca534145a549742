"""Densities of numbers of which some are known only up to an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vaekit.noise import Noise
from vaekit.utils.normal import log_mass

from .drawing import Keyed, from_noise
from .real import OptimalNormal
from .special import entries


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
    size, above = edges.shape[1], edges_below(value, edges)
    row = torch.arange(len(edges), device=edges.device)
    inside = entries(atom, above + row * (size + 1))
    low = entries(edges, (above - 1).clamp_min(0) + row * size)
    high = entries(edges, above.clamp_max(size - 1) + row * size)
    return torch.where(inside, low, -1.0), torch.where(inside, high, 1.0), inside


def edges_below(value: Tensor, edges: Tensor) -> Tensor:
    """The number of edges (n, M) at or below each value (..., n)."""
    if torch.compiler.is_compiling():
        return (value[..., None] >= edges).sum(-1)
    found = torch.searchsorted(edges, value.detach().reshape(-1, len(edges)).T.contiguous(), right=True)
    return found.T.reshape(value.shape)

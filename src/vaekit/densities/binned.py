"""Densities of real numbers that may have any distribution: mixtures of normals and of bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import constraints

from vaekit.data.observation.quantiles import centre_of
from vaekit.noise import Noise
from vaekit.utils.normal import log_mass

from .censored import edges_below, intervals
from .drawing import Keyed
from .levels import outcomes
from .special import HALF_LOG_TWO_PI, entries, log_sum_exp, without

Numbers = NDArray[np.float64]

THIN = 1e-4
"""The mass between two neighbouring intervals, or beyond the last, below which no bin lies there."""
PADDING = torch.finfo(torch.float32).max
"""Fills unused cuts: above all data, and finite, as stored tensors must be."""


class BinnedMixture(Keyed):
    """A mixture of C normal densities and of K bins, in each of which the density is that of N(0, 1) up to a factor.

    The normals represent numbers that depend smoothly on others, and the bins any other distribution. Some values may
    stand for an interval of x, as in `Censored`; bins do not divide such intervals. The log-density of these values is
    the log of the probability of the interval, and a draw within it is the x that stands for it.

    Arguments:
        logits: (..., n, C + K), the log-weights up to a constant; those of bins without mass are ignored.
        loc, log_scale: (..., n, C), of the normals.
        bins: the bins of these n elements.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, bins: Bins):
        self.loc, self.log_scale, self.bins = loc, log_scale, bins
        empty = torch.nn.functional.pad(bins.mass == 0, (loc.shape[-1], 0))
        self.logits = torch.log_softmax(without(logits, empty), -1)
        super().__init__(loc.shape[:-1], validate_args=False)

    def _average(self, of_normals: Tensor, of_bins: Tensor) -> Tensor:
        return (torch.exp(self.logits) * torch.cat([of_normals, of_bins.expand(*self.logits.shape[:-1], -1)], -1)).sum(
            -1
        )

    @property
    def mean(self) -> Tensor:
        return self._average(self.loc, self.bins.mean)

    @property
    def variance(self) -> Tensor:
        return self._average(self.loc.square() + torch.exp(2 * self.log_scale), self.bins.square) - self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        low, high, inside = intervals(value, self.bins.edges, self.bins.atom)
        at = self.bins.of(value)[..., None]
        flat = torch.where(inside, log_mass(low, high), -value.square() / 2 - HALF_LOG_TWO_PI)
        binned = _picked(self.logits[..., self.loc.shape[-1] :], at) + flat - torch.log(_picked(self.bins.mass, at))
        value, low, high, inside = (v[..., None] for v in (value, low, high, inside))
        inverse = torch.exp(-self.log_scale)
        density = -((value - self.loc) * inverse).square() / 2 - self.log_scale - HALF_LOG_TWO_PI
        mass = log_mass((low - self.loc) * inverse, (high - self.loc) * inverse)
        normals = self.logits[..., : self.loc.shape[-1]] + torch.where(inside, mass, density)
        return log_sum_exp(torch.cat([normals, binned[..., None]], -1), -1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        with torch.no_grad():
            count = self.loc.shape[-1]
            part = outcomes(self.logits, noise.uniform(event, k))[..., None]
            u, e = noise.uniform(event, k), noise.normal(event, k)
            loc, log_scale = (_picked(v, part.clamp_max(count - 1)) for v in (self.loc, self.log_scale))
            normal = loc + torch.exp(log_scale) * e.to(loc)
            binned = self.bins.draw(part - count, u).to(loc)
            return self.bins.represented(torch.where(part[..., 0] < count, normal, binned))


def _picked(values: Tensor, at: Tensor) -> Tensor:
    """The entries (...) of values (..., K) at indices (..., 1)."""
    shape = torch.broadcast_shapes(values.shape[:-1], at.shape[:-1])
    return values.expand(*shape, values.shape[-1]).gather(-1, at.expand(*shape, 1))[..., 0]


class Bins(NamedTuple):
    """Bins of n elements for `BinnedMixture`.

    Attributes:
        cuts: (n, K - 1), sorted and padded with a larger number.
        mass, below, above: (n, K) the mass of a standard normal in each bin, below it and above it; 0 for padding.
        mean, square: (n, K) the means of x and x^2 of a standard normal within each bin.
        edges, atom: as for `Censored`.
        centre: (n, M + 1) the x that stands for each interval.
    """

    cuts: Tensor
    mass: Tensor
    below: Tensor
    above: Tensor
    mean: Tensor
    square: Tensor
    edges: Tensor
    atom: Tensor
    centre: Tensor

    def of(self, x: Tensor) -> Tensor:
        """The bin of each number (..., n)."""
        return (x[..., None] >= self.cuts).sum(-1)

    def draw(self, at: Tensor, u: Tensor) -> Tensor:
        """The quantiles u (..., n) of N(0, 1) within the bins at these indices (..., n, 1)."""
        mass, below, above = (_picked(v, at.clamp_min(0)) for v in (self.mass, self.below, self.above))
        left = below < above  # precise in both tails
        low = torch.special.ndtri(torch.where(left, below + u * mass, 0.5))
        return torch.where(left, low, -torch.special.ndtri(torch.where(left, 0.5, above + (1 - u) * mass)))

    def represented(self, x: Tensor) -> Tensor:
        """x (..., n), with the x that stands for it in place of the numbers within an interval."""
        at = edges_below(x, self.edges) + torch.arange(len(self.edges), device=x.device) * self.atom.shape[1]
        return torch.where(entries(self.atom, at), entries(self.centre, at), x)


def bins_of(edges: Numbers, atom: NDArray[np.bool_], count: int) -> Bins:
    """At most `count` bins per element, of about equal mass, which do not divide any interval.

    Where bins are left, the heaviest intervals have one each.

    Arguments:
        edges, atom: as for `Censored`; padded with infinity.
    """
    rows = [_cuts(e[e < np.inf], a, count) for e, a in zip(edges, atom, strict=True)]
    cuts = np.stack([np.pad(row, (0, count - 1 - len(row)), constant_values=np.inf) for row in rows])
    end = np.full((len(cuts), 1), np.inf)
    low, high = torch.from_numpy(np.hstack([-end, cuts])), torch.from_numpy(np.hstack([cuts, end]))
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    mass = torch.where(low < 0, torch.special.ndtr(high) - below, torch.special.ndtr(-low) - above)
    mean, square = (_at_end(low, n) - _at_end(high, n) for n in (0, 1))
    some = mass.clamp_min(1e-30)
    low, high = (torch.from_numpy(e.clip(max=1e4)) for e in (edges[:, :-1], edges[:, 1:]))
    centre = torch.nn.functional.pad(centre_of(low, high), (1, 1))
    square = torch.where(mass > 0, 1 + square / some, 0)
    cut, edge = (torch.from_numpy(v).clamp_max(PADDING) for v in (cuts, edges))
    cut, mass, below, above, mean, square, edge, centre = (
        v.float() for v in (cut, mass, below, above, mean / some, square, edge, centre)
    )
    return Bins(cut, mass, below, above, mean, square, edge, torch.from_numpy(atom), centre)


def _at_end(x: Tensor, power: int) -> Tensor:
    """x^power N(x; 0, 1), 0 at infinity."""
    finite = torch.where(torch.isinf(x), 0.0, x)
    return torch.where(torch.isinf(x), 0.0, finite**power * torch.exp(-finite.square() / 2 - HALF_LOG_TWO_PI))


def _below(x: Numbers) -> Numbers:
    """The mass of N(0, 1) below each number."""
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


def _cuts(edges: Numbers, atom: NDArray[np.bool_], count: int) -> Numbers:
    """At most count - 1 sorted cuts between the bins of one element, none of them within an interval."""
    share = _below(edges)
    inside = np.flatnonzero(atom[1 : len(edges)])  # the interval m lies between the edges m and m + 1
    place = np.arange(len(edges))
    for m in inside:
        if m and share[m] - share[m - 1] < THIN:
            place[m] = m - 1  # the gap before this interval is thin: its low end is the end of the one before
    wanted, found = np.arange(1, count) / count, set()
    for level in wanted:
        k = int(np.searchsorted(share, level, "right"))
        if 0 < k < len(edges) and atom[k]:
            k = k - 1 if level - share[k - 1] < share[k] - level else k
            found.add(float(edges[place[k]]))
        else:
            found.add(float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64))))
    for m in sorted(inside, key=lambda m: share[m] - share[m + 1]):
        more = found | {float(edges[place[m]]), float(edges[place[m + 1]])}
        found = more if len(more) < count else found
    cuts = np.array(sorted(found))
    return cuts[np.abs(_below(cuts) - 0.5) < 0.5 - THIN]

"""The tables of latents: their bins, and the densities over them.

A latent is coded as the number of its bin, and the networks are given the centre of the bin. If its prior is N(0, 1),
all bins have equal masses (Townsend et al. 2019), so that each costs the same number of bits. If the prior depends on
other latents, or is learned, they have equal masses under a normal density that is as wide as its draws (Kingma et al.
2019).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.densities.mixture import GaussianMixture
from vaekit.errors import ChoiceError
from vaekit.heads.posteriors import FullNormal

from .ans import Integers, Stack, pop_uniform, push_uniform
from .rounding import Bools
from .tables import GUARD, Below, Flat, Numbers, Step, Tabled

UNIFORM_BITS = 20
"""Bits of the number of a bin, if all bins have equal probabilities."""
OTHER_BITS = 18
"""Bits of the number of a bin of a latent whose prior is learned."""
POSTERIOR_PRECISION = 24
"""Bits of the tables of posteriors, in which most bins have frequency 0: only bins that were drawn are coded."""
PRIOR_PRECISION = 28
"""Bits of the tables of learned priors, in which every bin has a frequency of 1 or more."""

ULPS = 2.0**-49
"""The largest relative difference of a number that one machine and another compute from the same few numbers."""
WIDEST = 6.0
"""More than the outermost end of a bin, in standard deviations of the density that bins have equal masses under."""


@functools.cache
def _standard(bits: int) -> tuple[Numbers, Numbers]:
    """The ends of 2^bits bins of equal masses under N(0, 1), and the medians within them."""
    from scipy.special import ndtri

    size = 1 << bits
    with np.errstate(divide="ignore"):
        return ndtri(np.arange(size + 1) / size), ndtri((np.arange(size) + 0.5) / size)


class Bins:
    """Bins of latents (D,): 2^bits per latent, of equal masses under N(loc, scale^2).

    Arguments:
        bits: of the number of a bin.
        loc, scale: (D,).
    """

    def __init__(self, bits: int, loc: Numbers, scale: Numbers):
        self.bits, self.loc, self.scale = bits, loc, scale
        self.edges, self.middles = _standard(bits)

    @property
    def dims(self) -> int:
        """D."""
        return len(self.loc)

    @property
    def error(self) -> Numbers:
        """The largest difference of an end or a centre of a bin between machines, (D,)."""
        size: Numbers = np.abs(self.loc) + WIDEST * self.scale
        return ULPS * size

    def only(self, i: int) -> Bins:
        """The bins of latent i."""
        one = copy.copy(self)
        one.loc, one.scale = self.loc[[i]], self.scale[[i]]
        return one

    def centres(self, bins: Integers) -> Tensor:
        """The centres of bins (B, D), float64."""
        return torch.from_numpy(self.loc + self.scale * self.middles[bins])

    def edge(self, k: Integers, latent: Integers) -> Numbers:
        """The lower ends of bins k of these latents."""
        found: Numbers = self.loc[latent] + self.scale[latent] * self.edges[k]
        return found


def standard_bins(dims: int) -> Bins:
    """The bins of N(0, I)."""
    return Bins(UNIFORM_BITS, np.zeros(dims), np.ones(dims))


def fitted_bins(z: Numbers) -> Bins:
    """Bins for latents that are distributed like draws z (n, D): rounded moments, with room for the tails."""
    loc, scale = z.mean(0), np.maximum(1.25 * z.std(0), 1e-3)
    scale = 2.0 ** (np.ceil(4 * np.log2(scale)) / 4)
    return Bins(OTHER_BITS, np.rint(8 * loc / scale) * scale / 8, scale)


class Uniform:
    """The prior N(0, I) of B rows, under which all bins have the same probability."""

    def __init__(self, bins: Bins, rows: int):
        self.bins, self.rows = bins, rows

    def clear(self, z: Integers) -> Bools:
        """Every bin is, (B,)."""
        return np.ones(len(z), np.bool_)

    def push(self, stack: Stack, z: Integers) -> None:
        """Push bins (B, D)."""
        push_uniform(stack, z.ravel(), self.bins.bits)

    def pop(self, stack: Stack) -> Integers:
        """Pop bins (B, D)."""
        return pop_uniform(stack, self.rows * self.bins.dims, self.bins.bits).reshape(self.rows, -1)


class Independents(Flat):
    """Independent normal latents.

    Arguments:
        loc, scale: (B, D).
        bins: of the latents.
        prior: whether every bin must be possible, because what is coded was not drawn from this density.
        error: (B, D) the largest difference of `loc` between machines; 0 if it was rounded.
    """

    def __init__(self, loc: Numbers, scale: Numbers, bins: Bins, prior: bool, error: Numbers | float = 0.0):
        super().__init__(len(loc))
        self.loc, self.scale, self.bins, self.prior = loc.ravel(), scale.ravel(), bins, prior
        self.guard = _guard(((bins.error + ULPS * np.abs(loc) + error) / scale).ravel())

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        from scipy.special import ndtr

        def below(k: Integers, at: Integers) -> Numbers:
            found: Numbers = ndtr((self.bins.edge(k, at % self.bins.dims) - self.loc[at]) / self.scale[at])
            return found

        return _step(below, self.bins, self.guard, self.prior)


def _guard(error: Numbers) -> Numbers:
    """The guards of probabilities whose arguments differ by `error` standard deviations: the density is below 0.4."""
    return np.maximum(GUARD, 0.4 * error)


def _step(below: Below, bins: Bins, guard: Numbers, prior: bool) -> Step:
    precision = PRIOR_PRECISION if prior else POSTERIOR_PRECISION
    return Step(below, 1 << bins.bits, len(guard), precision, possible=prior, guard=guard)


class OneByOne(Tabled):
    """Latents that depend on each other, coded one after the other. Abstract."""

    def __init__(self, rows: int, bins: Bins):
        self.rows, self.bins, self.count = rows, bins, bins.dims

    def split(self, x: Integers) -> list[Integers]:
        return [x[:, i] for i in range(self.count)]

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return np.stack(symbols, 1)

    def centres(self, known: Sequence[Integers]) -> Numbers:
        """The centres of the first latents, (B, i)."""
        values = [self.bins.loc[i] + self.bins.scale[i] * self.bins.middles[k] for i, k in enumerate(known)]
        return np.stack(values, 1) if values else np.zeros((self.rows, 0))


class Correlated(OneByOne):
    """A normal density with full covariance L L^T: z_i given z_<i is normal with standard deviation L_ii."""

    def __init__(self, q: FullNormal, bins: Bins):
        super().__init__(len(q.loc), bins)
        self.loc, self.factor = q.loc.numpy(), q.factor.numpy()
        self.size, self.inverse = np.abs(self.factor), np.abs(np.linalg.inv(self.factor))

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        e, z = np.zeros((self.rows, i)), self.centres(known[:i])
        for j in range(i):
            shift = (self.factor[:, j, :j] * e[:, :j]).sum(1)
            e[:, j] = (z[:, j] - self.loc[:, j] - shift) / self.factor[:, j, j]
        loc = self.loc[:, i] + (self.factor[:, i, :i] * e).sum(1)
        more = self._error(i, e)[:, None]
        return Independents(loc[:, None], self.factor[:, i, i][:, None], self.bins.only(i), False, more).step(0, [])

    def _error(self, i: int, e: Numbers) -> Numbers:
        """The largest difference of the mean of z_i between machines, (B,): e solves L e = z - loc.

        To first order |de| <= |L^-1| d, where d is what z, loc and L |e| differ by (Higham 2002, theorem 8.5).
        """
        differ = self.bins.error + ULPS * np.abs(self.loc)  # (B, D)
        differ[:, : i + 1] += ULPS * (self.size[:, : i + 1, :i] * np.abs(e)[:, None]).sum(2)
        of_e = (self.inverse[:, :i, :i] * differ[:, None, :i]).sum(2)
        found: Numbers = differ[:, i] + (self.size[:, i, :i] * of_e).sum(1)
        return found


class Weighted(OneByOne):
    """A mixture of normals as prior: the latents before one change the weights of the components."""

    def __init__(self, p: GaussianMixture, rows: int, bins: Bins):
        super().__init__(rows, bins)
        self.log_weight, self.loc, self.scale = (t.double().numpy() for t in (p.logits, p.loc, p.scale))

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        from scipy.special import log_softmax, ndtr

        z, error = self.centres(known[:i]), self.bins.error  # of z
        logits = np.broadcast_to(self.log_weight, (self.rows, len(self.log_weight)))
        differ = ULPS * np.abs(logits)  # the largest difference of the logits between machines
        for j in range(i):
            away, inverse = (z[:, j, None] - self.loc[:, j]) / self.scale[:, j], 1 / self.scale[:, j]
            logits = logits - away**2 / 2 - np.log(self.scale[:, j])
            wrong = (error[j] + ULPS * np.abs(self.loc[:, j])) * inverse + ULPS * np.abs(away)
            differ = differ + np.abs(away) * wrong + ULPS * (np.abs(logits) + np.abs(np.log(self.scale[:, j])))
        weight = np.exp(log_softmax(logits, 1))
        wrong = (error[i] + ULPS * np.abs(self.loc[:, i])) / self.scale[:, i]
        guard = np.maximum(_guard((weight * wrong).sum(1)), 2 * (weight * differ).sum(1))

        def below(k: Integers, at: Integers) -> Numbers:
            edge = self.bins.edge(k, np.full_like(k, i))[:, None]
            found: Numbers = (weight[at] * ndtr((edge - self.loc[:, i]) / self.scale[:, i])).sum(1)
            return found

        return _step(below, self.bins, guard, True)


def posterior(q: Distribution, bins: Bins) -> Tabled:
    """The tables of a posterior, batch shape (B,).

    Raises:
        ChoiceError: it has none.
    """
    if isinstance(q, FullNormal):
        return Correlated(q, bins)
    return Independents(*_normal(q, "posterior"), bins, False)


def conditional_prior(p: Distribution, bins: Bins) -> Tabled:
    """The tables of p(z_l | z_l+1), batch shape (B,)."""
    return Independents(*_normal(p, "prior"), bins, True)


def _normal(d: Distribution, what: str) -> tuple[Numbers, Numbers]:
    """Means and standard deviations (B, D) of independent normals.

    Raises:
        ChoiceError: the density is another one.
    """
    if not (isinstance(d, Independent) and isinstance(d.base_dist, Normal)):
        raise ChoiceError(
            f"the {what} {type(d).__name__} of this run has no tables to code latents with: train one with "
            f"`{what}={'gaussian' if what == 'posterior' else 'normal'!r}`"
        )
    loc, scale = torch.broadcast_tensors(d.base_dist.loc, d.base_dist.scale)
    return loc.double().flatten(1).numpy(), scale.double().flatten(1).numpy()

"""Heads for counts 0, 1, 2, ..."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaekit.densities.special import at_least_single, clamped
from vaekit.utils.arguments import Knob

from .base import LOG_SCALE_FLOOR, Head, moments, raw_of_within, within
from .register import likelihood

Library = Annotated[
    Literal["none", "observed", "latent"],
    Knob(
        "model of a row's total count: none, not modelled apart; observed, the decoder returns shares of the known "
        "total; latent, shares of a total that has a prior and a posterior"
    ),
]


def count_range(scaled: bool = True) -> dict[str, Any]:
    """Arguments of a count head in a recipe; `scaled=False` gives those of old runs, with log means of at most 16."""
    return {"scaled": True} if scaled else {"highest": 16.0}


LOWEST_OF_SHARES = -30.0
"""The smallest log mean that is a share of a total; shares need no soft bound, because they sum to 1."""


class Counts(Head):
    """Counts 0, 1, 2, ... whose log mean is softly bounded between -12 and `highest`. Abstract.

    Arguments:
        highest: the largest log mean. 30 is a mean of 1e13; float32 cannot resolve single counts that large.
        scaled: the log mean is centre + spread * raw; `start_numbers` measures both, and they are stored with the
            weights. Without it an optimiser's steps are too long for large counts that vary little: the relative
            deviation of a Poisson count of 1e7 is only 3e-4.
        library: "none", or how the total of a row is known: the raw numbers then give shares of it (softmax), and one
            more raw number is the log of the total, which the network does not output.
    """

    support = constraints.nonnegative_integer
    discrete = True
    LOWEST = -12.0

    def __init__(self, event: tuple[int, ...], highest: float = 30.0, scaled: bool = False, library: Library = "none"):
        super().__init__(event)
        if not self.LOWEST < highest <= 40:
            raise ValueError(f"highest must be above {self.LOWEST:g} and at most 40, got {highest}")
        self.highest, self.scaled, self.library = highest, scaled, library
        if scaled:
            self.register_buffer("centre", torch.zeros(self.event))
            self.register_buffer("spread", torch.ones(self.event))

    @property
    def features(self) -> int:
        return self.outputs + (self.library != "none")

    @property
    def outputs(self) -> int:
        return self.params * math.prod(self.event)

    def means_and_others(self, raw: Tensor) -> tuple[Tensor, ...]:
        """The softly bounded log means that the raw numbers give, and the raw numbers of the other parameters."""
        total: Tensor | None = None
        if self.library != "none":
            raw, total = at_least_single(raw).split([self.outputs, 1], -1)
        means, *others = self.split(raw)
        if self.scaled:
            means = torch.addcmul(self.get_buffer("centre"), self.get_buffer("spread"), means)
        if total is not None:
            shares = torch.log_softmax(means.flatten(-len(self.event)), -1)
            means = clamped(shares + total, LOWEST_OF_SHARES, self.highest).reshape(means.shape)
            return means, *others
        return within(means, self.LOWEST, self.highest), *others

    def raw_mean(self, mean: Tensor) -> Tensor:
        """The raw numbers that give a mean; means below 0.001 are raised to it."""
        raw = torch.log(mean.flatten().clamp_min(1e-3))
        raw = raw if self.library != "none" else raw_of_within(raw, self.LOWEST, self.highest)
        if self.scaled:
            return (raw - self.get_buffer("centre").flatten()) / self.get_buffer("spread").flatten()
        return raw

    @torch.no_grad()
    def start_numbers(self, x: Tensor) -> None:
        """Set the centre to the log of the mean, and the spread to 4 standard deviations of log(1 + x), at most 1.

        The deviation is at least that of a Poisson variable's logarithm, about mean^(-1/2).
        """
        self._start(x, *moments(x.double())[1:])

    def _start(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        """`start_numbers` for x of this mean and variance."""
        if not self.scaled:
            return
        _, _, variance = moments(torch.log1p(x.double()))
        least = (1 + mean).rsqrt()
        self.get_buffer("centre").copy_(torch.log(mean.clamp_min(1e-3)))
        self.get_buffer("spread").copy_((4 * variance.sqrt().maximum(least)).clamp_max(1.0))


@likelihood("poisson", "Zhou et al. 2012, arXiv:1112.3605", observation="counts")
class PoissonHead(Counts):
    """Poisson counts, whose variance equals their mean."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return self.raw_mean(mean)

    def forward(self, raw: Tensor) -> D.Distribution:
        (log_mean,) = self.means_and_others(raw)
        return self.independent(Poisson(log_mean, validate_args=False))


class OverdispersedCounts(Counts):
    """Counts whose rate varies, with an inverse dispersion r, one learned number per element. Abstract.

    log r is softly bounded between -6 and `highest` - 4. The density approaches a Poisson only when r is far above the
    mean, which these bounds allow for means up to e^(`highest` - 8). The arguments are those of `Counts`.
    """

    def __init__(self, event: tuple[int, ...], highest: float = 30.0, scaled: bool = False, library: Library = "none"):
        super().__init__(event, highest, scaled, library)
        self.raw_dispersion = nn.Parameter(torch.zeros(self.event))

    def log_dispersion(self, like: Tensor) -> Tensor:
        """log r of each element, (*event), in the precision of `like`."""
        return within(self.raw_dispersion.to(like.dtype), LOG_SCALE_FLOOR, self.highest - 4)

    def counts_of(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the negative binomial part when the data have this mean and variance."""
        return mean, variance

    def _start(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Set r to that of the data, kept between 0.05 and the larger of e^5 and 7 times the mean.

        Above that the density is nearly Poisson's, and the gradient of r is small.
        """
        super()._start(x, mean, variance)
        mean, variance = self.counts_of(mean, variance)
        log_mean = torch.log(mean.clamp_min(1e-3))
        log_r = 2 * log_mean - torch.log((variance - mean).clamp_min(1e-6))
        log_r = log_r.clamp_min(-3).minimum((log_mean + 2).clamp_min(5))
        self.raw_dispersion.copy_(raw_of_within(log_r, LOG_SCALE_FLOOR, self.highest - 4))


@likelihood("negative-binomial", "Gronbech et al. 2020, doi:10.1093/bioinformatics/btaa293", observation="counts")
class NegativeBinomialHead(OverdispersedCounts):
    """Negative binomial counts with variance m + m^2 / r, such as gene counts per cell."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return self.raw_mean(mean)

    def forward(self, raw: Tensor) -> D.Distribution:
        (log_mean,) = self.means_and_others(raw)
        return self.independent(NegativeBinomial(log_mean, self.log_dispersion(log_mean), validate_args=False))


@likelihood("zero-inflated", "Lopez et al. 2018, doi:10.1038/s41592-018-0229-2", observation="counts")
class ZeroInflatedNegativeBinomialHead(OverdispersedCounts):
    """A negative binomial with extra zeros; the logit of their probability is one more raw number per element."""

    params = 2
    START = -2.0  # the logit before training: a probability of 0.12

    def counts_of(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the negative binomial that match those of the data once the extra zeros are added."""
        kept = 1 / (1 + math.exp(self.START))
        counts = mean / kept
        return counts, (variance - kept * (1 - kept) * counts**2) / kept

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        counts, _ = self.counts_of(mean, std.square())
        return torch.cat([self.raw_mean(counts), torch.full_like(counts.flatten(), self.START)])

    def forward(self, raw: Tensor) -> D.Distribution:
        log_mean, dropout = self.means_and_others(raw)
        log_r = self.log_dispersion(log_mean)
        return self.independent(ZeroInflatedNegativeBinomial(log_mean, log_r, dropout, validate_args=False))

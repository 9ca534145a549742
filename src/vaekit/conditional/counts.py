"""Heads over counts 0, 1, 2, ..."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from ..distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from .base import LOG_SCALE_FLOOR, Head, raw_of_floored, raw_of_within, within


class Counts(Head):
    """Counts 0, 1, 2, ... of a mean given by its logarithm, softly between -12 and 16. Abstract.

    Arguments:
        link: what a raw number is: the log mean (`exp`) or the mean before a `softplus`.
    """

    support = constraints.nonnegative_integer
    discrete = True
    LOWEST, HIGHEST = -12.0, 16.0

    def __init__(self, event: tuple[int, ...], link: str = "exp"):
        super().__init__(event)
        if link not in ("exp", "softplus"):
            raise ValueError(f"link {link!r} is not one of exp, softplus")
        self.link = link

    def log_mean(self, raw: Tensor) -> Tensor:
        if self.link == "softplus":
            low = raw < -15  # there softplus(raw) = e^raw to float32's last bit
            raw = torch.where(low, raw, torch.log(F.softplus(torch.where(low, torch.zeros_like(raw), raw))))
        return within(raw, self.LOWEST, self.HIGHEST)

    def raw_mean(self, mean: Tensor) -> Tensor:
        """The raw numbers of a mean; one of 0 is read as 0.001."""
        raw = raw_of_within(torch.log(mean.flatten().clamp_min(1e-3)), self.LOWEST, self.HIGHEST)
        return raw_of_floored(torch.exp(raw), 0.0) if self.link == "softplus" else raw


class PoissonHead(Counts):
    """Poisson counts: the variance is the mean."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return self.raw_mean(mean)

    def forward(self, raw: Tensor) -> D.Distribution:
        (mean,) = self.split(raw)
        return self.independent(Poisson(self.log_mean(mean), validate_args=False))


DISPERSIONS = ("shared", "each", "learned")


class OverdispersedCounts(Counts):
    """Counts whose rate varies, with an inverse dispersion r. Abstract.

    Arguments:
        dispersion: whose log r: `shared` (one learned number), `each` (one learned number an element, whatever is
            given) or `learned` (a raw number an element). It lies softly between -6 and 12, where the density is
            Poisson's.
        link: see `Counts`.
    """

    def __init__(self, event: tuple[int, ...], dispersion: str = "each", link: str = "exp"):
        super().__init__(event, link)
        if dispersion not in DISPERSIONS:
            raise ValueError(f"dispersion {dispersion!r} is not one of {', '.join(DISPERSIONS)}")
        self.dispersion = dispersion
        self.params = 2 if dispersion == "learned" else 1
        if dispersion != "learned":
            self.raw_dispersion = nn.Parameter(torch.zeros(() if dispersion == "shared" else self.event))

    def mean_and_dispersion(self, mean: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """log m and log r from the raw tensors, and those left over."""
        if self.dispersion == "learned":
            raw, rest = rest[0], rest[1:]
        else:
            raw = self.raw_dispersion.to(mean.dtype).expand(mean.shape)
        return self.log_mean(mean), within(raw, LOG_SCALE_FLOOR, 12.0), rest

    def bias(self, mean: Tensor, variance: Tensor) -> list[Tensor]:
        """Raw parameters of a negative binomial of this mean and variance, those that the network gives."""
        found = [self.raw_mean(mean)]
        if self.dispersion == "learned":
            excess = (variance - mean).flatten().clamp_min(1e-6)
            log_r = torch.log(mean.flatten().square() / excess).clamp(-3, 5)
            found.append(raw_of_within(log_r, LOG_SCALE_FLOOR, 12.0))
        return found


class NegativeBinomialHead(OverdispersedCounts):
    """Negative binomial counts, variance m + m^2 / r: counts of genes in cells."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.cat(self.bias(mean, std.square()))

    def forward(self, raw: Tensor) -> D.Distribution:
        log_mean, log_r, _ = self.mean_and_dispersion(*self.split(raw))
        return self.independent(NegativeBinomial(log_mean, log_r, validate_args=False))


class ZeroInflatedNegativeBinomialHead(OverdispersedCounts):
    """A negative binomial that is 0 with a chance of its own as well: its logit is one more raw number an element."""

    START = -2.0  # the logit before training: a chance of 0.12

    def __init__(self, event: tuple[int, ...], dispersion: str = "each", link: str = "exp"):
        super().__init__(event, dispersion, link)
        self.params += 1

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """A negative binomial that makes up for the zeros put in: its mean, and the deviation that stays."""
        kept = 1 / (1 + math.exp(self.START))
        counts = mean / kept
        variance = (std.square() - kept * (1 - kept) * counts**2) / kept
        return torch.cat([*self.bias(counts, variance), torch.full_like(counts.flatten(), self.START)])

    def forward(self, raw: Tensor) -> D.Distribution:
        log_mean, log_r, (dropout,) = self.mean_and_dispersion(*self.split(raw))
        return self.independent(ZeroInflatedNegativeBinomial(log_mean, log_r, dropout, validate_args=False))

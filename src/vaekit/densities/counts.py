"""Probabilities of counts 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Poisson as TorchPoisson
from torch.distributions import constraints

from vaekit.noise import Noise

from .count_pmf import negative_binomial_log_pmf, poisson_log_pmf
from .drawing import Keyed, from_noise
from .gamma import log_standard_gamma

FEW, TERMS, ROUNDS = 10.0, 34, 20
"""Counts are drawn by inversion over 34 terms for rates below 10, and by at most 20 proposals above. At a rate of 10 a
proposal is rejected with probability 0.25, and all 20 with 1e-12; at higher rates rejection is rarer."""


def standard_poisson(noise: Noise, log_rate: Tensor, event: Sequence[int], k: int | None = None) -> Tensor:
    """Poisson counts, (B, *event) or (K, B, *event), from a fixed number of draws of `noise`, whatever the rates.

    Inversion for rates below 10, Hoermann's (1993) transformed rejection (PTRS) above. The largest uniform number is
    1 - 6e-8, so for rates below 10 counts in the upper 6e-8 of probability are never drawn.
    """
    shape = (*(() if k is None else (k,)), len(noise.rows), *event)
    with torch.no_grad():
        log_rate = log_rate.expand(shape)
        rate, dtype = torch.exp(log_rate), log_rate.dtype
        low = rate < FEW
        small = torch.where(low, rate, torch.full_like(rate, FEW))
        u = noise.uniform(event, k).to(dtype)
        chance = torch.exp(-small)
        below, few = chance, torch.zeros_like(rate)
        for j in range(1, TERMS):
            few = few + ((u > below) & ((chance > 2.0**-26) | (j < small)))  # rounding errors do not count
            chance = chance * small / j
            below = below + chance
        log_high = torch.where(low, torch.full_like(rate, 3.0), log_rate)
        high = torch.exp(log_high)
        b = 0.931 + 2.53 * torch.sqrt(high)
        a = -0.059 + 0.02483 * b
        inverse_alpha, plain = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
        many, open_ = torch.floor(high), torch.ones_like(low)
        for _ in range(ROUNDS):
            u, v = noise.uniform(event, k).to(dtype) - 0.5, noise.uniform(event, k).to(dtype)
            us = 0.5 - u.abs()
            x = torch.floor((2 * a / us + b) * u + high + 0.43)
            inside = (x >= 0) & ((us >= 0.013) | (v <= us))
            ratio = torch.log(v * inverse_alpha / (a / us**2 + b))
            accept = inside & (((us >= 0.07) & (v <= plain)) | (ratio <= poisson_log_pmf(x.clamp_min(0), log_high)))
            many = torch.where(open_ & accept, x, many)
            open_ = open_ & ~accept
        return torch.where(low, few, many)


@from_noise.register
def _(d: TorchPoisson, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return standard_poisson(noise, torch.log(d.rate), event, k)


class Poisson(Keyed):
    """P(x) = e^{-rate} rate^x / x!, parametrised by log rate.

    Error of `log_prob` in float32, for counts that are likely at this rate: 2e-4 nats for rates up to 1e6, and 3e-3 at
    1e8. There e^`log_rate` has a rounding error of up to 6 counts, and adjacent values of `log_rate` differ by 2e-6,
    which is 0.02 standard deviations.
    """

    arg_constraints: ClassVar = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None):
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_rate)

    @property
    def variance(self) -> Tensor:
        return torch.exp(self.log_rate)

    def log_prob(self, value: Tensor) -> Tensor:
        return poisson_log_pmf(value, self.log_rate)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return standard_poisson(noise, self.log_rate, event, k)


class NegativeBinomial(Keyed):
    r"""A Poisson whose rate is Gamma with mean m and shape r: variance m + m^2 / r, r the inverse dispersion.

    P(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + m))^r (m / (r + m))^x, parametrised by log m and log r. It approaches
    a Poisson when r is far above m. Error of `log_prob` in float32, for any r: 2e-4 nats for means up to 1e6, and 3e-3
    at 1e8.
    """

    arg_constraints: ClassVar = {"log_mean": constraints.real, "log_inverse_dispersion": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, log_inverse_dispersion: Tensor, validate_args: bool | None = None):
        self.shared = log_inverse_dispersion  # not broadcast: often one per element, for all rows
        self.log_mean, self.log_inverse_dispersion = torch.broadcast_tensors(log_mean, log_inverse_dispersion)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_mean)

    @property
    def variance(self) -> Tensor:
        return self.mean + torch.exp(2 * self.log_mean - self.log_inverse_dispersion)

    def log_prob(self, value: Tensor) -> Tensor:
        return negative_binomial_log_pmf(value, self.log_mean, self.shared)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return _negative_binomial(noise, self.log_mean, self.log_inverse_dispersion, event, k)


def _negative_binomial(noise: Noise, log_mean: Tensor, log_r: Tensor, event: Sequence[int], k: int | None) -> Tensor:
    with torch.no_grad():
        log_gamma = log_standard_gamma(noise, torch.exp(log_r), event, k)
        return standard_poisson(noise, log_gamma + log_mean - log_r, event, k)


class ZeroInflatedNegativeBinomial(Keyed):
    """0 with probability sigmoid(`dropout`), else negative binomial: the likelihood of scVI (Lopez et al. 2018)."""

    arg_constraints: ClassVar = {
        "log_mean": constraints.real,
        "log_inverse_dispersion": constraints.real,
        "dropout": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, log_mean: Tensor, log_inverse_dispersion: Tensor, dropout: Tensor, validate_args: bool | None = None
    ):
        self.shared = log_inverse_dispersion
        parameters = torch.broadcast_tensors(log_mean, log_inverse_dispersion, dropout)
        self.log_mean, self.log_inverse_dispersion, self.dropout = parameters
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def counts(self) -> NegativeBinomial:
        """The negative binomial without the extra zeros."""
        return NegativeBinomial(self.log_mean, self.shared, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.dropout) * self.counts.mean

    @property
    def variance(self) -> Tensor:
        kept, mean = torch.sigmoid(-self.dropout), self.counts.mean
        return kept * (self.counts.variance + torch.sigmoid(self.dropout) * mean**2)

    def log_prob(self, value: Tensor) -> Tensor:
        counts = self.counts.log_prob(value)
        either = torch.logaddexp(self.dropout, counts)
        zero = (value == 0).to(counts.dtype)  # lerp selects exactly; a random mask takes torch.where ten times as long
        return F.logsigmoid(-self.dropout) + torch.lerp(counts, either, zero)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        with torch.no_grad():
            x = _negative_binomial(noise, self.log_mean, self.log_inverse_dispersion, event, k)
            return torch.where(noise.uniform(event, k) < torch.sigmoid(self.dropout), torch.zeros_like(x), x)

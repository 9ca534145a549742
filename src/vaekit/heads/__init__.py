"""A conditional density is a network and a head: `forward(*given) -> Distribution`.

Priors, posteriors and likelihoods all have this form. The network outputs raw parameters, flat on the last axis; only
the head turns them into a distribution, wrapped in `Independent` once, so that its batch shape is (B,) or (K, B)
and `log_prob` returns one number per example.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch import distributions as D

from .base import LOG_SCALE_FLOOR, Head, floored, moments
from .counts import (
    Counts,
    NegativeBinomialHead,
    OverdispersedCounts,
    PoissonHead,
    ZeroInflatedNegativeBinomialHead,
    count_range,
)
from .levels import CategoricalHead, DiscretisedLogisticHead, LogisticMixtureHead
from .real import SCALES, Gaussian, LaplaceHead, LocationScale, StudentTHead
from .register import LIKELIHOODS, likelihood
from .unit import Bernoulli, BetaHead, ContinuousBernoulliHead


class Conditional(nn.Module):
    """p(. | given): `head(net(*given))`. Any module with this `forward` can take its place, such as a zuko flow."""

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net, self.head = net, head

    @property
    def no_density(self) -> str | None:
        """The reason why the distribution has no density, or None if it has one."""
        return self.head.no_density

    def forward(self, *given: Tensor) -> D.Distribution:
        return self.head(self.net(*given))


__all__ = [
    "LIKELIHOODS",
    "LOG_SCALE_FLOOR",
    "SCALES",
    "Bernoulli",
    "BetaHead",
    "CategoricalHead",
    "Conditional",
    "ContinuousBernoulliHead",
    "Counts",
    "DiscretisedLogisticHead",
    "Gaussian",
    "Head",
    "LaplaceHead",
    "LocationScale",
    "LogisticMixtureHead",
    "NegativeBinomialHead",
    "OverdispersedCounts",
    "PoissonHead",
    "StudentTHead",
    "ZeroInflatedNegativeBinomialHead",
    "count_range",
    "floored",
    "likelihood",
    "moments",
]

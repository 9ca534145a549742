"""Heads on the unit interval, for binary pixels and intensities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import Beta, ContinuousBernoulli, Pixels, open_unit

from .base import Head, raw_of_within, within
from .register import likelihood


@likelihood("bernoulli", "Kingma and Welling 2013, arXiv:1312.6114", observation="binary")
class Bernoulli(Head):
    r"""P(x = 1) = sigmoid(raw), on {0, 1}."""

    support = constraints.boolean
    discrete = True

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.logit(mean.flatten(), eps=1e-3)

    def forward(self, raw: Tensor) -> D.Distribution:
        (logits,) = self.split(raw)
        return Pixels(logits, len(self.event))


@likelihood("continuous-bernoulli", "Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845", observation="dequantised")
class ContinuousBernoulliHead(Head):
    """The continuous Bernoulli on [0, 1], normaliser included (Loaiza-Ganem and Cunningham 2019).

    At 0 and 1 the density can be as high as |logit|: on data that contain these values it keeps rising during training,
    so dequantise them. The logits are softly bounded by -1000 and 1000, so log p(x) is at most 6.9 nats per element.
    """

    support = constraints.unit_interval
    LIMIT = 1000.0

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return ContinuousBernoulli.logits_of_mean(mean.flatten().clamp(1e-2, 1 - 1e-2))

    def forward(self, raw: Tensor) -> D.Distribution:
        (logits,) = self.split(raw)
        return self.independent(ContinuousBernoulli(within(logits, -self.LIMIT, self.LIMIT), validate_args=False))


@likelihood("beta", "Johnson, Kotz and Balakrishnan 1995, chapter 25", observation="dequantised")
class BetaHead(Head):
    """The beta density on the open interval (0, 1), for dequantised data: at 0 and 1 it may be infinite.

    The raw numbers are the logs of both concentrations, softly bounded by -5 and 12 (a standard deviation of 0.001 for
    a mean of 1/2).
    """

    params = 2
    support = open_unit
    LOWEST, HIGHEST = -5.0, 12.0

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        mean = mean.flatten().clamp(1e-3, 1 - 1e-3)
        both = (mean * (1 - mean) / std.flatten().clamp_min(1e-2) ** 2 - 1).clamp_min(0.1)
        logs = torch.cat([torch.log(mean * both), torch.log((1 - mean) * both)])
        return raw_of_within(logs, self.LOWEST, self.HIGHEST)

    def forward(self, raw: Tensor) -> D.Distribution:
        a, b = (torch.exp(within(t, self.LOWEST, self.HIGHEST)) for t in self.split(raw))
        return self.independent(Beta(a, b, validate_args=False))

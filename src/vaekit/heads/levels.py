"""Heads for the integers 0 .. levels-1, such as 8-bit pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import Categorical, DiscretisedLogistic, LogisticMixture

from .base import LOG_SCALE_FLOOR, Head, raw_of_within, within
from .register import likelihood


@likelihood("discretised-logistic", "Kingma et al. 2016, arXiv:1606.04934", observation="levels")
class DiscretisedLogisticHead(Head):
    """Integers 0 .. levels-1 as a logistic in bins of width 1; the first and the last bin extend to infinity.

    The raw numbers are a location and a log scale per element, in units where the levels span [-1, 1].
    """

    params = 2
    discrete = True

    def __init__(self, event: tuple[int, ...], levels: int = 256):
        super().__init__(event)
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        loc = (mean.flatten() / (self.levels - 1)) * 2 - 1
        scale = (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        return torch.cat([loc, torch.log(scale)])

    def forward(self, raw: Tensor) -> D.Distribution:
        loc, log_scale = self.split(raw)  # in units where the levels span [-1, 1]
        half = (self.levels - 1) / 2
        log_scale = math.log(half) + LOG_SCALE_FLOOR + F.softplus(log_scale - LOG_SCALE_FLOOR)
        return self.independent(DiscretisedLogistic((loc + 1) * half, log_scale, self.levels, validate_args=False))


@likelihood("categorical", "van den Oord et al. 2016, arXiv:1601.06759", observation="levels")
class CategoricalHead(Head):
    """Integers 0 .. levels-1 with one logit per level, which can represent any distribution of an element."""

    discrete = True

    def __init__(self, event: tuple[int, ...], levels: int = 256):
        super().__init__(event)
        self.levels = self.params = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """Log-probabilities of a discretised logistic of this mean and std, mixed with 1% of the uniform."""
        mean, scale = mean.flatten(), (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5)
        level = torch.arange(self.levels, dtype=mean.dtype, device=mean.device)[:, None]
        log_p = DiscretisedLogistic(mean, torch.log(scale), self.levels, validate_args=False).log_prob(level)
        return torch.log(0.99 * torch.exp(log_p) + 0.01 / self.levels).flatten()

    def forward(self, raw: Tensor) -> D.Distribution:
        return self.independent(Categorical(self.parts(raw).movedim(-len(self.event) - 1, -1), validate_args=False))


@likelihood("logistic-mixture", "Salimans et al. 2017, arXiv:1701.05517", observation="levels")
class LogisticMixtureHead(Head):
    """Integers 0 .. levels-1 as a mixture of binned logistics; all channels of a pixel share its component.

    In an event (channels, *space) the raw numbers of a pixel are a location and a log scale for each component and
    channel, and a weight for each component; in a vector every element is a pixel. Networks output equally many
    numbers for every channel, so up to channels - 1 numbers per pixel are unused. `LogisticMixture` says how this
    differs from Salimans et al. (2017).
    """

    discrete = True
    HIGHEST = 4.0  # the upper bound of a log scale, where each edge bin has half of the probability

    def __init__(self, event: tuple[int, ...], levels: int = 256, components: int = 5):
        super().__init__(event)
        if components < 1:
            raise ValueError(f"components must be 1 or more, got {components}")
        self.levels, self.components = levels, components
        self.vector = len(self.event) == 1
        self.channels, self.space = (1, self.event) if self.vector else (self.event[0], self.event[1:])
        self.params = 2 * components + math.ceil(components / self.channels)
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """Evenly spaced components whose mixture has this mean and std."""
        k = self.components
        reach = 0.7 * torch.linspace(-1, 1, k, dtype=mean.dtype, device=mean.device) if k > 1 else mean.new_zeros(1)
        within = torch.sqrt(1 - reach.square().mean())
        loc = (mean.flatten() + reach[:, None] * std.flatten()) / (self.levels - 1) * 2 - 1
        scale = (within * std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        weights = mean.new_zeros((self.params - 2 * k) * math.prod(self.event))
        log_scale = raw_of_within(torch.log(scale), LOG_SCALE_FLOOR, self.HIGHEST)
        return torch.cat([loc.flatten(), log_scale.expand(k, -1).flatten(), weights])

    def forward(self, raw: Tensor) -> D.Distribution:
        parts, k, lead = self.parts(raw), self.components, raw.shape[:-1]
        first = parts.dim() - len(self.event) - 1
        shape = (*lead, k, self.channels, *self.space)
        loc, log_scale = (parts.narrow(first, i * k, k).reshape(shape) for i in (0, 1))
        rest = parts.narrow(first, 2 * k, self.params - 2 * k).reshape(*lead, -1, *self.space)
        logits = rest.narrow(len(lead), 0, k)
        half = (self.levels - 1) / 2  # in units where the levels span [-1, 1]
        log_scale = math.log(half) + within(log_scale, LOG_SCALE_FLOOR, self.HIGHEST)
        return LogisticMixture(logits, (loc + 1) * half, log_scale, self.levels, len(self.space), self.vector)

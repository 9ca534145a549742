"""What every head is made of: raw numbers to parameters, softly bounded."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

LOG_SCALE_FLOOR = -6.0
LOG_SCALE_CEILING = 30.0
"""Out of every data's reach; there so that no raw number overflows."""


def floored(raw: Tensor, low: float = LOG_SCALE_FLOOR) -> Tensor:
    """Softly above `low`: `raw` itself far above it."""
    return low + F.softplus(raw - low)


def raw_of_floored(value: Tensor, low: float = LOG_SCALE_FLOOR) -> Tensor:
    """The raw number that `floored` turns into `value`, above `low`."""
    above = value - low
    return above + torch.log(-torch.expm1(-above)) + low


def raw_of_scale(scale: Tensor) -> Tensor:
    """The raw number of a scale, of e^-4 where it is less: near the floor there is little gradient."""
    return raw_of_floored(torch.log(scale.clamp_min(math.exp(-4))))


def within(raw: Tensor, low: float, high: float) -> Tensor:
    """Softly between `low` and `high`: `raw` itself, to the last bit, far from both."""
    past = raw > high
    below = torch.where(past, high, raw) - F.softplus(torch.where(past, high - raw, raw - high))
    past = below < low
    return torch.where(past, low, below) + F.softplus(torch.where(past, below - low, low - below))


def raw_of_within(value: Tensor, low: float, high: float) -> Tensor:
    """The raw number that `within` turns into `value`; one too near an end is read a little inside."""
    edge = 0.01 * (high - low)
    return -raw_of_floored(-raw_of_floored(value.clamp(low + edge, high - edge), low), -high)


class Head(nn.Module, ABC):
    """Raw parameters (..., features) -> a distribution with event shape `event`. Abstract.

    Attributes:
        params: raw numbers an element of the event.
        support: where x may lie, a torch constraint.
        discrete: whether densities are probabilities (then bits per dimension make sense).
    """

    params: int = 1
    support: constraints.Constraint = constraints.real
    discrete: bool = False

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        self.event = tuple(event)

    @property
    def features(self) -> int:
        """How many raw numbers the network must emit."""
        return self.params * math.prod(self.event)

    def parts(self, raw: Tensor) -> Tensor:
        """(..., features) -> (..., params, *event), in float32 at least whatever the network ran in."""
        if raw.dtype in (torch.bfloat16, torch.float16):
            raw = raw.float()
        return raw.reshape(*raw.shape[:-1], self.params, *self.event)

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """(..., features) -> `params` tensors (..., *event)."""
        return self.parts(raw).unbind(-len(self.event) - 1)

    def independent(self, d: D.Distribution) -> D.Distribution:
        """The elementwise distribution as one of the whole event."""
        return D.Independent(d, len(self.event), validate_args=False)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for data of this mean and std, if it has one."""
        return None

    def start_numbers(self, x: Tensor) -> None:
        """Put the numbers that the head itself learns at the best constant density for x (n, *event); nan is missing.

        An optimiser moves the logarithm of a scale by about its rate per step, so a far start would cost many steps.
        """

    @abstractmethod
    def forward(self, raw: Tensor) -> D.Distribution:
        """The distribution of raw parameters (..., features)."""


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many data of x (n, *event) have each element, its mean and its variance; missing values are nan.

    Of an element that no datum has, the mean and the variance are taken to be 0.
    """
    there = ~torch.isnan(x)
    n = there.sum(0)
    mean = torch.where(there, x, 0.0).sum(0) / n.clamp_min(1)
    return n, mean, torch.where(there, (x - mean).square(), 0.0).sum(0) / n.clamp_min(1)

"""The base class of heads, and soft bounds on their parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from vaekit.data.observation import Observation
from vaekit.densities.special import at_least_single

LOG_SCALE_FLOOR = -6.0
LOG_SCALE_CEILING = 30.0
"""Above the log scale of any data; prevents overflow."""


def floored(raw: Tensor) -> Tensor:
    """A soft lower bound of -6: nearly `raw` far above it."""
    return LOG_SCALE_FLOOR + F.softplus(raw - LOG_SCALE_FLOOR)


def slowed(log_scale: Tensor) -> Tensor:
    """log s that grows slower above 0: there s = 1 + `log_scale`, with the slope of exp at 0, instead of exp."""
    return torch.where(log_scale > 0, torch.log1p(log_scale.clamp_min(0)), log_scale)


def raw_of_floored(value: Tensor, low: float = LOG_SCALE_FLOOR) -> Tensor:
    """The inverse of `floored`, for values above `low`."""
    above = value - low
    return above + torch.log(-torch.expm1(-above)) + low


def raw_of_scale(scale: Tensor) -> Tensor:
    """The raw number that gives a scale of at least e^-4; smaller scales are raised, as their gradient vanishes."""
    return raw_of_floored(torch.log(scale.clamp_min(math.exp(-4))))


def within(raw: Tensor, low: float, high: float) -> Tensor:
    """Soft bounds: equals `raw` exactly when it is far from `low` and `high`."""
    bounded: Tensor = _Within.apply(raw, low, high) if raw.requires_grad else _within(raw, low, high)
    return bounded


def _within(raw: Tensor, low: float, high: float) -> Tensor:
    below = raw.clamp_max(high) - F.softplus(-(raw - high).abs())
    return below.clamp_min(low) + F.softplus(-(below - low).abs())


class _Within(torch.autograd.Function):
    """`within`, with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(raw)
        ctx.bounds = low, high
        return _within(raw, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (raw,), (low, high) = ctx.saved_tensors, ctx.bounds
        below = raw.clamp_max(high) - F.softplus(-(raw - high).abs())
        return gradients[0] * torch.sigmoid(high - raw) * torch.sigmoid(below - low), None, None


def raw_of_within(value: Tensor, low: float, high: float) -> Tensor:
    """The inverse of `within` with bounds `low` and `high`; values near a bound are moved inside by 1% of the range."""
    edge = 0.01 * (high - low)
    return -raw_of_floored(-raw_of_floored(value.clamp(low + edge, high - edge), low), -high)


class Head(nn.Module, ABC):
    """Raw parameters (..., features) -> a distribution with event shape `event`. Abstract.

    Attributes:
        params: raw numbers per element of the event.
        support: the support of x, a torch constraint.
        discrete: whether densities are probabilities, so that bits per dimension are defined.
        no_density: the reason why the distribution has no density, or None if it has one.
        chooses: whether it has a number that is not trained, but chosen by the validation ELBO among `candidates`.
    """

    params: int = 1
    support: constraints.Constraint = constraints.real
    discrete: bool = False
    no_density: ClassVar[str | None] = None
    chooses: bool = False

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        self.event = tuple(event)

    @property
    def features(self) -> int:
        """The number of raw parameters."""
        return self.params * math.prod(self.event)

    @property
    def outputs(self) -> int:
        """The number of raw parameters that the network must output; the others are known."""
        return self.features

    def parts(self, raw: Tensor) -> Tensor:
        """(..., features) -> (..., params, *event), at least in float32."""
        return at_least_single(raw).reshape(*raw.shape[:-1], self.params, *self.event)

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """(..., features) -> `params` tensors (..., *event)."""
        parts, axis = self.parts(raw), -len(self.event) - 1
        return parts.unbind(axis) if self.params > 1 else (parts.squeeze(axis),)  # the gradient of unbind is a copy

    def independent(self, d: D.Distribution) -> D.Distribution:
        """Turn an elementwise distribution into one over the whole event."""
        return D.Independent(d, len(self.event), validate_args=False)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for data of this mean and std, or None."""
        return None

    def bias_of(self, x: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for x (n, *event), where nan is missing, or None.

        An element that is missing in all examples gets mean 0.
        """
        _, mean, variance = moments(x)
        return self.initial_bias(mean, variance.sqrt())

    def start_numbers(self, x: Tensor) -> None:
        """Set the head's own parameters to the best constant density for x (n, *event), where nan is missing.

        An optimiser moves a log scale by about the learning rate per step, so a distant start costs many steps.
        """

    def observe(self, observation: Observation) -> None:
        """Take from the observation, which has been fitted to the training rows, what the density of x depends on."""

    def candidates(self, px: D.Distribution) -> Iterator[D.Distribution]:
        """`px`, a distribution of this head, with each value of the number that it `chooses`; empty without one.

        They are made one at a time, because each takes as much memory as `px`.
        """
        return iter(())

    def choose(self, position: int) -> None:
        """Set the number that the head `chooses` to that of the candidate at this position."""
        raise ValueError(f"{type(self).__name__} has no number that validation data choose")

    @abstractmethod
    def forward(self, raw: Tensor) -> D.Distribution:
        """The distribution with raw parameters (..., features)."""


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance of the observed values of each element of x (n, *event), where nan is missing.

    An element without observed values has mean and variance 0.
    """
    present = ~torch.isnan(x)
    n = present.sum(0)
    complete = bool((n == len(x)).all())
    mean = (x if complete else torch.where(present, x, 0.0)).sum(0) / n.clamp_min(1)
    squares = (x - mean).square()
    return n, mean, (squares if complete else torch.where(present, squares, 0.0)).sum(0) / n.clamp_min(1)

"""Densities on the unit interval, closed and open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from vaekit.noise import Noise

from .drawing import Keyed
from .gamma import standard_beta
from .special import HALF_LOG_TWO_PI, deviance, stirling_rest


class OpenUnit(constraints.Constraint):
    """0 < x < 1, for densities that may be infinite at 0 and 1."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


open_unit = OpenUnit()


class ContinuousBernoulli(Keyed):
    r"""p(x) = C(l) e^{l x} / (1 + e^l) on [0, 1], with its normaliser C(l) = l / tanh(l / 2).

    Loaiza-Ganem and Cunningham (2019). Parametrised by logits l; near l = 0 a series of log C avoids 0/0.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @classmethod
    def logits_of_mean(cls, mean: Tensor) -> Tensor:
        """The logits of the densities with this mean, for example in (0.01, 0.99), by bisection."""
        low, high = torch.full_like(mean, -1000.0), torch.full_like(mean, 1000.0)
        for _ in range(60):
            middle = (low + high) / 2
            above = cls(middle, validate_args=False).mean > mean
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def _series(self) -> tuple[Tensor, Tensor]:
        """The mask of elements that use the series, and the logits with 1 there, so that both branches are finite."""
        near = self.logits.abs() < 0.05
        return near, torch.where(near, torch.ones_like(self.logits), self.logits)

    @property
    def log_normaliser(self) -> Tensor:
        """log C of each element: the density is C p^x (1 - p)^(1 - x)."""
        near, away = self._series()
        square = torch.where(near, self.logits, torch.zeros_like(self.logits)) ** 2
        series = math.log(2) + square / 12 - 7 * square**2 / 1440
        return torch.where(near, series, torch.log(away / torch.tanh(away / 2)))

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - F.softplus(self.logits) + self.log_normaliser

    @property
    def mean(self) -> Tensor:
        near, away = self._series()
        series = 0.5 + self.logits / 12 - self.logits**3 / 720
        size = away.abs()  # the mean at -l is 1 minus the mean at l, so no exponential overflows
        far = -1 / torch.expm1(-size) - 1 / size
        return torch.where(near, series, torch.where(away > 0, far, 1 - far))

    @property
    def variance(self) -> Tensor:
        near, away = self._series()
        series = 1 / 12 - self.logits**2 / 240
        size = away.abs()
        return torch.where(near, series, 1 / size**2 - torch.exp(-size) / torch.expm1(-size) ** 2)

    def icdf(self, value: Tensor) -> Tensor:
        near, away = self._series()
        # log1p(u expm1(l)) / l, written for either sign of l so that nothing overflows
        size = away.abs()
        up = 1 + torch.log(value + (1 - value) * torch.exp(-size)) / size
        down = -torch.log1p(value * torch.expm1(-size)) / size
        far = torch.where(away > 0, up, down)
        rest = value * (1 - value)
        series = value + self.logits * rest / 2 + self.logits**2 * rest * (1 - 2 * value) / 6
        return torch.where(near, series, far).clamp(0, 1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self.icdf(noise.uniform(event, k))


class Beta(Keyed):
    r"""p(x) = x^{a-1} (1-x)^{b-1} / B(a, b) on the open interval (0, 1).

    At 0 and 1 it is infinite or zero, so data that contain these values must be dequantised; a value that was rounded
    to 0 or 1 is replaced by the nearest number inside. torch's version subtracts three large lgammas, which in float32
    is wrong by whole nats for a + b of 1e6 or more. The error of this one is 2e-4 nats where x is likely, for a and b
    from e^-5 to e^12.
    """

    arg_constraints: ClassVar = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = open_unit
    has_rsample = True

    def __init__(self, concentration1: Tensor, concentration0: Tensor, validate_args: bool | None = None):
        self.concentration1, self.concentration0 = torch.broadcast_tensors(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        info = torch.finfo(value.dtype)
        value = value.clamp(info.tiny, 1 - info.eps / 2)
        log_x, log_rest = torch.log(value), torch.log1p(-value)
        log_m, log_n = -torch.log1p(b / a), -torch.log1p(a / b)  # log of the mean, log of 1 - mean
        rest = stirling_rest(a) + stirling_rest(b) - stirling_rest(a + b)
        off = a * (1 - value) - b * value  # a - (a + b) x
        deviances = deviance(a, (a + b) * value, off) + deviance(b, (a + b) * (1 - value), -off)
        return (log_m + log_n + torch.log(a + b)) / 2 - deviances - log_x - log_rest - HALF_LOG_TWO_PI - rest

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return (self.concentration1 / total) * (self.concentration0 / total) / (total + 1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return standard_beta(noise, self.concentration1, self.concentration0, event, k)

"""Probabilities of a standard normal by elementary operations, precise in float32 and exportable."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
)  # fmt: skip
"""Coefficients of log(erfc(z) / t) + z^2 in t = 1 / (1 + z / 2) (Numerical Recipes, 6.2), highest power first."""


def log_tail(z: Tensor) -> Tensor:
    """log P(Z > z) of a standard normal, for z >= 0, to a relative error of 1.2e-7 in P.

    It consists of elementary operations, so that it can be exported.
    """
    return _scaled_tail(z) - (z / math.sqrt(2)).square()


def _scaled_tail(z: Tensor) -> Tensor:
    """log P(Z > z) + z^2 / 2, which keeps its digits for large z."""
    t = 1 / (1 + z / math.sqrt(8))
    exponent = torch.full_like(t, _ERFC[0])
    for coefficient in _ERFC[1:]:
        exponent = exponent * t + coefficient
    return torch.log(t / 2) + exponent


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log P(low < Z < high) of a standard normal, for finite low < high of the same shape."""
    followed = low.requires_grad or high.requires_grad
    mass: Tensor = _LogMass.apply(low, high) if followed else _log_mass(low, high)
    return mass


class _LogMass(torch.autograd.Function):
    """`log_mass`, with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
        near, rest = _scaled_mass(low, high)
        ctx.save_for_backward(low, high, near, rest)
        return rest - near.square() / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        low, high, near, rest = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            near, rest = _scaled_mass(low, high)
        shift = -rest - math.log(2 * math.pi) / 2
        # the densities at the ends, divided by P
        by_low, by_high = (
            gradients[0] * torch.exp(shift - (z - near) * (z + near) / 2) for z in (low.abs(), high.abs())
        )
        return -by_low, by_high


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    near, rest = _scaled_mass(low, high)
    return rest - near.square() / 2


def _scaled_mass(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """|z| for the point z of the interval that is nearest to 0, and log P(low < Z < high) + z^2 / 2."""
    mirrored = low + high < 0
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)  # a + b >= 0
    middle, width, near = (a + b) / 2, b - a, a.clamp_min(0)
    narrow = width * (1 + middle) < 0.02
    thin = torch.log(torch.where(narrow, width, 1.0)) - math.log(2 * math.pi) / 2
    thin = thin + (near - middle) * (near + middle) / 2
    a, b = torch.where(narrow, 0.0, a), torch.where(narrow, 1.0, b)
    of_a, of_b = _scaled_tail(torch.stack([a.abs(), b]))
    beyond = a >= 0
    fall = of_b - of_a - width * middle  # of the logarithm from a to b
    right = of_a + torch.log(-torch.expm1(torch.where(beyond, fall, -1.0)))
    outside = torch.exp(of_a - a.square() / 2) + torch.exp(of_b - b.square() / 2)
    around = torch.log1p(-torch.where(beyond, 0.5, outside))
    return near, torch.where(narrow, thin, torch.where(beyond, right, around))


def tail(z: Tensor) -> Tensor:
    """P(Z > z) of a standard normal, for any z."""
    beyond = torch.exp(log_tail(z.abs()))
    return torch.where(z > 0, beyond, 1 - beyond)

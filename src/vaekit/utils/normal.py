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
    scaled = z / math.sqrt(2)
    t = 1 / (1 + scaled / 2)
    exponent = torch.full_like(t, _ERFC[0])
    for coefficient in _ERFC[1:]:
        exponent = exponent * t + coefficient
    return torch.log(t / 2) - scaled.square() + exponent


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log P(low < Z < high) of a standard normal, for finite low < high of the same shape."""
    followed = low.requires_grad or high.requires_grad
    mass: Tensor = _LogMass.apply(low, high) if followed else _log_mass(low, high)
    return mass


class _LogMass(torch.autograd.Function):
    """`log_mass`, with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
        mass = _log_mass(low, high)
        ctx.save_for_backward(low, high, mass)
        return mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        low, high, mass = ctx.saved_tensors
        shift = -mass - math.log(2 * math.pi) / 2
        by_low, by_high = (gradients[0] * torch.exp(shift - z.square() / 2) for z in (low, high))
        return -by_low, by_high


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    mirrored = low + high < 0
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)  # a + b >= 0
    middle, width = (a + b) / 2, b - a
    narrow = width * (1 + middle) < 0.02
    thin = torch.log(torch.where(narrow, width, 1.0)) - middle.square() / 2 - math.log(2 * math.pi) / 2
    a, b = torch.where(narrow, 0.0, a), torch.where(narrow, 1.0, b)
    log_a, log_b = log_tail(torch.stack([a.abs(), b]))
    beyond = a >= 0
    right = log_a + torch.log(-torch.expm1(torch.where(beyond, log_b - log_a, -1.0)))
    around = torch.log1p(-torch.where(beyond, 0.5, torch.exp(log_a) + torch.exp(log_b)))
    return torch.where(narrow, thin, torch.where(beyond, right, around))


def tail(z: Tensor) -> Tensor:
    """P(Z > z) of a standard normal, for any z."""
    beyond = torch.exp(log_tail(z.abs()))
    return torch.where(z > 0, beyond, 1 - beyond)

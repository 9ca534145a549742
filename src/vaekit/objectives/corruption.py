"""Corruptions of x before it is encoded in training; the target is the clean x.

A corruption is a module called as `corruption(x, noise)` with x (B, *event), which returns the same shape. Its noise
is keyed by row, so that the corruption of an example does not depend on its batch. Vincent et al. (2008) train
autoencoders this way, Im et al. (2017, arXiv:1511.06406) variational ones; the bound holds for every corrupted input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaekit.noise import Noise


class GaussianNoise(nn.Module):
    """x + sigma e, e ~ N(0, I); `sigma` in the units of x."""

    def __init__(self, sigma: float):
        super().__init__()
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigma must be 0 or more, got {sigma}")
        self.sigma = sigma

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        return x + self.sigma * noise.normal(x.shape[1:]).to(x.dtype)


class Masking(nn.Module):
    """Each element set to `value` with probability `fraction`.

    Vincent et al. (2008) mask a fixed number of elements; here that number is the mean.
    """

    def __init__(self, fraction: float, value: float = 0.0):
        super().__init__()
        self.fraction, self.value = _share(fraction), value

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        return torch.where(noise.uniform(x.shape[1:]) < self.fraction, self.value, x)


class SaltAndPepper(nn.Module):
    """Each element set to `low` or `high`, with probability `fraction` / 2 each."""

    def __init__(self, fraction: float, low: float = 0.0, high: float = 1.0):
        super().__init__()
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self.fraction, self.low, self.high = _share(fraction), low, high

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        u = noise.uniform(x.shape[1:])
        peppered = torch.where(u < self.fraction / 2, self.low, x)
        return torch.where(u > 1 - self.fraction / 2, self.high, peppered)


def _share(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    return fraction


KINDS = ("gaussian", "masking", "salt-and-pepper")


def corruption(kind: str, level: float, low: float = 0.0, high: float = 1.0) -> nn.Module:
    """The corruption of this name.

    Arguments:
        kind: one of `KINDS`.
        level: the standard deviation of Gaussian noise in the units of x, else the share of corrupted elements.
        low: the smallest x: the value of masked elements, and of half of those with salt and pepper.
        high: the largest x: the value of the other half.
    """
    if kind == "gaussian":
        return GaussianNoise(level)
    if kind == "masking":
        return Masking(level, low)
    if kind == "salt-and-pepper":
        return SaltAndPepper(level, low, high)
    raise ValueError(f"corruption {kind!r} is not one of {', '.join(KINDS)}")

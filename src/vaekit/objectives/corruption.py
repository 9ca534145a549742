"""Corruptions of x before it is encoded in training; the target is the clean x.

A corruption is a module called as `corruption(x, noise)` with x (B, *event), which returns the same shape. Its noise
is keyed by row, so that the corruption of an example does not depend on its batch. Vincent et al. (2008) train
autoencoders this way, Im et al. (2017, arXiv:1511.06406) variational ones; the bound holds for every corrupted input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from vaekit.noise import Noise
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Register

CORRUPTIONS = Register("corruption", {"low": "the smallest x", "high": "the largest x"})
"""The corruptions by name."""


def corruption(name: str, paper: str) -> Callable[[Builder], Builder]:
    """Register a module that corrupts x, or a function that returns one (None for no corruption), as `name`.

    Its parameters annotated with a `Knob` are its options. It may also take `low` and `high`, the range of x.

    Arguments:
        name: its name on the command line.
        paper: its source.
    """
    return CORRUPTIONS.add(name, paper)


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


LEVEL = 0.3
Share = Annotated[float, Knob("share of the elements that are corrupted", above=0, high=1)]


@corruption("none", "")
def none() -> None:
    """The encoder sees x itself."""


@corruption("gaussian", "Im et al. 2017, arXiv:1511.06406")
def gaussian(
    corruption_level: Annotated[float, Knob("standard deviation of the noise, in the units of x", above=0)] = LEVEL,
) -> GaussianNoise:
    """Gaussian noise."""
    return GaussianNoise(corruption_level)


@corruption("masking", "Vincent et al. 2008, doi:10.1145/1390156.1390294")
def masking(corruption_level: Share = LEVEL, low: float = 0.0) -> Masking:
    """Elements set to the smallest x."""
    return Masking(corruption_level, low)


@corruption("salt-and-pepper", "Vincent et al. 2010, Journal of Machine Learning Research 11")
def salt_and_pepper(corruption_level: Share = LEVEL, low: float = 0.0, high: float = 1.0) -> SaltAndPepper:
    """Elements set to the smallest or the largest x."""
    return SaltAndPepper(corruption_level, low, high)

"""Convolutions to a grid of vectors and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vaekit import networks

from .coded import once


def grid_of(event: Sequence[int], levels: int) -> tuple[int, ...]:
    """The grid of codes of images (C, H, W) or signals (C, L) after `levels` halvings, rounded up."""
    return networks.grid_sizes(event[1:], levels)[-1]


class GridEncoder(networks.GridEncoder):
    """As the class that it extends, from x to `dim` numbers per cell of a grid, flat, row by row."""

    def __init__(self, event: Sequence[int], dim: int, channels: Sequence[int] = (32, 64), blocks: int = 1):
        super().__init__(event, dim, channels, last=blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.planes(x).flatten(2).transpose(1, 2).reshape(*x.shape[: -self.dims], -1)


class GridDecoder(networks.GridDecoder):
    """As the class that it extends, from `dim` numbers per cell of a grid, flat, row by row."""

    def __init__(
        self, event: Sequence[int], dim: int, params: int = 1, channels: Sequence[int] = (32, 64), blocks: int = 1
    ):
        super().__init__(event, dim, params, channels, last=blocks)

    def planes(self, z: Tensor) -> Tensor:
        cells = math.prod(self.grids[0])
        return z.reshape(-1, cells, z.shape[-1] // cells).transpose(1, 2).unflatten(-1, self.grids[0])


class Once(nn.Module):
    """Applies `net` to z (K?, B, D), only once if the K samples are views of one sample."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return once(self.net, z)


class StageSums(nn.Module):
    """Applies `net` to the sums of the entries of all stages of a vector: z (..., T * stages * dim)."""

    def __init__(self, net: nn.Module, stages: int, dim: int):
        super().__init__()
        self.net, self.stages, self.dim = net, stages, dim

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z.unflatten(-1, (-1, self.stages, self.dim)).sum(-2).flatten(-2))

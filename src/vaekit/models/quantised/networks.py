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


class GridEncoder(nn.Module):
    """Strided convolutions and residual blocks from x to `dim` numbers per cell of a grid, flat, row by row.

    Each of `channels` halves the grid (rounding up); `blocks` residual blocks follow. For any (C, H, W) or (C, L).
    """

    def __init__(self, event: Sequence[int], dim: int, channels: Sequence[int] = (32, 64), blocks: int = 1):
        super().__init__()
        c, *size = event
        self.dims = len(event)
        layers, last = networks.halvings(c, channels, len(size)), [c, *channels][-1]
        layers += [networks.Residual(last, len(size)) for _ in range(blocks)]
        self.convs = nn.Sequential(*layers, networks.convolution(len(size))(last, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.convs(networks.fastest_layout(x.reshape(-1, *x.shape[-self.dims :])))
        return h.flatten(2).transpose(1, 2).reshape(*x.shape[: -self.dims], -1)


class GridDecoder(nn.Module):
    """Decodes a flat grid of vectors: residual blocks, transposed convolutions, and an offset per element.

    Arguments:
        event: shape of x, (C, H, W) or (C, L).
        dim: numbers per cell of the grid.
        params: outputs per element of x.
        channels, blocks: as of `GridEncoder`.
    """

    def __init__(
        self, event: Sequence[int], dim: int, params: int = 1, channels: Sequence[int] = (32, 64), blocks: int = 1
    ):
        super().__init__()
        c, *size = event
        self.grids = networks.grid_sizes(size, len(channels))[::-1]
        widths = [*channels][::-1]
        self.inp = nn.Sequential(
            networks.convolution(len(size))(dim, widths[0], 3, padding=1),
            *[networks.Residual(widths[0], len(size)) for _ in range(blocks)],
        )
        self.steps = networks.doublings([*widths, params * c], len(size))
        self.offset = networks.Bias(params * math.prod(event))

    def forward(self, z: Tensor) -> Tensor:
        cells = math.prod(self.grids[0])
        h = z.reshape(-1, cells, z.shape[-1] // cells).transpose(1, 2).unflatten(-1, self.grids[0])
        h = self.inp(networks.fastest_layout(h))
        for step, grid in zip(self.steps, self.grids[1:], strict=True):
            h = networks.cropped(step(h), grid)
        return self.offset(h.reshape(*z.shape[:-1], -1))


class Once(nn.Module):
    """Applies `net` to z (K?, B, D), only once if the K samples are views of one sample."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return once(self.net, z)

"""Networks between images or signals and codes that are small ones: no dense layer, so neighbourhoods are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .bias import Bias
from .convolutional import (
    Residual,
    convolution,
    cropped,
    doublings,
    fastest_layout,
    grid_sizes,
    halvings,
    norm_groups,
)


class Attention(nn.Module):
    """h + conv(softmax(q k^T / sqrt(C)) v) over the places of a grid (N, C, *size), with one head.

    q, k and v are 1-wide convolutions of the normalised h; the last convolution's weights start at zero. This is the
    non-local block of Wang et al. (2018, arXiv:1711.07971), as at the lowest scale of Rombach et al. (2022,
    arXiv:2112.10752).
    """

    def __init__(self, channels: int, dims: int):
        super().__init__()
        conv = convolution(dims)
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.qkv, self.out = conv(channels, 3 * channels, 1), conv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(h)).flatten(2).chunk(3, 1)  # (N, C, places) each
        weight = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), -1)  # (N, places, places)
        mixed = (v @ weight.transpose(1, 2)).reshape(h.shape)
        return h + self.out(fastest_layout(mixed))


def middle(channels: int, dims: int, blocks: int, attention: bool) -> list[nn.Module]:
    """`blocks` residual blocks on the grid of codes, with attention after the first one."""
    layers: list[nn.Module] = [Residual(channels, dims) for _ in range(blocks)]
    return [*layers[:1], Attention(channels, dims), *layers[1:]] if attention else layers


class GridEncoder(nn.Module):
    """Strided convolutions and residual blocks from x (..., *event) to a grid of `dim` channels, flat: (dim, *size).

    Each of `channels` halves the grid, rounding up, and is followed by `blocks` residual blocks; any (C, H, W) or
    (C, L).

    Arguments:
        event: shape of x.
        dim: channels of the grid that it outputs.
        channels: of the convolutions, finest grid first.
        blocks: residual blocks after each halving.
        last: residual blocks on the last grid.
        attention: whether there is attention on the last grid.
    """

    def __init__(
        self,
        event: Sequence[int],
        dim: int,
        channels: Sequence[int] = (32, 64),
        blocks: int = 0,
        last: int = 1,
        attention: bool = False,
    ):
        super().__init__()
        c, *size = event
        self.dims, width = len(event), [c, *channels][-1]
        layers = [*halvings(c, channels, len(size), blocks), *middle(width, len(size), last, attention)]
        self.convs = nn.Sequential(*layers, convolution(len(size))(width, dim, 1))

    def planes(self, x: Tensor) -> Tensor:
        """The grids (N, dim, *size) of x (..., *event); N is the product of the leading axes."""
        return self.convs(fastest_layout(x.reshape(-1, *x.shape[-self.dims :])))

    def forward(self, x: Tensor) -> Tensor:
        return self.planes(x).reshape(*x.shape[: -self.dims], -1)


class GridDecoder(nn.Module):
    """A flat grid z (..., dim * places), channel by channel, to x: residual blocks, then transposed convolutions.

    An offset per element of the output is added. The last `condition` numbers of z are constant channels of the grid.

    Arguments:
        event: shape of x, (C, H, W) or (C, L).
        dim: channels of the grid.
        params: outputs per element of x.
        channels, blocks, last, attention: as of `GridEncoder`.
        condition: numbers after the grid.
    """

    def __init__(
        self,
        event: Sequence[int],
        dim: int,
        params: int = 1,
        channels: Sequence[int] = (32, 64),
        blocks: int = 0,
        last: int = 1,
        attention: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        c, *size = event
        self.dim, self.condition = dim, condition
        self.grids = grid_sizes(size, len(channels))[::-1]
        widths = [*channels][::-1]
        self.inp = nn.Sequential(
            convolution(len(size))(dim + condition, widths[0], 3, padding=1),
            *middle(widths[0], len(size), last, attention),
        )
        self.steps = doublings([*widths, params * c], len(size), blocks)
        self.offset = Bias(params * math.prod(event))

    def planes(self, z: Tensor) -> Tensor:
        """The grids (N, dim + condition, *size) of z (..., D)."""
        z = z.reshape(-1, z.shape[-1])
        grid = z[:, : z.shape[1] - self.condition].reshape(len(z), self.dim, *self.grids[0])
        if not self.condition:
            return grid
        c = z[:, z.shape[1] - self.condition :].reshape(len(z), -1, *(1 for _ in self.grids[0]))
        return torch.cat([grid, c.expand(-1, -1, *self.grids[0])], 1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.inp(fastest_layout(self.planes(z)))
        for step, grid in zip(self.steps, self.grids[1:], strict=True):
            h = cropped(step(h), grid)
        return self.offset(h.reshape(*z.shape[:-1], -1))

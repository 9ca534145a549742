"""Networks between images or signals and codes that are small ones: no dense layer, so neighbourhoods are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


def cut(x: Tensor, size: Sequence[int], step: int) -> Tensor:
    """The patches of `step` elements per axis of x (N, C, *size), one for each place: (N, *places, C, step, ...).

    Where `step` does not divide a side, zeros are appended to x.
    """
    x = F.pad(x, [pad for side in reversed(size) for pad in (0, -side % step)])
    for axis in range(len(size)):
        x = x.unfold(2 + axis, step, step)
    return x.movedim(1, 1 + len(size))


class PatchIn(nn.Module):
    """x (N, C, *size) to a grid (N, features, *places): one linear map of every patch, a convolution of that stride.

    `centre`, the mean of x, is first subtracted. The weights are zero until they are set or trained.
    """

    centre: Tensor

    def __init__(self, event: Sequence[int], features: int, step: int):
        super().__init__()
        self.channels, *self.size = event
        self.step = step
        self.register_buffer("centre", torch.zeros(*event))
        self.conv = convolution(len(self.size))(self.channels, features, step, stride=step, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        pads = [pad for side in reversed(self.size) for pad in (0, -side % self.step)]
        return self.conv(F.pad(x - self.centre, pads) if any(pads) else x - self.centre)


class PatchOut(nn.Module):
    """A grid (N, dim, *places) to planes (N, planes, *size): one linear map to every patch, cropped to the size.

    The weights are zero until they are set or trained.
    """

    def __init__(self, dim: int, planes: int, size: Sequence[int], step: int):
        super().__init__()
        self.size = tuple(size)
        layer = nn.ConvTranspose1d if len(size) == 1 else nn.ConvTranspose2d
        self.conv = layer(dim, planes, step, stride=step, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, z: Tensor) -> Tensor:
        return cropped(self.conv(z), self.size)


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
        direct: if above 0, a `PatchIn` of the first `direct` channels of x is added to the first `linear` channels of
            the grid, so that the convolutions need not learn linear functions of x.
        linear: see `direct`; None for all channels.
    """

    def __init__(
        self,
        event: Sequence[int],
        dim: int,
        channels: Sequence[int] = (32, 64),
        blocks: int = 0,
        last: int = 1,
        attention: bool = False,
        direct: int = 0,
        linear: int | None = None,
    ):
        super().__init__()
        c, *size = event
        features = dim if linear is None else linear
        self.direct = PatchIn((direct, *size), features, 2 ** len(channels)) if direct else None
        self.dims, width = len(event), [c, *channels][-1]
        layers = [*halvings(c, channels, len(size), blocks), *middle(width, len(size), last, attention)]
        self.convs = nn.Sequential(*layers, convolution(len(size))(width, dim, 1))

    def planes(self, x: Tensor) -> Tensor:
        """The grids (N, dim, *size) of x (..., *event); N is the product of the leading axes."""
        x = fastest_layout(x.reshape(-1, *x.shape[-self.dims :]))
        h: Tensor = self.convs(x)
        if self.direct is None:
            return h
        straight = self.direct(x[:, : self.direct.channels])
        return torch.cat([h[:, : straight.shape[1]] + straight, h[:, straight.shape[1] :]], 1)

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
        direct: whether a `PatchOut` of the grid is added, so that the convolutions need not learn linear functions of
            z.
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
        direct: bool = False,
    ):
        super().__init__()
        c, *size = event
        self.direct = PatchOut(dim, params * c, size, 2 ** len(channels)) if direct else None
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
        grid = z[:, : z.shape[1] - self.condition].reshape(z.shape[0], self.dim, *self.grids[0])
        if not self.condition:
            return grid
        c = z[:, z.shape[1] - self.condition :].reshape(z.shape[0], -1, *(1 for _ in self.grids[0]))
        return torch.cat([grid, c.expand(-1, -1, *self.grids[0])], 1)

    def forward(self, z: Tensor) -> Tensor:
        planes = fastest_layout(self.planes(z))
        h = self.inp(planes)
        for step, grid in zip(self.steps, self.grids[1:], strict=True):
            h = cropped(step(h), grid)
        if self.direct is not None:
            h = h + self.direct(planes[:, : self.dim])
        return self.offset(h.reshape(*z.shape[:-1], -1))

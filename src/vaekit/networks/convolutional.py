"""Convolutional networks for signals and images: (..., *event) to flat (..., features), and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grid_sizes(size: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """The grid sizes after 0, 1, ... `levels` halvings, rounded up: (28, 20) -> (14, 10) -> (7, 5)."""
    grids = [tuple(size)]
    for _ in range(levels):
        grids.append(tuple((s + 1) // 2 for s in grids[-1]))
    return grids


def default_levels(size: Sequence[int], smallest: int = 4) -> int:
    """The number of halvings of an image or signal until its shorter side is `smallest` or less."""
    levels, side = 0, min(size)
    while side > smallest:
        side, levels = (side + 1) // 2, levels + 1
    return max(levels, 1)


def convolution(dims: int) -> type[nn.Conv1d] | type[nn.Conv2d]:
    """The layer for signals (`dims` of 1) or images (2)."""
    return nn.Conv1d if dims == 1 else nn.Conv2d


class Residual(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), where the last convolution's weights start at zero."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        conv = convolution(dims)
        self.norm1, self.norm2 = (nn.GroupNorm(norm_groups(channels), channels) for _ in range(2))
        self.conv1, self.conv2 = conv(channels, channels, 3, padding=1), conv(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


def norm_groups(channels: int) -> int:
    """The number of groups for group normalisation: the largest divisor of 8 that divides `channels`."""
    return math.gcd(channels, 8)


def halvings(channels_in: int, channels: Sequence[int], dims: int, blocks: int = 0) -> list[nn.Module]:
    """Layers that halve a grid (rounding up) for each of `channels`, each followed by `blocks` residual blocks."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise([channels_in, *channels]):
        layers += [convolution(dims)(a, b, 3, stride=2, padding=1), nn.GroupNorm(norm_groups(b), b), nn.SiLU()]
        layers += [Residual(b, dims) for _ in range(blocks)]
    return layers


def doublings(channels: Sequence[int], dims: int, blocks: int = 0) -> nn.ModuleList:
    """Steps that double a grid, from each of `channels` to the next, each after `blocks` residual blocks."""
    steps = []
    for a, b in itertools.pairwise(channels):
        layers: list[nn.Module] = [Residual(a, dims) for _ in range(blocks)]
        layers += [nn.GroupNorm(norm_groups(a), a), nn.SiLU(), doubling(a, b, dims)]
        steps.append(nn.Sequential(*layers))
    return nn.ModuleList(steps)


class ConvEncoder(nn.Module):
    """Strided convolutions down to a small grid, then a dense layer; any C x H x W or C x L.

    Each level halves the grid (rounding up) with a 3-wide stride-2 convolution, then runs `blocks` residual blocks.
    With `direct` > 0 a `DirectIn` of the first `direct` channels is added to the first `linear` features (all of them
    if None), so that the convolutions need not learn linear functions of x.
    """

    def __init__(
        self,
        event: Sequence[int],
        features: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: int = 0,
        direct: int = 0,
        linear: int | None = None,
    ):
        super().__init__()
        c, *size = event
        self.direct = DirectIn((direct, *size), features if linear is None else linear) if direct else None
        self.dims = len(event)
        self.convs = nn.Sequential(*halvings(c, channels, len(size), blocks))
        self.out = nn.Linear([c, *channels][-1] * math.prod(grid_sizes(size, len(channels))[-1]), features)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self.dims]
        x = x.reshape(-1, *x.shape[-self.dims :])
        h = self.out(self.convs(fastest_layout(x)).flatten(1))
        if self.direct is not None:
            straight = self.direct(x[:, : self.direct.channels])
            h = h + F.pad(straight, (0, h.shape[1] - straight.shape[1]))
        return h.reshape(*lead, -1)


class ConvDecoder(nn.Module):
    """A dense layer onto a small grid, then transposed convolutions up to the exact size: any C x H x W or C x L.

    Each level runs `blocks` residual blocks and doubles the grid by a 4-wide stride-2 transposed convolution, cropped
    where the size is odd; the last one gives the output. Each output then sums 4 taps (2 x 2) instead of the 9 of a
    convolution after upsampling. The kernel's width is a multiple of its stride, which avoids checkerboard patterns.

    With `direct` > 0 a `DirectOut` of `direct` channels is added, so that the convolutions need not learn linear
    functions of z.
    """

    def __init__(
        self,
        latent: int,
        event: Sequence[int],
        params: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: int = 0,
        direct: int = 0,
    ):
        super().__init__()
        c, *size = event
        self.direct = DirectOut(latent, (direct, *size), params * c) if direct else None
        self.grids = grid_sizes(size, len(channels))[::-1]
        widths = [*channels][::-1]
        self.start = (widths[0], *self.grids[0])
        self.inp = nn.Linear(latent, math.prod(self.start))
        self.steps = doublings([*widths, params * c], len(size), blocks)

    def forward(self, z: Tensor) -> Tensor:
        lead = z.shape[:-1]
        h = fastest_layout(self.inp(z.reshape(-1, z.shape[-1])).reshape(-1, *self.start))
        for step, grid in zip(self.steps, self.grids[1:], strict=True):
            h = cropped(step(h), grid)
        if self.direct is not None:
            h = h + self.direct(z.reshape(-1, z.shape[-1]))
        return h.reshape(*lead, -1)


DIRECT = 2**14
"""The largest image that a dense layer reads or outputs, in elements; larger ones are halved or doubled."""


def _halvings(event: Sequence[int]) -> list[tuple[int, ...]]:
    """The grid of an image and its halvings, up to the first with at most `DIRECT` numbers."""
    c, *size = event
    grids = grid_sizes(size, 64)
    return grids[: 1 + next(i for i, g in enumerate(grids) if c * math.prod(g) <= DIRECT or math.prod(g) == 1)]


class DirectIn(nn.Module):
    """x (N, C, *size) to features (N, features) by a dense layer; a large x is first halved by linear convolutions.

    `centre` is first subtracted from x. It is zero until it is set to the data's mean, which speeds up learning: the
    mean of images is large compared with their spread, and would dominate the gradients of all weights.
    """

    centre: Tensor

    def __init__(self, event: Sequence[int], features: int):
        super().__init__()
        self.channels, *size = event
        self.register_buffer("centre", torch.zeros(*event))
        grids = _halvings(event)
        conv = convolution(len(size))
        c = self.channels
        self.shrink = nn.Sequential(*(conv(c, c, 3, stride=2, padding=1, bias=False) for _ in grids[1:]))
        self.dense = nn.Linear(c * math.prod(grids[-1]), features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.shrink(x - self.centre).flatten(1))


class DirectOut(nn.Module):
    """z (N, latent) to planes (N, planes, *size): a dense layer makes an image, whose channels are mixed per pixel.

    The dense layer starts at zero, and at the start the image is copied to the first planes, the location of a
    likelihood. A large image is made at a smaller size and doubled by linear convolutions.
    """

    def __init__(self, latent: int, event: Sequence[int], planes: int):
        super().__init__()
        channels, *size = event
        self.grids = _halvings(event)[::-1]
        self.start = (channels, *self.grids[0])
        self.image = nn.Linear(latent, math.prod(self.start))
        nn.init.zeros_(self.image.weight)
        nn.init.zeros_(self.image.bias)
        self.enlarge = nn.ModuleList(doubling(channels, channels, len(size)) for _ in self.grids[1:])
        self.mix = convolution(len(size))(channels, planes, 1, bias=False)
        nn.init.dirac_(self.mix.weight)

    def forward(self, z: Tensor) -> Tensor:
        h = self.image(z).reshape(-1, *self.start)
        for double, grid in zip(self.enlarge, self.grids[1:], strict=True):
            h = cropped(double(h), grid)
        return self.mix(h)


def doubling(channels_in: int, channels_out: int, dims: int) -> nn.Module:
    """A transposed convolution that doubles a grid, initialised for the number of taps that each output sums."""
    conv = (nn.ConvTranspose1d if dims == 1 else nn.ConvTranspose2d)(channels_in, channels_out, 4, stride=2, padding=1)
    with torch.no_grad():
        bound = (channels_in * 2**dims) ** -0.5
        conv.weight.uniform_(-bound, bound)
    return conv


def fastest_layout(x: Tensor) -> Tensor:
    """x with the strides that suit its device: images in float32 on a CPU have their channels innermost.

    Layers keep the layout of their input, and the values do not depend on it. In bfloat16 the convolutions gain less
    than the group normalisation loses.
    """
    if x.dim() != 4 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def cropped(h: Tensor, grid: Sequence[int]) -> Tensor:
    """h (N, C, *larger) cropped to its first rows and columns, to the size of `grid`."""
    excess = [size - wanted for size, wanted in zip(h.shape[2:], grid, strict=True)]
    if not any(excess):
        return h
    # the gradient of a slice would have another layout than h
    return F.pad(h, [pad for e in reversed(excess) for pad in (0, -e)])

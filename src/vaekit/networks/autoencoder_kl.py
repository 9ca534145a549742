"""The networks of the autoencoder of latent diffusion, with the layers and the names of diffusers' AutoencoderKL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolutional import fastest_layout

EPSILON = 1e-6
"""The number that AutoencoderKL adds to variances in its group normalisation."""


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), where x passes a 1-wide convolution if the channels change.

    The last convolution's weights start at zero.
    """

    def __init__(self, channels_in: int, channels: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(groups, c, EPSILON) for c in (channels_in, channels))
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class GridAttention(nn.Module):
    """h + linear(softmax(q k^T / sqrt(C)) v) over the places of a grid (N, C, H, W), with one head."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        out = nn.Linear(channels, channels)
        nn.init.zeros_(out.weight)
        self.to_out = nn.ModuleList([out])

    def forward(self, h: Tensor) -> Tensor:
        places = self.group_norm(h).flatten(2).transpose(1, 2)  # (N, places, C)
        q, k, v = self.to_q(places), self.to_k(places), self.to_v(places)
        weight = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1)
        return h + fastest_layout(self.to_out[0](weight @ v).transpose(1, 2).reshape(h.shape))


class Downsample(nn.Module):
    """Halves a grid of even sides by a 3-wide convolution of stride 2, after zeros at the right and at the bottom."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles a grid by repeating its places, then a 3-wide convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """`blocks` residual blocks, then a grid of half or twice the size, if any."""

    def __init__(self, channels_in: int, channels: int, blocks: int, groups: int, down: bool = False, up: bool = False):
        super().__init__()
        widths = [channels_in, *[channels] * blocks]
        self.resnets = nn.ModuleList(ResnetBlock(a, channels, groups) for a in widths[:-1])
        self.downsamplers = nn.ModuleList([Downsample(channels)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(channels)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in [*self.resnets, *self.downsamplers, *self.upsamplers]:
            x = layer(x)
        return x


class Middle(nn.Module):
    """Two residual blocks, with attention between them or not."""

    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.attentions = nn.ModuleList([GridAttention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in [self.resnets[0], *self.attentions, self.resnets[1]]:
            x = layer(x)
        return x


class KLEncoder(nn.Module):
    """Images x (..., C, H, W) to a grid of `dim` channels, flat: the encoder of AutoencoderKL without a last 1x1 layer.

    The grid has 1 / 2^(n - 1) of the sides of x for n numbers of `channels`.

    Arguments:
        event: shape of x, (C, H, W).
        dim: channels of the grid.
        channels: of each level, finest grid first.
        blocks: residual blocks per level; the decoder has one more.
        groups: of the normalisation, a divisor of all `channels`.
        attention: whether there is attention on the last grid.
    """

    def __init__(
        self, event: Sequence[int], dim: int, channels: Sequence[int], blocks: int, groups: int, attention: bool
    ):
        super().__init__()
        last = len(channels) - 1
        before = [channels[0], *channels]
        self.channels, self.blocks, self.groups, self.attention = tuple(channels), blocks, groups, attention
        self.conv_in = nn.Conv2d(event[0], channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(before[i], c, blocks, groups, down=i < last) for i, c in enumerate(channels)
        )
        self.mid_block = Middle(channels[-1], groups, attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], EPSILON)
        self.conv_out = nn.Conv2d(channels[-1], dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(fastest_layout(x.reshape(-1, *x.shape[-3:])))
        for level in self.down_blocks:
            h = level(h)
        h = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))
        return h.reshape(*x.shape[:-3], -1)


class KLDecoder(nn.Module):
    """A flat grid z (..., dim * places) to `planes` planes of the size of x, flat: the decoder of AutoencoderKL.

    Arguments:
        grid: shape of z as a grid, (dim, H', W').
        planes: the number of planes.
        channels, blocks, groups, attention: as of `KLEncoder`.
    """

    def __init__(
        self, grid: Sequence[int], planes: int, channels: Sequence[int], blocks: int, groups: int, attention: bool
    ):
        super().__init__()
        self.grid = tuple(grid)
        widths = [*channels][::-1]
        before = [widths[0], *widths]
        self.conv_in = nn.Conv2d(self.grid[0], widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, attention)
        self.up_blocks = nn.ModuleList(
            Level(before[i], c, blocks + 1, groups, up=i < len(widths) - 1) for i, c in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], planes, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(fastest_layout(z.reshape(-1, *self.grid))))
        for level in self.up_blocks:
            h = level(h)
        h = self.conv_out(F.silu(self.conv_norm_out(h)))
        return h.reshape(*z.shape[:-1], -1)

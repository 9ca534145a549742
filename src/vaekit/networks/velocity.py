"""Networks for a velocity v(x, t | c): residual dense layers for vectors, a transformer for small images.

Both take x (B, D), the time t (B,) and the condition c (B, C), and return (B, D), zero before training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES, FASTEST = 32, 30.0
"""The number of frequencies of the features of time, and the highest one, in radians."""
EMBEDDED = 128
"""Width of the embedding of time and condition."""
FEW_TOKENS, MOST_TOKENS = 16, 64
"""Grids of more than `FEW_TOKENS` positions are cut into patches of 2 along each even axis, each of which is one token
of the transformer: a step then takes a quarter of the time. `MOST_TOKENS` is the maximum number of tokens."""
HEAD = 32
"""Width of an attention head."""


class When(nn.Module):
    """The embedding (B, `EMBEDDED`) of time and condition: a two-layer network of cosines and sines of t, and of c.

    The condition c = 0 has no effect, so that it can stand for an unknown condition.

    Arguments:
        condition: C; 0 without a condition.
    """

    frequencies: Tensor

    def __init__(self, condition: int = 0):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, math.log10(FASTEST), FREQUENCIES), persistent=False)
        self.time = nn.Linear(2 * FREQUENCIES, EMBEDDED)
        self.given = nn.Linear(condition, EMBEDDED, bias=False) if condition else None
        self.out = nn.Linear(EMBEDDED, EMBEDDED)

    def forward(self, t: Tensor, c: Tensor | None) -> Tensor:
        angle = t[:, None] * self.frequencies
        h = self.time(torch.cat([torch.cos(angle), torch.sin(angle)], -1))
        if self.given is not None and c is not None:
            h = h + self.given(c)
        return F.silu(self.out(F.silu(h)))


class DenseVelocity(nn.Module):
    """Residual dense layers (He et al. 2016), each shifted by the embedding of time and condition.

    Arguments:
        dims: D.
        condition: C; 0 without a condition.
        width: width of the layers.
        layers: number of residual blocks, of two layers each.
    """

    def __init__(self, dims: int, condition: int, width: int, layers: int):
        super().__init__()
        self.when = When(condition)
        self.inputs = nn.Linear(dims, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.shift = nn.ModuleList(nn.Linear(EMBEDDED, width, bias=False) for _ in range(layers))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.out = _zero(nn.Linear(width, dims))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        when, h = self.when(t, c), self.inputs(x)
        for norm, first, shift, second in zip(self.norms, self.first, self.shift, self.second, strict=False):
            h = h + second(F.silu(first(norm(h)) + shift(when)))
        return self.out(self.norms[-1](h))


class _Block(nn.Module):
    """Attention and a dense network over tokens (B, T, W), scaled, shifted and gated by the embedding.

    This is the block "adaLN-Zero" of Peebles and Xie (2023, arXiv:2212.09748); it starts as the identity.
    """

    def __init__(self, width: int):
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = _zero(nn.Linear(EMBEDDED, 6 * width))
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, when: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(when)[:, None].chunk(6, -1)
        h = h + gate1 * self._attention(self.norm(h) * (1 + scale1) + shift1)
        return h + gate2 * self.narrow(F.silu(self.wide(self.norm(h) * (1 + scale2) + shift2)))

    def _attention(self, h: Tensor) -> Tensor:
        b, n, width = h.shape
        q, k, v = self.qkv(h).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, T, W / heads) each
        weight = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        return self.mixed((weight @ v).transpose(1, 2).reshape(b, n, width))


class GridVelocity(nn.Module):
    """A transformer over the positions of a small image or signal (Peebles and Xie 2023, arXiv:2212.09748).

    Arguments:
        grid: (C, *size) of x, which is flat in this order.
        condition: width of the condition; 0 without one.
        width: width of the tokens, rounded up to whole attention heads.
        layers: number of blocks.
    """

    def __init__(self, grid: Sequence[int], condition: int, width: int, layers: int):
        super().__init__()
        self.channels, self.size = grid[0], tuple(grid[1:])
        self.patch = patches(self.size)
        self.tokens = [s // p for s, p in zip(self.size, self.patch, strict=True)]
        width = HEAD * math.ceil(width / HEAD)
        numbers = self.channels * math.prod(self.patch)
        self.when = When(condition)
        self.inputs = nn.Linear(numbers, width)
        self.position = nn.Parameter(0.02 * torch.randn(math.prod(self.tokens), width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), _zero(nn.Linear(width, numbers))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        when = self.when(t, c)
        h = self.inputs(self._cut(x)) + self.position
        for block in self.blocks:
            h = block(h, when)
        return self._joined(self.out(self.norm(h)))

    def _cut(self, x: Tensor) -> Tensor:
        """Flat grids (B, D) as patches (B, T, C * patch)."""
        k = len(self.size)
        split = [n for pair in zip(self.tokens, self.patch, strict=True) for n in pair]
        x = x.reshape(len(x), self.channels, *split)  # (B, C, T1, p1, T2, p2, ...)
        order = [0, *(2 + 2 * i for i in range(k)), 1, *(3 + 2 * i for i in range(k))]
        return x.permute(order).reshape(len(x), math.prod(self.tokens), -1)

    def _joined(self, h: Tensor) -> Tensor:
        """The inverse of `_cut`."""
        k = len(self.size)
        h = h.reshape(len(h), *self.tokens, self.channels, *self.patch)  # (B, T1, T2, ..., C, p1, p2, ...)
        order = [0, 1 + k, *(n for i in range(k) for n in (1 + i, 2 + k + i))]
        return h.permute(order).reshape(len(h), -1)


def patches(size: Sequence[int]) -> tuple[int, ...]:
    """The patch of a grid: 2 along even axes (see `FEW_TOKENS`), then longest axes divided until tokens are few enough.

    >>> patches((4, 4)), patches((8, 8)), patches((32, 32)), patches((7, 30))
    ((1, 1), (2, 2), (4, 4), (1, 6))
    """
    patch = [2 if n % 2 == 0 and math.prod(size) > FEW_TOKENS else 1 for n in size]
    left = [n // p for n, p in zip(size, patch, strict=True)]
    while math.prod(left) > MOST_TOKENS:
        axis = left.index(max(left))
        factor = next(f for f in range(2, left[axis] + 1) if left[axis] % f == 0)
        left[axis] //= factor
        patch[axis] *= factor
    return tuple(patch)


def _zero(layer: nn.Linear) -> nn.Linear:
    """The layer, with weights and biases of zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

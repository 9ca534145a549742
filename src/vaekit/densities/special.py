"""Precision, sums of exponentials, and differences of large log-gammas without cancellation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


def at_least_single(t: Tensor) -> Tensor:
    """t, converted to float32 if it is in half precision."""
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


def clamped(x: Tensor, low: float, high: float) -> Tensor:
    """x.clamp(low, high), which on a CPU costs a gradient nothing unless a number is outside."""
    if x.device.type == "cpu" and x.numel() > 0 and not torch.compiler.is_compiling():
        least, most = torch.aminmax(x.detach())
        if low <= least and most <= high:
            return x
    return x.clamp(low, high)


def entries(table: Tensor, index: Tensor) -> Tensor:
    """The entries of a flattened table at an index of any shape; unlike indexing, this can be recorded."""
    return table.flatten().index_select(0, index.flatten()).reshape(index.shape)


def without(logits: Tensor, excluded: Tensor) -> Tensor:
    """logits (..., *shape) with -inf where `excluded` (*shape) is True; as a sum, faster than `masked_fill`."""
    return logits + logits.new_zeros(excluded.shape).masked_fill_(excluded, -math.inf)


def drop_negligible(x: Tensor, dim: int) -> Tensor:
    """x with -inf for terms that do not change the sum of exp(x) over `dim`.

    These are terms below 1e-5 of the rounding error of the largest. The sum and the gradients of the other terms are
    unchanged; the dropped terms get a gradient of exactly 0. Without this, terms 90 nats below the largest have
    subnormal gradients, with which products take seven times as long on a CPU.
    """
    low = x.detach().amax(dim, keepdim=True) + math.log(torch.finfo(x.dtype).eps * 1e-5)
    return torch.where(x < low, -math.inf, x)  # NaN stays


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """log sum exp(x) over `dim`, without subnormal gradients (see `drop_negligible`)."""
    if not x.requires_grad:
        return torch.logsumexp(drop_negligible(x, dim), dim)
    total: Tensor = _LogSumExp.apply(x, dim)
    return total


class _LogSumExp(torch.autograd.Function):
    """`log_sum_exp`, with its gradient in closed form: the share of each term, 0 for negligible ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        total = torch.logsumexp(x, dim)
        ctx.save_for_backward(x, total)
        ctx.dim = dim
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, total = ctx.saved_tensors
        info = torch.finfo(x.dtype)
        share = torch.exp(x - total.clamp_min(info.min).unsqueeze(ctx.dim))  # 0 if all terms are 0
        kept = torch.nn.functional.threshold(share, info.eps * 1e-5, 0.0)
        return gradients[0].unsqueeze(ctx.dim) * kept, None


def stirling_rest(x: Tensor) -> Tensor:
    r"""log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2] for x > 0: small, where log Gamma itself is huge."""
    large = x > 8
    near = torch.where(large, 1.0, x)
    direct = torch.lgamma(near) - (near - 0.5) * torch.log(near) + near - HALF_LOG_TWO_PI
    return torch.where(large, stirling_series(torch.where(large, x, 8.0)), direct)


def stirling_series(x: Tensor) -> Tensor:
    """`stirling_rest` for x of at least 8."""
    far = 1 / x
    square = far**2
    return far * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))  # the next term: 6e-12 at 8


def deviance(x: Tensor, mean: Tensor, off: Tensor) -> Tensor:
    """x log(x / mean) - off with off = x - mean, for x and mean above 0: at least 0, exact to a few rounding errors.

    The function bd0 of Loader (2000). Where x is near the mean the terms cancel, and a series in v = off / (x + mean)
    replaces them. The caller passes `off`, because it may know it more exactly than the difference x - mean.
    """
    v = off / (x + mean)
    near = v.abs() < 0.1
    small = torch.where(near, v, 0.0)
    square = small**2
    tail: float | Tensor = 1 / 15
    for odd in (13, 11, 9, 7, 5, 3):  # log((1 + v) / (1 - v)) / 2 - v; the next term is 6e-17 of it
        tail = 1 / odd + square * tail
    series = torch.where(near, off, 0.0) * small + 2 * x * small * square * tail
    return torch.where(near, series, x * torch.log(x / mean) - off)


def digamma_rest(x: Tensor) -> Tensor:
    """digamma(x) - log x for x > 0: about -1 / (2 x) where x is large. Unlike torch's digamma it is vectorised."""
    near = x < SHIFT
    small = torch.where(near, x, 1.0)
    steps = torch.log1p(SHIFT / small) - sum((1 / (small + j) for j in range(1, SHIFT)), 1 / small)
    series = digamma_series(torch.where(near, x + SHIFT, x))
    return torch.where(near, series + steps, series)


SHIFT = 10
"""Below this digamma is computed from its value at x + 10."""


def digamma_series(x: Tensor) -> Tensor:
    """`digamma_rest` for x of at least `SHIFT`."""
    inverse = 1 / x
    square = inverse.square()
    series: float | Tensor = 691 / 32760
    for one_of in (132, 240, 252, 120, 12):  # the next term is 8e-16 at 10
        series = 1 / one_of - square * series
    return -inverse / 2 - square * series

"""Log-probabilities of counts without cancellation, and their gradients in closed form.

Small counts take the terms that depend on nothing but the count and the dispersion from tables; those of large counts
are computed one by one from deviances (Loader 2000), which are exact for any count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .special import HALF_LOG_TWO_PI, deviance, digamma_rest, digamma_series, stirling_rest, stirling_series

SMALL = 64
"""The largest count in the tables. Up to here, sums of the terms have an error of about 1e-5 nats in float32."""


def poisson_log_pmf(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log rate - rate - log x!, for integers x >= 0."""
    return _Poisson.apply(x, log_rate)


def negative_binomial_log_pmf(x: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
    """log P(x) of a negative binomial with this mean and inverse dispersion r, for integers x >= 0.

    Arguments:
        x: counts, of the shape of `log_mean` or of its last axes.
        log_mean: (..., *event).
        log_r: (*event), shared by rows, or of any shape that broadcasts to `log_mean`, which takes longer.
    """
    return _NegativeBinomial.apply(x, log_mean, log_r)


class _Poisson(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_rate: Tensor) -> Tensor:
        ctx.save_for_backward(x, log_rate)
        if not _has_tables(x):
            return _poisson(x, log_rate)
        log_factorial = torch.lgamma(torch.arange(1, SMALL + 2, dtype=log_rate.dtype))
        log_p = x * log_rate - torch.exp(log_rate) - _looked_up(log_factorial, _index(x, torch.Size()))
        large = _large(x, log_p)
        if len(large):
            _replace(log_p, large, _poisson(*_at(large, log_p, x, log_rate)))
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        x, log_rate = ctx.saved_tensors
        return None, (gradients[0] * (x - torch.exp(log_rate))).sum_to_size(log_rate.shape)


def _poisson(x: Tensor, log_rate: Tensor) -> Tensor:
    """`poisson_log_pmf` from its deviance."""
    rate = torch.exp(log_rate)
    positive = torch.where(x > 0, x, 1.0)
    log_p = -deviance(positive, rate, positive - rate) - torch.log(positive) / 2
    log_p = log_p - HALF_LOG_TWO_PI - stirling_rest(positive)
    return torch.where(x > 0, log_p, -rate)


class _NegativeBinomial(torch.autograd.Function):
    """With t = log(1 + m / r), log P = sum_{j < x} log((1 + j / r) / (1 + j)) + x (log m - t) - r t.

    The sum is in a table with one row per small count and one column per element of r.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
        event = log_mean.shape[log_mean.dim() - log_r.dim() :]
        ctx.tables = _has_tables(x) and log_r.dim() < x.dim() and log_r.shape == event == x.shape[-log_r.dim() :]
        if not ctx.tables:
            ctx.save_for_backward(x, log_mean, log_r)
            return saddle_point(x, log_mean, log_r)
        r = torch.exp(log_r)
        below = torch.arange(_most(x), dtype=r.dtype)[:, None]
        ratio = 1 + below / r.flatten()
        index = _index(x, r.shape)
        odds = log_mean - log_r
        t = F.softplus(odds, threshold=40.0)
        log_p = torch.addcmul(_looked_up(_sums(torch.log(ratio / (1 + below))), index), x, log_mean - t)
        log_p.addcmul_(r, t, value=-1)
        large = _large(x, log_p)
        if len(large):
            n, mean, shared, of_r = _at(large, log_p, x, log_mean, log_r, stirling_rest(r))
            rest = stirling_series(n + torch.exp(shared)) - of_r - stirling_series(n)
            _replace(log_p, large, saddle_point(n, mean, shared, rest))
        ctx.save_for_backward(x, log_mean, log_r, odds, t, _sums(1 / ratio), index, large)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, log_mean, log_r, *kept = ctx.saved_tensors
        (gradient,) = gradients
        if not ctx.tables:
            by_mean, by_r = slopes(x, log_mean, log_r)
        else:
            odds, t, slope, index, large = kept
            r = torch.exp(log_r)
            by_mean = torch.addcmul(x, x + r, torch.sigmoid(odds), value=-1)
            by_r = torch.addcmul(_looked_up(slope, index), r, t, value=-1).sub_(by_mean)
            if len(large):
                n, mean, shared, of_r = _at(large, by_mean, x, log_mean, log_r, digamma_rest(r))
                exact = slopes(n, mean, shared, digamma_series(n + torch.exp(shared)) - of_r)
                _replace(by_mean, large, exact[0])
                _replace(by_r, large, exact[1])
        wanted = ctx.needs_input_grad
        return (
            None,
            by_mean.mul_(gradient).sum_to_size(log_mean.shape) if wanted[1] else None,
            by_r.mul_(gradient).sum_to_size(log_r.shape) if wanted[2] else None,
        )


def _has_tables(x: Tensor) -> bool:
    """Whether the terms of small counts are looked up. Compiled, and on other devices, computing them is faster."""
    return x.device.type == "cpu" and x.numel() > 0 and not torch.compiler.is_compiling()


def _most(x: Tensor) -> int:
    """The largest count that the tables need."""
    most = x.amax()
    return int(most) if most <= SMALL else SMALL  # also if there are nan


def _index(x: Tensor, event: torch.Size) -> Tensor:
    """The index of each count in a flattened table (`SMALL` + 1, *event); that of a larger count is arbitrary."""
    row = x.to(torch.int32, copy=True).clamp_(0, SMALL)  # nan becomes the smallest or largest integer
    columns = event.numel()
    return row if columns == 1 else torch.add(torch.arange(columns, dtype=row.dtype).view(event), row, alpha=columns)


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    return table.flatten().index_select(0, index.flatten()).view(index.shape)


def _sums(terms: Tensor) -> Tensor:
    """The sum of the first x rows of `terms` in row x."""
    return F.pad(terms.cumsum(0), (0, 0, 1, 0))


def _large(x: Tensor, like: Tensor) -> Tensor:
    """The flat indices, in the shape of `like`, of counts that have no row in the tables."""
    return torch.from_numpy(np.flatnonzero(np.broadcast_to(x.detach().numpy() > SMALL, like.shape)))


def _at(index: Tensor, like: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The elements of tensors that broadcast to the shape of `like` at these flat indices."""
    whole = [t.expand(like.shape[like.dim() - t.dim() :]).reshape(-1) for t in tensors]
    return [t.index_select(0, index if len(t) == like.numel() else index % len(t)) for t in whole]


def _replace(values: Tensor, index: Tensor, new: Tensor) -> None:
    values.put_(index, new)


def slopes(x: Tensor, log_mean: Tensor, log_r: Tensor, rest: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The derivatives of `saddle_point` by log m and log r, without cancellation.

    By r it is digamma(x + r) - digamma(r) + log(r / (r + m)) - t with t = (x - m) / (r + m), which is `rest` plus
    log(1 + t) - t.

    Arguments:
        rest: [digamma(x + r) - log(x + r)] - [digamma(r) - log r], if it is known.
    """
    mean, r = torch.exp(log_mean), torch.exp(log_r)
    total, off = r + mean, x - mean
    t = off / total
    series: float | Tensor = 1 / 9
    for power in range(8, 1, -1):  # log(1 + t) - t; the next term is 3e-7 of it
        series = (1 / power if power % 2 else -1 / power) + t * series
    bent = torch.where(t.abs() < 0.2, t.square() * series, torch.log((x + r) / total) - t)
    rest = digamma_rest(x + r) - digamma_rest(r) if rest is None else rest
    return r / total * off, r * (rest + bent)


def saddle_point(x: Tensor, log_mean: Tensor, log_r: Tensor, rest: Tensor | None = None) -> Tensor:
    r"""log of Gamma(x + r) / (Gamma(r) x!) (r / (r + m))^r (m / (r + m))^x for integers x >= 0, m the mean.

    Loader's saddle-point form of the binomial with n = x + r has two deviances, both at least 0: of r from
    n r / (r + m) and of x from n m / (r + m). Their differences, -d r / (r + m) and d r / (r + m) with d = x - m, are
    computed without subtracting large numbers, so that nothing cancels when r is far below m or far above, where the
    density approaches a Poisson.

    Arguments:
        rest: the `stirling_rest` of n less those of r and x, if it is known.
    """
    mean, r = torch.exp(log_mean), torch.exp(log_r)
    positive = torch.where(x > 0, x, 1.0)
    n, share = positive + r, r / (r + mean)
    off = share * (positive - mean)
    deviances = deviance(r, share * n, -off) + deviance(positive, n * mean / (r + mean), off)
    rest = stirling_rest(n) - stirling_rest(r) - stirling_rest(positive) if rest is None else rest
    log_p = rest - deviances - (torch.log(positive) + torch.log1p(positive / r)) / 2 - HALF_LOG_TWO_PI
    return torch.where(x > 0, log_p, -r * torch.log1p(mean / r))

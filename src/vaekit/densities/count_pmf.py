"""Log-probabilities of counts without cancellation, and their gradients in closed form.

On a CPU, the terms of small counts that depend only on the count and the dispersion are looked up in tables, and
negative binomials of large counts are computed in float64. All other log-probabilities are computed one by one from
deviances (Loader 2000), which are exact for any count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .special import HALF_LOG_TWO_PI, deviance, digamma_rest, stirling_rest, stirling_series

SMALL = 64
"""The largest count in the tables. Up to here, sums of the terms have an error of about 1e-5 nats in float32."""

HIGH = 80.0
"""Above this, e^x may overflow in float32."""


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
        whole = log_r.dim() < x.dim() <= log_mean.dim() and x.shape == log_mean.shape[log_mean.dim() - x.dim() :]
        ctx.tables = _has_tables(x) and whole and log_r.shape == event
        if not ctx.tables:
            ctx.save_for_backward(x, log_mean, log_r)
            return saddle_point(x, log_mean, log_r)
        r = torch.exp(log_r)
        most = x.amax()
        below = torch.arange(int(most) if most <= SMALL else SMALL, dtype=r.dtype)[:, None]  # SMALL also if it is nan
        ratio = 1 + below / r.flatten()
        index = _index(x, r.shape)
        odds = log_mean - log_r
        t = _softplus(odds)
        log_p = (log_mean - t).mul_(x).add_(_looked_up(_sums(torch.log(ratio / (1 + below))), index))
        log_p.addcmul_(r, t, value=-1)
        large = torch.empty(0, dtype=torch.long) if most <= SMALL else _large(x, log_p)
        if len(large):
            known = _at(large, log_p, x, log_mean, log_r, stirling_rest(r))
            _replace(log_p, large, _in_double(*(t.double() for t in known)))
        ctx.save_for_backward(x, log_mean, log_r, odds, t, _sums(1 / ratio), index, large)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        wanted = ctx.needs_input_grad
        (gradient,) = gradients
        if not ctx.tables:
            x, log_mean, log_r = ctx.saved_tensors
            by_mean, by_r = slopes(x, log_mean, log_r)
            return (
                None,
                by_mean.mul_(gradient).sum_to_size(log_mean.shape) if wanted[1] else None,
                by_r.mul_(gradient).sum_to_size(log_r.shape) if wanted[2] else None,
            )
        x, log_mean, log_r, odds, t, slope, index, large = ctx.saved_tensors
        r = torch.exp(log_r)
        by_mean = x - torch.sigmoid(odds).mul_(x + r)
        both = torch.addcmul(_looked_up(slope, index), r, t, value=-1) if wanted[2] else None  # by log m plus by log r
        if len(large):
            n, mean, shared = (each.double() for each in _at(large, by_mean, x, log_mean, log_r))
            of_mean, of_r = slopes(n, mean, shared)
            _replace(by_mean, large, of_mean)
            if both is not None:
                _replace(both, large, of_mean + of_r)
        by_mean.mul_(gradient)
        if both is None:
            return None, by_mean, None
        return None, by_mean, both.mul_(gradient).sum_to_size(r.shape) - by_mean.sum_to_size(r.shape)


def _in_double(x: Tensor, log_mean: Tensor, log_r: Tensor, rest: Tensor) -> Tensor:
    """log P of counts above `SMALL`, all in float64; `rest` is the `stirling_rest` of r."""
    r, t = torch.exp(log_r), F.softplus(log_mean - log_r, threshold=40.0)
    n = x + r
    sum_ = (n - 0.5) * torch.log1p(x / r) - x + stirling_series(n) - rest  # of log(1 + j / r), j < x
    return sum_ - torch.lgamma(x + 1) + x * (log_mean - t) - r * t


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact where it is near 0; torch's takes twice as long."""
    return F.softplus(x, threshold=40.0) if x.amax() > HIGH else torch.exp(x).log1p_()


def _has_tables(x: Tensor) -> bool:
    """Whether the terms of small counts are looked up. Compiled, and on other devices, computing them is faster."""
    return x.device.type == "cpu" and x.numel() > 0 and not torch.compiler.is_compiling()


def _index(x: Tensor, event: torch.Size) -> Tensor:
    """The index of each count in a flattened table (`SMALL` + 1, *event); that of a larger count is arbitrary."""
    row = x.to(torch.int32, copy=True).clamp_(0, SMALL)  # nan becomes the smallest or largest integer
    columns = event.numel()
    return row if columns == 1 else torch.add(torch.arange(columns, dtype=row.dtype).view(event), row, alpha=columns)


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    return table.flatten().index_select(0, index.flatten()).view(index.shape)


def _sums(terms: Tensor) -> Tensor:
    """The sum of the first x rows of `terms` in row x."""
    sums = terms.new_zeros(len(terms) + 1, terms.shape[1])
    torch.cumsum(terms, 0, out=sums[1:])
    return sums


def _large(x: Tensor, like: Tensor) -> Tensor:
    """The flat indices, in the shape of `like`, of counts that have no row in the tables."""
    return torch.from_numpy(np.flatnonzero(np.broadcast_to(x.detach().numpy() > SMALL, like.shape)))


def _at(index: Tensor, like: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The elements of tensors that broadcast to the shape of `like` at these flat indices."""
    whole = [t.expand(like.shape[like.dim() - t.dim() :]).reshape(-1) for t in tensors]
    return [t.index_select(0, index if len(t) == like.numel() else index % len(t)) for t in whole]


def _replace(values: Tensor, index: Tensor, new: Tensor) -> None:
    values.put_(index, new.to(values.dtype))


def slopes(x: Tensor, log_mean: Tensor, log_r: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of `saddle_point` by log m and log r, without cancellation.

    By r it is digamma(x + r) - digamma(r) + log(r / (r + m)) - t with t = (x - m) / (r + m), which is
    [digamma(x + r) - log(x + r)] - [digamma(r) - log r] plus log(1 + t) - t.
    """
    mean, r = torch.exp(log_mean), torch.exp(log_r)
    total, off = r + mean, x - mean
    t = off / total
    series: float | Tensor = 1 / 9
    for power in range(8, 1, -1):  # log(1 + t) - t; the next term is 3e-7 of it
        series = (1 / power if power % 2 else -1 / power) + t * series
    bent = torch.where(t.abs() < 0.2, t.square() * series, torch.log((x + r) / total) - t)
    rest = digamma_rest(x + r) - digamma_rest(r)
    return r / total * off, r * (rest + bent)


def saddle_point(x: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
    r"""log of Gamma(x + r) / (Gamma(r) x!) (r / (r + m))^r (m / (r + m))^x for integers x >= 0, m the mean.

    Loader's saddle-point form of the binomial with n = x + r has two deviances, both at least 0: of r from
    n r / (r + m) and of x from n m / (r + m). Their differences, -d r / (r + m) and d r / (r + m) with d = x - m, are
    computed without subtracting large numbers, so that nothing cancels when r is far below m or far above, where the
    density approaches a Poisson.
    """
    mean, r = torch.exp(log_mean), torch.exp(log_r)
    positive = torch.where(x > 0, x, 1.0)
    n, share = positive + r, r / (r + mean)
    off = share * (positive - mean)
    deviances = deviance(r, share * n, -off) + deviance(positive, n * mean / (r + mean), off)
    rest = stirling_rest(n) - stirling_rest(r) - stirling_rest(positive)
    log_p = rest - deviances - (torch.log(positive) + torch.log1p(positive / r)) / 2 - HALF_LOG_TWO_PI
    return torch.where(x > 0, log_p, -r * torch.log1p(mean / r))

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
    return torch.logsumexp(drop_negligible(x, dim), dim)


def stirling_rest(x: Tensor) -> Tensor:
    r"""log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2] for x > 0: small, where log Gamma itself is huge."""
    large = x > 8
    far = 1 / torch.where(large, x, torch.full_like(x, 8.0))
    near = torch.where(large, torch.ones_like(x), x)
    square = far**2
    series = far * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))  # the next term: 6e-12 at 8
    direct = torch.lgamma(near) - (near - 0.5) * torch.log(near) + near - HALF_LOG_TWO_PI
    return torch.where(large, series, direct)


def deviance(x: Tensor, mean: Tensor, off: Tensor) -> Tensor:
    """x log(x / mean) - off with off = x - mean, for x and mean above 0: at least 0, exact to a few rounding errors.

    The function bd0 of Loader (2000). Where x is near the mean the terms cancel, and a series in v = off / (x + mean)
    replaces them. The caller passes `off`, because it may know it more exactly than the difference x - mean.
    """
    v = off / (x + mean)
    near = v.abs() < 0.1
    small = torch.where(near, v, 0.0)
    square = small**2
    tail = torch.full_like(square, 1 / 15)
    for odd in (13, 11, 9, 7, 5, 3):  # log((1 + v) / (1 - v)) / 2 - v; the next term is 6e-17 of it
        tail = 1 / odd + square * tail
    series = torch.where(near, off, 0.0) * small + 2 * x * small * square * tail
    return torch.where(near, series, x * torch.log(x / mean) - off)


def poisson_log_pmf(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log rate - rate - log x!, computed from its deviance (Loader 2000), for integers x >= 0."""
    rate = torch.exp(log_rate)
    positive = torch.where(x > 0, x, 1.0)
    log_p = -deviance(positive, rate, positive - rate) - torch.log(positive) / 2
    log_p = log_p - HALF_LOG_TWO_PI - stirling_rest(positive)
    return torch.where(x > 0, log_p, -rate)


def negative_binomial_log_pmf(x: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
    """log P(x) of a negative binomial with this mean and inverse dispersion r, for integers x >= 0.

    Its gradients have closed forms, which take a fraction of the time of those of `saddle_point`. On a CPU without
    compilation, small counts take the sum of three log-gammas, which is as exact for them and faster.

    Arguments:
        x: counts.
        log_mean: (..., D); log_r: broadcasts to it, and is used as it is: (D,) costs D evaluations.
    """
    return _NegativeBinomial.apply(x, log_mean, log_r)


class _NegativeBinomial(torch.autograd.Function):
    """`saddle_point` with the gradients of log m and log r in closed form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_r: Tensor) -> Tensor:
        ctx.save_for_backward(x, log_mean, log_r)
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            return saddle_point(x, log_mean, log_r)
        mean, r = torch.exp(log_mean), torch.exp(log_r)
        n = x + r
        log_p = torch.lgamma(n) - torch.lgamma(r) - torch.lgamma(x + 1)
        log_p = log_p - r * torch.log1p(mean / r) + x * (log_mean - torch.log(r + mean))
        large = (n > MODERATE) | (mean > MODERATE) | (r * MODERATE < mean)
        if bool(large.any()):
            few = (t.broadcast_to(log_p.shape)[large.broadcast_to(log_p.shape)] for t in (x, log_mean, log_r))
            log_p[large.broadcast_to(log_p.shape)] = saddle_point(*few)
        return log_p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, log_mean, log_r = ctx.saved_tensors
        (gradient,) = gradients
        mean, r = torch.exp(log_mean), torch.exp(log_r)
        of_mean = of_r = None
        if ctx.needs_input_grad[1]:
            of_mean = (gradient * (r / (r + mean) * (x - mean))).sum_to_size(log_mean.shape)
        if ctx.needs_input_grad[2]:
            of_r = (gradient * (r * _slope(x, r, mean))).sum_to_size(log_r.shape)
        return None, of_mean, of_r


MODERATE = 64.0
"""Up to here a log-gamma in float32 has an error of at most 1e-5."""


def _slope(x: Tensor, r: Tensor, mean: Tensor) -> Tensor:
    """d log P / dr = digamma(x + r) - digamma(r) + log(r / (r + m)) - (x - m) / (r + m), without cancellation.

    It is [digamma(x + r) - log(x + r)] - [digamma(r) - log r] + log(1 + t) - t with t = (x - m) / (r + m).
    """
    total = r + mean
    t = (x - mean) / total
    series = torch.full_like(t, 1 / 9)
    for power in range(8, 1, -1):  # log(1 + t) - t; the next term is 3e-7 of it
        series = (1 / power if power % 2 else -1 / power) + t * series
    near = t.square() * series
    return _digamma_rest(x, r) + torch.where(t.abs() < 0.2, near, torch.log((x + r) / total) - t)


def _digamma_rest(x: Tensor, r: Tensor) -> Tensor:
    """[digamma(x + r) - log(x + r)] - [digamma(r) - log r], about x / (2 r (x + r)) for large r."""
    n = x + r
    far = r > 8
    big_r, big_n = torch.where(far, r, 8.0), torch.where(far, n, 8.0)
    p, q = 1 / big_r, 1 / big_n  # the series of digamma(y) - log y is -1/(2y) - 1/(12 y^2) + 1/(120 y^4) - ...
    series = x * p * q * (1 / 2 + (p + q) * (1 / 12 - (p.square() + q.square()) * (1 / 120)))
    near_r, near_n = torch.where(far, 1.0, r), torch.where(far, 1.0, n)
    direct = torch.digamma(near_n) - torch.log(near_n) - torch.digamma(near_r) + torch.log(near_r)
    return torch.where(far, series, direct)


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

"""Sums of exponentials, and differences of large log-gammas that float32 can hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


def what_shows(x: Tensor, dim: int) -> Tensor:
    """x with -inf for what no sum of exp(x) over `dim` can show: 1e-5 of the precision of the largest term, or less.

    The sum is the same, and so are its gradients but for those terms, which get an exact 0. Without this they are
    subnormal numbers where terms lie 90 nats apart, and products of such take seven times as long on a CPU.
    """
    low = x.detach().amax(dim, keepdim=True) + math.log(torch.finfo(x.dtype).eps * 1e-5)
    return torch.where(x < low, -math.inf, x)  # NaN stays


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """log sum exp(x) over `dim`, with gradients that are never subnormal (`what_shows`)."""
    return torch.logsumexp(what_shows(x, dim), dim)


def stirling_rest(x: Tensor) -> Tensor:
    r"""log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2] for x > 0: small, where log Gamma itself is huge."""
    large = x > 8
    far = 1 / torch.where(large, x, torch.full_like(x, 8.0))
    near = torch.where(large, torch.ones_like(x), x)
    square = far**2
    series = far * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))  # the next term: 6e-12 at 8
    direct = torch.lgamma(near) - (near - 0.5) * torch.log(near) + near - HALF_LOG_TWO_PI
    return torch.where(large, series, direct)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b) = log Gamma(a) + log Gamma(b) - log Gamma(a + b)."""
    rest = stirling_rest(a) + stirling_rest(b) - stirling_rest(a + b) + HALF_LOG_TWO_PI
    return rest - (a - 0.5) * torch.log1p(b / a) - (b - 0.5) * torch.log1p(a / b) - torch.log(a + b) / 2


def poisson_log_pmf(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log rate - rate - log x! by its deviance (Loader 2000), for whole x >= 0."""
    rate = torch.exp(log_rate)
    some = torch.where(x > 0, x, torch.ones_like(x))
    off = (some - rate) / rate
    near = off.abs() < 0.5
    log_ratio = torch.where(near, torch.log1p(torch.where(near, off, torch.zeros_like(off))), some.log() - log_rate)
    deviance = some * log_ratio - (some - rate)
    above = -deviance - torch.log(some) / 2 - HALF_LOG_TWO_PI - stirling_rest(some)
    return torch.where(x > 0, above, -rate)

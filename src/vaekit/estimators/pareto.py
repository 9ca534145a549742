"""The shape k-hat of the tail of importance weights: whether their mean can be trusted.

The largest weights are fitted by a generalised Pareto density. If its shape k is 1/2 or more, the weights have no
variance, and with 0.7 or more their mean is not reliable at any practical number of draws (Vehtari, Simpson, Gelman,
Yao and Gabry 2024, "Pareto smoothed importance sampling", arXiv:1507.02646). Unlike the effective sample size, k-hat
describes the tail beyond the drawn weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RELIABLE = 0.7
"""The largest k-hat at which the mean of weights is reliable, for 2,200 draws or more."""
LEAST_TAIL = 5
"""The least number of weights that a fit needs."""
ENOUGH = 200
"""The least number of draws with which k-hat is judged: with fewer, it is fitted to 40 weights or less."""


def tail_size(samples: int) -> int:
    """The number of the largest weights that the density is fitted to: min(S / 5, 3 sqrt(S))."""
    return math.ceil(min(0.2 * samples, 3 * math.sqrt(samples)))


def reliable(samples: int) -> float:
    """The largest k-hat at which the mean of this many weights is reliable: min(1 - 1 / log10 S, 0.7)."""
    return min(1 - 1 / math.log10(samples), RELIABLE) if samples > 10 else 0.0


def limit_in_words(samples: int) -> str:
    """The `reliable` k-hat of this many draws in words, or that they are too few to judge it."""
    if samples < ENOUGH:
        return f"too few draws to judge, {ENOUGH} or more are needed"
    return f"reliable up to {reliable(samples):.2f}"


def k_hat(log_w: Tensor, *, samples: int | None = None) -> Tensor:
    """k-hat of log-weights: (S, B) -> (B,); 0 for weights that are all equal, nan for too few of them.

    Arguments:
        log_w: all weights, or at least the `tail_size` + 1 largest ones.
        samples: S, if these are only the largest ones.
    """
    samples = len(log_w) if samples is None else samples
    m = tail_size(samples)
    if m < LEAST_TAIL:
        return torch.full(log_w.shape[1:], math.nan, dtype=torch.float64)
    top = log_w.double().topk(m + 1, 0).values
    shifted = torch.exp(top - top[:1])
    excess = (shifted[:m] - shifted[m:]).flip(0)  # ascending
    equal = excess[-1] <= 0
    return torch.where(equal, 0.0, fit_pareto(torch.where(equal, 1.0, excess))[0])


def fit_pareto(x: Tensor) -> tuple[Tensor, Tensor]:
    """The shape k and scale of a generalised Pareto density fitted to excesses (M, B), ascending: each (B,).

    The mean of an approximate posterior over theta = -k / sigma on a grid (Zhang and Stephens 2009), with the weak
    prior towards k = 1/2 of Vehtari et al., worth 10 observations.
    """
    n = len(x)
    grid = 30 + int(math.sqrt(n))
    spread = 1 - torch.sqrt(grid / (torch.arange(1, grid + 1, dtype=x.dtype, device=x.device) - 0.5))
    quartile = x[int(n / 4 + 0.5) - 1].clamp_min(1e-300)
    theta = spread[:, None] / (3 * quartile) + 1 / x[-1]  # (G, B)
    k = torch.stack([torch.log1p(-t * x).mean(0) for t in theta])
    log_fit = n * (torch.log(-theta / k) - k - 1)
    theta = (torch.softmax(log_fit, 0) * theta).sum(0)
    k = torch.log1p(-theta * x).mean(0)
    return (n * k + 5) / (n + 10), -k / theta

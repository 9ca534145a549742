"""Keyed gamma and beta draws: elementwise, and the same in any batch, compiled or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vaekit.noise import Noise

from .special import at_least_single

ROUNDS = 10
"""Proposals per element. At concentration 1, the worst case, one is rejected with probability 0.048, all with 1e-13."""
FEW = 16
"""If a row has at most this many draws, all their proposals are computed together."""


class _Implicit(torch.autograd.Function):
    """Returns the drawn log x, with the gradient d log x / da at a fixed P(X <= x; a) (Figurnov et al. 2018)."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, log_x: Tensor) -> Tensor:
        ctx.save_for_backward(concentration, log_x)
        return log_x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        a, log_x = ctx.saved_tensors
        # as x -> 0, P(X <= x) = x^a / Gamma(a + 1) (1 + O(x)): solve for log x and differentiate
        small = log_x < -30
        x = torch.exp(torch.where(small, torch.zeros_like(log_x), log_x))
        limit = (torch.digamma(a + 1) - log_x) / a
        return g * torch.where(small, limit, torch._standard_gamma_grad(a, x) / x), None


def log_standard_gamma(noise: Noise, concentration: Tensor, event: Sequence[int], k: int | None = None) -> Tensor:
    """The logarithm of a `standard_gamma` draw, with the same arguments; finite even if the draw itself underflows.

    A beta draw is the sigmoid of the difference of two of these.
    """
    shape = (*(() if k is None else (k,)), len(noise.rows), *event)
    concentration = at_least_single(concentration).expand(shape)
    with torch.no_grad():
        a, dtype = concentration, concentration.dtype
        below = a < 1  # Gamma(a) = Gamma(a + 1) U^{1/a}
        d = torch.where(below, a + 1, a) - 1 / 3
        c = 1 / torch.sqrt(9 * d)
        kept = torch.zeros_like(d)  # y = c x of the first accepted proposal; the mode if all are rejected
        open_ = torch.ones_like(d, dtype=torch.bool)
        together = ROUNDS if math.prod(event) * (k or 1) <= FEW else 1
        for done in range(0, ROUNDS, together):
            x, u = (v.to(dtype) for v in noise.proposals(together, event, k))
            y = c * x
            inside = y > -1
            log_v = 3 * torch.log1p(torch.where(inside, y, 0))
            # d - d v + d log v with v = (1 + y)^3, written so that d - d v does not cancel for large d
            accept = inside & (torch.log(u) < x**2 / 2 + d * (log_v - y * (3 + y * (3 + y))))
            first = accept.byte().argmax(0, keepdim=True)  # the first proposal that is accepted
            kept = torch.where(open_ & accept.any(0), y.gather(0, first)[0], kept)
            open_ = open_ & ~accept.any(0)
            if noise.may_skip and not open_.any():
                noise.skip(3 * (ROUNDS - done - together))
                break
        boost = torch.where(below, torch.log(noise.uniform(event, k).to(dtype)) / a, 0)
        log_x = torch.log(d) + 3 * torch.log1p(kept) + boost
    return _Implicit.apply(concentration, log_x)


def standard_gamma(noise: Noise, concentration: Tensor, event: Sequence[int], k: int | None = None) -> Tensor:
    r"""Draws from x^{a-1} e^{-x} / Gamma(a), reparametrised: shape (B, *event), or (K, B, *event) when `k` is given.

    Marsaglia and Tsang (2000), with a fixed number of keyed proposals so that the noise of a row does not depend on
    the other rows. The gradient with respect to the concentration is that of the quantile at a fixed probability.

    Arguments:
        noise: advances by a fixed number of draws.
        concentration: a > 0, broadcast to the draw's shape, in float32 at least.
        event: shape of one draw.
        k: number of draws per row, or None for one without this axis.
    """
    x = torch.exp(log_standard_gamma(noise, concentration, event, k))
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def standard_beta(noise: Noise, a: Tensor, b: Tensor, event: Sequence[int], k: int | None = None) -> Tensor:
    """Draws from the beta density with concentrations a (of x) and b (of 1 - x), reparametrised, inside (0, 1)."""
    log_odds = log_standard_gamma(noise, a, event, k) - log_standard_gamma(noise, b, event, k)
    info = torch.finfo(log_odds.dtype)
    return torch.sigmoid(log_odds).clamp(info.tiny, 1 - info.eps / 2)


def standard_t(noise: Noise, df: Tensor, event: Sequence[int], k: int | None = None) -> Tensor:
    """Draws from Student's t, a normal divided by the root of a scaled chi-square; reparametrised in `df` too."""
    log_square = log_standard_gamma(noise, df / 2, event, k) - torch.log(df / 2)
    return noise.normal(event, k).to(log_square.dtype) * torch.exp(-log_square / 2)

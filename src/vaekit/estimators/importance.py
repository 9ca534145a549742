r"""Importance weights of draws from q, or from a defensive mixture of q and the prior, in chunks; and what they give.

With draws from q, the log of the mean weight is the bound of Burda et al. (2016, arXiv:1509.00519). With the mixture
r = alpha p(z) + (1 - alpha) q(z | x), weights p(x, z) / r(z) are at most p(x | z) / alpha, so that a poor q costs
accuracy but never has weights without limit (Hesterberg 1995; Owen and Zhou 2000). The log of their mean is a lower
bound as well. The numbers of draws from both parts are fixed rather than random, with which p-hat stays unbiased, as
the density of the whole mixture is below the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vaekit.densities import draw, draw_with_density
from vaekit.noise import Noise

from .target import Target

ALPHA = 0.1
"""The share of the prior in the defensive mixture."""


def log_weights(target: Target, noise: Noise, samples: int, *, chunk: int | None = None) -> Iterator[Tensor]:
    """Yields log p(x, z) - log q(z | x) of `samples` draws from q per datum, in chunks (k, B)."""
    for k, part in _chunks(noise, samples, chunk):
        with torch.no_grad():
            z, log_q = draw_with_density(target.q, part, k)
            yield target.log_joint(z) - (target.q.log_prob(z) if log_q is None else log_q)


def mixture_log_weights(
    target: Target, noise: Noise, samples: int, *, alpha: float = ALPHA, chunk: int | None = None
) -> Iterator[Tensor]:
    """Yields log p(x, z) - log r(z) of `samples` draws from the defensive mixture r per datum, in chunks (k, B).

    `alpha` is rounded to a whole number of draws, at least one of each part if there are two draws or more.
    """
    of_prior = min(max(1, round(alpha * samples)), samples - 1)
    share = of_prior / samples
    parts = ((target.prior, of_prior, 0), (target.q, samples - of_prior, 1))
    for density, number, part_of in parts:
        keyed = Noise(noise.base + part_of, noise.rows, noise.first_sample)
        for k, part in _chunks(keyed, number, chunk):
            with torch.no_grad():
                z = draw(density, part, k)
                log_p = target.prior.log_prob(z)
                log_r = math.log1p(-share) + target.q.log_prob(z)
                if share:
                    log_r = torch.logaddexp(log_r, math.log(share) + log_p)
                yield log_p + target.log_px_given(z) - log_r


def _chunks(noise: Noise, samples: int, chunk: int | None) -> Iterator[tuple[int, Noise]]:
    """Yields the size of each chunk of samples and its noise; the numbers do not depend on the chunks."""
    chunk = chunk or samples
    for first in range(0, samples, max(chunk, 1)):
        yield min(chunk, samples - first), Noise(noise.base, noise.rows, noise.first_sample + first)


def jackknife(log_w: Tensor, *, order: int = 1) -> Tensor:
    r"""Jackknife variational inference of log p(x) from log-weights (K, B): (B,), order 1 or 2.

    sum_{j=0}^{order} c_j L_{K-j}, where L_{K-j} is the bound of K - j weights, averaged over all subsets of that size,
    and c_j = (-1)^j (K - j)^order / ((order - j)! j!): its bias is O(K^-(order + 1)) instead of O(1 / K) (Nowozin 2018,
    "Debiasing evidence approximations"). It is not a bound.
    """
    k = len(log_w)
    if not 1 <= order <= 2 or k <= order:
        raise ValueError(f"order must be 1 or 2 and below the number of weights, got order {order} of {k} weights")
    w = log_w.double()
    total = torch.logsumexp(w, 0)
    bounds = [total - math.log(k), _log_without(w, total).mean(0) - math.log(k - 1)]
    if order == 2:
        pairs = torch.zeros_like(total)
        for i in range(k - 1):  # all pairs without i and one of the later weights
            others = torch.cat([w[:i], w[i + 1 :]])
            pairs += _log_without(others, torch.logsumexp(others, 0))[i:].sum(0)
        bounds.append(pairs / (k * (k - 1) / 2) - math.log(k - 2))
    factors = [(-1) ** j * (k - j) ** order / (math.factorial(order - j) * math.factorial(j)) for j in range(order + 1)]
    return torch.stack([c * bound for c, bound in zip(factors, bounds, strict=True)]).sum(0)


def _log_without(w: Tensor, total: Tensor) -> Tensor:
    """log of the sum of all weights but each, (K, B), from log-weights and the log of their sum."""
    share = torch.exp(w - total)
    most = share > 1 - 1e-9  # the difference would have lost its digits
    rest = total + torch.log1p(-torch.where(most, 0.0, share))
    return torch.where(most, torch.logsumexp(torch.where(most, -math.inf, w), 0), rest)


SUMO_KNEE, SUMO_FALL = 80, 0.9
"""P(N >= n) of the random number of terms of SUMO is 1 / n below the knee, and falls by this factor above."""


def sumo_terms(uniform: Tensor) -> Tensor:
    """The number of terms N >= 1 of SUMO for a uniform number, with P(N >= n) as described at `SUMO_KNEE`."""
    u = uniform.double().clamp_min(1e-300)
    small = torch.floor(1 / u)
    large = SUMO_KNEE + torch.floor(torch.log(u * SUMO_KNEE) / math.log(SUMO_FALL))
    return torch.where(u > 1 / SUMO_KNEE, small.clamp_max(SUMO_KNEE), large).long()


def sumo(log_w: Tensor, terms: Tensor, *, least: int = 5) -> Tensor:
    r"""SUMO: L_m + sum_{n=1}^N (L_{m+n} - L_{m+n-1}) / P(N >= n) from log-weights (K, B) with K >= m + max N: (B,).

    L_k is the bound of the first k weights. The sum has the mean log p(x), but its variance may be infinite; it is not
    a bound (Luo et al. 2020, arXiv:2004.00353).

    Arguments:
        terms: (B,) the random numbers N of `sumo_terms`.
        least: m, the number of weights in the first bound; more of them lower the variance.
    """
    counts = torch.arange(1, len(log_w) + 1, device=log_w.device, dtype=torch.float64)[:, None]
    bounds = torch.logcumsumexp(log_w.double(), 0) - torch.log(counts)
    n = counts[: len(log_w) - least]  # 1, 2, ...
    survival = torch.where(n < SUMO_KNEE, 1 / n, SUMO_FALL ** (n - SUMO_KNEE) / SUMO_KNEE)
    rises = (bounds[least:] - bounds[least - 1 : -1]) / survival
    return bounds[least - 1] + torch.where(n <= terms, rises, 0.0).sum(0)

"""The parts of objectives and estimators: functions of a `Trace` with one number per example, in nats."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaekit.densities.special import log_sum_exp
from vaekit.models.vae import Latent, Trace


def _over_samples(values: Tensor, trace: Trace) -> Tensor:
    """The mean over the K samples of a pass, if it has that axis: (K?, B) -> (B,)."""
    return values.mean(0) if values.dim() == 2 else values


def closed_form(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p), if torch has it registered."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def has_closed_form(q: Distribution, p: Distribution) -> bool:
    """Whether torch has a registered KL(q || p)."""
    return closed_form(q, p) is not None


def latent_rate(latent: Latent, analytic: bool = True) -> Tensor:
    """KL(q(z|x) || p(z)) of one layer: in closed form if registered, else log q - log p at the samples. (K?, B)"""
    kl = closed_form(latent.q, latent.p) if analytic else None
    return latent.log_q - latent.log_p if kl is None else kl


def rate(trace: Trace, analytic: bool = True) -> Tensor:
    """The KL of all layers in nats per example, (B,)."""
    return torch.stack([_over_samples(latent_rate(h, analytic), trace) for h in trace.latents]).sum(0)


def rate_per_dim(latent: Latent) -> Tensor | None:
    """The KL of each latent dimension, (B, *event), if q and p both factorise over them; else None."""
    q, p = latent.q, latent.p
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    return closed_form(q.base_dist, p.base_dist)


def _sampled_rate_per_dim(latent: Latent) -> Tensor | None:
    """log q - log p of each latent dimension at the samples, (K?, B, *event), if q and p factorise; else None."""
    q, p = latent.q, latent.p
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    if q.base_dist.event_shape or p.base_dist.event_shape:
        return None
    return q.base_dist.log_prob(latent.z) - p.base_dist.log_prob(latent.z)


def rate_groups(trace: Trace, analytic: bool = True) -> Tensor:
    """The KL averaged over batch and samples, in parts that sum to the mean of `rate`.

    One part per latent dimension for a single layer that factorises, else one part per layer.
    """
    if len(trace.latents) == 1:
        (h,) = trace.latents
        parts = rate_per_dim(h) if analytic else None
        if parts is None:
            parts = _sampled_rate_per_dim(h)
        if parts is not None:
            return parts.reshape(-1, h.q.event_shape.numel()).mean(0)
    return torch.stack([latent_rate(h, analytic).mean() for h in trace.latents])


def free_rate(trace: Trace, free: float, analytic: bool = True) -> Tensor:
    """sum_j max(free, KL_j) over the `rate_groups`, in nats: a scalar (Kingma et al. 2016)."""
    return rate_groups(trace, analytic).clamp(min=free).sum()


def distortion(trace: Trace, x: Tensor) -> Tensor:
    """-log p(x | z) in nats per example, averaged over the samples of the pass: (B,)."""
    return -_over_samples(trace.px.log_prob(x), trace)


def elbo_stats(distortion: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """The stats `elbo`, `rate` and `distortion`: batch means in nats, from the distortion and the rate (B,)."""
    return {"elbo": -(distortion + rate).mean(), "rate": rate.mean(), "distortion": distortion.mean()}


def log_weights(trace: Trace, x: Tensor, log_px: Tensor | None = None) -> Tensor:
    """log p(x, z) - log q(z | x) at the samples, (K?, B); pass `log_px` if log p(x | z) is known.

    Both parts are Monte Carlo: with a closed-form KL, the importance-weighted bound would not be a bound.
    """
    total = trace.px.log_prob(x) if log_px is None else log_px
    for h in trace.latents:
        total = total + h.log_p - h.log_q
    return total


def log_mean_weight(weights: Tensor) -> Tensor:
    """log 1/K sum_k exp(w_k) over the leading axis: the bound of Burda et al. (2016) when w are log-weights."""
    return log_sum_exp(weights, 0) - math.log(len(weights))


def grouped_bound(weights: Tensor, groups: int = 1) -> Tensor:
    """`log_mean_weight` within each of `groups` groups of samples, averaged over groups: (K, B) -> (B,)."""
    parts = weights.unflatten(0, (groups, -1))  # (M, K / M, B)
    return (log_sum_exp(parts, 1) - math.log(parts.shape[1])).mean(0)


class Weights(NamedTuple):
    """A running sum of log-weights whose memory does not grow with K: all (B,)."""

    top: Tensor  # the largest log-weight so far
    total: Tensor  # sum_k exp(w_k - top)
    squares: Tensor  # sum_k exp(2 (w_k - top))

    @classmethod
    def none(cls, like: Tensor) -> Weights:
        """The sums before any sample."""
        return cls(torch.full_like(like, -math.inf), torch.zeros_like(like), torch.zeros_like(like))

    def add(self, weights: Tensor) -> Weights:
        """The sums with the log-weights (K, B) of more samples added."""
        top = torch.maximum(self.top, weights.max(0).values)
        shift, fresh = torch.exp(self.top - top), torch.exp(weights - top)
        return Weights(top, self.total * shift + fresh.sum(0), self.squares * shift**2 + fresh.square().sum(0))

    def log_mean(self, k: int) -> Tensor:
        """log 1/K sum_k exp(w_k): the same as `log_mean_weight` of all the weights together."""
        return self.top + torch.log(self.total) - math.log(k)

    @property
    def ess(self) -> Tensor:
        """Effective sample size of the normalised weights, (sum w)^2 / sum w^2: between 1 and K."""
        return self.total**2 / self.squares

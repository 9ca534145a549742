"""Start a model of a table as factor analysis, the best model with linear networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaekit import networks
from vaekit.heads import Conditional, Gaussian, LocationScale
from vaekit.heads.base import raw_of_scale
from vaekit.heads.censored import CensoredHead
from vaekit.heads.mixed import Masked
from vaekit.models.vae import Model

LEAST = 0.05
"""The smallest sigma of the start, in standard deviations of an element."""

ROUNDS = 5
"""The number of times that factors are fitted again to the rows that an objective keeps."""

WIDEST = 1024
"""The largest number of elements of a model with a linear path: the cost of factors grows with its third power."""


class Factors(NamedTuple):
    """x = mean + effect c + loading z + noise, z ~ N(0, I), and the posterior of z, which is Gaussian.

    Attributes:
        mean: (D,).
        effect: (D, C), of the condition c; C is 0 without one.
        loading: (D, L).
        sigma: standard deviation of the noise of each element, (D,).
        inference: the posterior's mean is inference (x - mean - effect c), (L, D).
        scale: the standard deviations of the best posterior that factorises, (L,).
    """

    mean: Tensor
    effect: Tensor
    loading: Tensor
    sigma: Tensor
    inference: Tensor
    scale: Tensor


def factors(x: Tensor, latent: int, c: Tensor | None = None) -> Factors:
    """Principal factors of x (n, D), float64; missing values (nan) are replaced by the mean.

    The loading is that of probabilistic PCA (Tipping and Bishop 1999); sigma is then fitted for each element. With a
    condition c (n, C), they are the factors of what is left of x after its linear regression on c.
    """
    x = x.double()
    mean = torch.nan_to_num(x.nanmean(0))
    centred = torch.nan_to_num(x - mean)
    effect = x.new_zeros(x.shape[1], 0)
    if c is not None:
        varied = c.double() - c.double().mean(0)
        effect = (torch.linalg.pinv(varied, rtol=1e-6) @ centred).T  # one-hot columns are collinear
        mean = mean - effect @ c.double().mean(0)
        centred = torch.where(torch.isnan(x), 0.0, centred - varied @ effect.T)
    covariance = centred.T @ centred / len(x)
    variances, axes, noise = principal(covariance, latent)
    loading = axes * (variances - noise).clamp_min(0).sqrt()
    loading = nn.functional.pad(loading, (0, latent - loading.shape[1]))
    least = LEAST**2 * covariance.diagonal()
    sigma = (covariance.diagonal() - loading.square().sum(-1)).clamp_min(least).sqrt()
    sigma = torch.where(sigma > 0, sigma, 1.0)
    scaled = loading.T / sigma.square()
    precision = scaled @ loading + torch.eye(latent, dtype=torch.float64)
    return Factors(mean, effect, loading, sigma, torch.linalg.solve(precision, scaled), precision.diagonal().rsqrt())


def principal(covariance: Tensor, latent: int, weight: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Leading variances (M,) and axes (D, M) of a covariance (D, D), M = min(latent, D), and sigma^2 of the noise.

    With the loading W = axes sqrt(variances - weight sigma^2), N(W z, sigma^2 I) is the best linear model of

        E_q[log p(x|z)] - weight KL(q(z|x) || N(0, I)),

    which is probabilistic PCA at noise of the variance weight sigma^2 (Tipping and Bishop 1999 for a weight of 1; Lucas
    et al. 2019, arXiv:1911.02469, section 4.3, for the weight). sigma^2 is the mean squared error of a reconstruction
    from a draw of q: weight sigma^2 along each of the M axes, and the other variances.
    """
    variances, axes = torch.linalg.eigh(covariance)
    kept = min(latent, len(variances))
    rest = variances[: len(variances) - kept]
    noise = rest.sum().clamp_min(0) / (len(variances) - weight * kept) if len(rest) else variances.new_zeros(())
    return variances[-kept:].flip(-1), axes[:, -kept:].flip(-1), noise


def log_density(found: Factors, x: Tensor, c: Tensor | None = None) -> Tensor:
    """log p of each row of x (n, D) under the factors, (n,); missing values (nan) are taken as the mean."""
    given = 0.0 if c is None else c.double() @ found.effect.T
    centred = torch.nan_to_num(x.double() - found.mean - given) / found.sigma
    scaled = found.loading / found.sigma[:, None]
    precision = scaled.T @ scaled + torch.eye(scaled.shape[1], dtype=torch.float64)
    explained = torch.linalg.solve_triangular(torch.linalg.cholesky(precision), (centred @ scaled).T, upper=False)
    logdet = torch.logdet(precision) + 2 * found.sigma.log().sum() + len(found.mean) * math.log(2 * math.pi)
    return -0.5 * (centred.square().sum(1) - explained.square().sum(0) + logdet)


def kept_factors(x: Tensor, latent: int, c: Tensor | None, kept: Callable[[Tensor, Tensor], Tensor]) -> Factors:
    """`factors` of the rows of x (n, D) that an objective keeps (`Objective.kept`).

    The rows of high density under the factors are kept, and the factors fitted to them again: concentration steps
    (Rousseeuw and Van Driessen 1999).
    """
    found = factors(x, latent, c)
    for _ in range(ROUNDS):
        chosen = kept(log_density(found, x, c), x)
        if int(chosen.sum()) < x.shape[1]:
            break
        found = factors(x[chosen], latent, None if c is None else c[chosen])
    return found


@torch.no_grad()
def start_as_factors(
    model: Model, x: Tensor, c: Tensor | None = None, kept: Callable[[Tensor, Tensor], Tensor] | None = None
) -> None:
    """Set a model whose networks have a linear path (`MLP(direct=True)`) to factor analysis of x (n, D).

    A conditional model, with the conditions c (n, C) of these rows, starts with the effect of c outside the code.

    Models of another form are left as they are: the posterior must be a diagonal Gaussian, and the likelihood have a
    learned location and scale. So are those of fewer rows than elements, whose factors would fit the rows exactly.

    Arguments:
        kept: as `Objective.kept`, for objectives that leave out unlikely rows.
    """
    if len(x) < x[0].numel():
        return
    q, p = getattr(model, "posterior", None), getattr(model, "likelihood", None)
    if not (isinstance(q, Conditional) and isinstance(p, Conditional)):
        return
    head = p.head
    while isinstance(head, Masked | CensoredHead):
        head = head.head
    if not isinstance(head, LocationScale) or head.scale not in ("shared", "each", "learned"):
        return
    encoder, decoder = _direct(q.net), _direct(p.net)
    if encoder is None or decoder is None or type(q.head) is not Gaussian or q.head.scale != "learned":
        return
    latent = q.head.event[0]
    found = factors(x, latent, c) if kept is None else kept_factors(x, latent, c, kept)
    bias = torch.cat([-found.inference @ found.mean, raw_of_scale(found.scale)])
    _make_linear(encoder, found.inference / encoder.share, bias, -found.inference @ found.effect / encoder.share)
    sigma = head.scale_of(found.sigma)
    if head.scale == "learned":
        _make_linear(decoder, found.loading, torch.cat([found.mean, raw_of_scale(sigma)]), found.effect)
    else:
        _make_linear(decoder, found.loading, found.mean, found.effect)
        sigma = sigma.square().mean().sqrt() if head.scale == "shared" else sigma
        head.log_scale.data.copy_(raw_of_scale(sigma))


def _direct(net: nn.Module) -> networks.MLP | None:
    """The dense network with a linear path in `net`, if there is one."""
    return next((m for m in net.modules() if isinstance(m, networks.MLP) and m.direct is not None), None)


def _make_linear(net: networks.MLP, weight: Tensor, bias: Tensor, effect: Tensor) -> None:
    """Make `net` a linear map until it is trained: `weight` is that of its first outputs and inputs, others are 0.

    Arguments:
        effect: (outputs, C), the weight of the last C inputs, the condition.
    """
    assert net.direct is not None
    net.out.weight.zero_()
    net.out.bias.copy_(bias)
    net.direct.weight.zero_()
    net.direct.weight[: weight.shape[0], : weight.shape[1]] = weight
    net.direct.weight[: effect.shape[0], net.direct.weight.shape[1] - effect.shape[1] :] = effect

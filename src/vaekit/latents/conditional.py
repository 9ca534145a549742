"""Weighted draws from p(z | x_visible) of a VAE, by importance sampling of the code.

The proposal for each row is a mixture of the prior and of Gaussians near p(z | x_visible). The draws of the prior, and
the standard normals behind all others, are shared by the rows, so that the prior's are decoded once. A model that was
trained with missing values has an encoder for rows with holes. For any other model, the hidden elements are drawn by
pseudo-Gibbs sampling (Rezende et al. 2014, appendix F), which starts at those draws of the prior that fit the row, and
the encoder sees the completed rows. A second round moves a Gaussian to where the weights of the first are (adaptive
multiple importance sampling, Cornuet et al. 2012).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vaekit.densities import LogisticMixture, draw
from vaekit.densities.autoregressive import Autoregressive
from vaekit.densities.drawing import from_noise
from vaekit.densities.mixed import Categories, Marginal, Mixed
from vaekit.errors import ChoiceError
from vaekit.models.vae import VAE
from vaekit.noise import Noise

CHAINS, SWEEPS, KEPT = 8, 4, 3
"""Number of pseudo-Gibbs chains per row, of their sweeps, and of the last sweeps that make up the proposal."""
PRIOR_SHARE = 0.5
"""The share of draws from the prior, which bounds the importance weights; they are decoded once for all rows."""
ROUNDS = 2
"""The number of rounds; each but the first draws from a Gaussian that is adapted to the weights so far."""
TEMPERINGS = 8
"""How often the weights of a row may be tempered for the adaptation."""
WIDER = 1.1
"""The factor of a proposal's standard deviations, because tails that are too short give unbounded weights."""
LEAST_SAMPLES = 8
"""The least number of draws per row: two of the prior, and some of each round."""
SHARED = 1000
"""Added to the key of the noise that all rows share."""
MOMENT_DRAWS = 32
"""The number of draws that measure the moments of a posterior that is not Gaussian."""


class Candidates(NamedTuple):
    """Weighted draws of p(z | x_visible), K per row.

    `z` is (K, B, D) without the condition, `log_weight` (K, B) is normalised over K. `log_px` (B,) estimates
    log p(x_visible), and `effective` (B,) is the effective sample size of the weights.
    """

    z: Tensor
    log_weight: Tensor
    log_px: Tensor
    effective: Tensor


def visible_log_prob(px: Distribution, x: Tensor, visible: Tensor) -> Tensor:
    """log p(x_visible | z), (K?, B): the likelihood of the visible elements, with the hidden ones integrated out.

    Arguments:
        px: p(x | z), whose elements (pixels, for a mixture of logistics) are independent given z.
        x: (B, *event); hidden elements may be any number inside the support.
        visible: bool (B, *event) or (*event).

    Raises:
        ChoiceError: p(x | z) does not factorise, so its marginals are unknown.
    """
    check_factorises(px)
    if isinstance(px, LogisticMixture):
        return px.log_prob(x, visible)
    if isinstance(px, Mixed | Marginal):
        each = px.each(x)
    else:
        assert isinstance(px, Independent)
        each = px.base_dist.log_prob(x)
    return torch.where(visible, each, 0.0).flatten(-len(px.event_shape)).sum(-1)


def check_factorises(px: Distribution) -> None:
    """Check that the marginals of p(x | z) over some elements are known.

    Raises:
        ChoiceError: p(x | z) does not factorise over the elements (pixels, for a mixture of logistics).
    """
    if isinstance(px, Mixed | Marginal | LogisticMixture):
        return
    if not isinstance(px, Independent) or px.base_dist.event_shape:
        columns = isinstance(px, Autoregressive)
        what, which = ("columns", "autoregressive") if columns else ("elements", type(px).__name__)
        remedy = ": fit with `likelihood='mixed'`" if columns else ""
        raise ChoiceError(
            f"drawing values given others, and rows with missing values or new categories, need {what} that are "
            f"independent given z, which those of the likelihood {which} are not{remedy}"
        )


class _Gaussian(NamedTuple):
    """N(mean, factor factor^T) per row: mean (B, D), lower-triangular factor (B, D, D)."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def fitted(cls, mean: Tensor, covariance: Tensor) -> _Gaussian:
        """The Gaussian with a mean and a covariance (B, D, D), `WIDER` than it."""
        jitter = 1e-6 * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        wide = WIDER**2 * covariance + jitter
        factor, failed = torch.linalg.cholesky_ex(wide)
        scale = torch.diag_embed(wide.diagonal(dim1=-2, dim2=-1).sqrt())  # where rounding errors leave it indefinite
        return cls(mean, torch.where(failed[:, None, None] > 0, scale, factor))

    def draw(self, e: Tensor) -> Tensor:
        """Draws (k, B, D) from standard normals e (k, D) that all rows share."""
        return (self.mean[..., None] + self.factor @ e.T).permute(2, 0, 1).contiguous()

    def log_prob(self, z: Tensor) -> Tensor:
        """The log density of z (K, B, D): (K, B)."""
        off = torch.linalg.solve_triangular(self.factor, (z - self.mean).movedim(0, -1), upper=False)  # (B, D, K)
        log_scale = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (-0.5 * off.square().sum(-2) - log_scale[:, None] - 0.5 * off.shape[-2] * math.log(2 * math.pi)).T


def _moments(q: Distribution, noise: Noise) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a posterior, (B, D) each; by draws if it is not Gaussian."""
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.base_dist.loc, q.base_dist.scale
    z = draw(q, noise, MOMENT_DRAWS)
    return z.mean(0), z.std(0)


def _pseudo_gibbs(
    decode: Callable[[Tensor], Distribution],
    encode: Callable[[Tensor], Distribution],
    x: Tensor,
    visible: Tensor,
    start: Tensor,
    noise: Noise,
) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z | x) along chains that redraw the hidden elements, (M, B, D) each."""
    z, means, scales = start, [], []  # (CHAINS, B, D)
    rows = noise.rows.repeat(CHAINS)
    for sweep in range(SWEEPS):
        full = torch.where(visible, x, draw(decode(z), noise))
        q = encode(full.flatten(0, 1))
        mean, scale = (t.unflatten(0, (CHAINS, -1)) for t in _moments(q, Noise(noise.base + 1 + sweep, rows)))
        z = mean + scale * noise.normal((mean.shape[-1],), CHAINS).to(mean.dtype)
        if sweep >= SWEEPS - KEPT:
            means.append(mean)
            scales.append(scale)
    return torch.cat(means), torch.cat(scales)


def _first_proposal(
    model: VAE,
    decode: Callable[[Tensor], Distribution],
    x: Tensor,
    visible: Tensor,
    c: Tensor | None,
    start: Tensor,
    noise: Noise,
) -> _Gaussian:
    """A Gaussian near p(z | x_visible) for a model that was trained on complete rows, by chains from `start`.

    p(z | x_visible) is the mean of p(z | x) over the hidden elements, so its covariance is the mean covariance of
    p(z | x) plus the covariance of its means.
    """

    def encode(rows: Tensor) -> Distribution:
        return model.posterior(rows) if c is None else model.posterior(rows, c.repeat(CHAINS, 1))

    means, scales = _pseudo_gibbs(decode, encode, x, visible, start, noise)
    centre = means.mean(0)
    off = means - centre
    between = torch.einsum("mbi,mbj->bij", off, off) / len(means)
    return _Gaussian.fitted(centre, between + torch.diag_embed(scales.square().mean(0)))


def dtype_of(model: VAE) -> torch.dtype:
    """The dtype of the model's parameters."""
    return next(model.parameters()).dtype


def _tempered(log_weight: Tensor, enough: int) -> Tensor:
    """The normalised weights (K, B), tempered until so many draws count."""
    log_weight = log_weight - log_weight.amax(0)
    for _ in range(TEMPERINGS):
        weight = log_weight.exp()
        few = weight.sum(0).square() < enough * weight.square().sum(0)
        if not bool(few.any()):
            break
        log_weight = torch.where(few, 0.6 * log_weight, log_weight)
    weight = log_weight.exp()
    return weight / weight.sum(0)


def _adapted(before: _Gaussian, z: Tensor, log_weight: Tensor) -> _Gaussian:
    """The Gaussian with the weighted moments of z (K, B, D), shrunk towards `before` where few draws count.

    The weights are tempered until as many draws count as z has dimensions, so that the moments move towards the
    target and do not collapse onto one draw.
    """
    weight = _tempered(log_weight, min(z.shape[-1], len(z) // 4))
    mean = (weight[..., None] * z).sum(0)
    off = (z - mean) * weight.sqrt()[..., None]
    covariance = torch.einsum("kbi,kbj->bij", off, off)
    keep = (z.shape[-1] / (z.shape[-1] + 1 / weight.square().sum(0)))[:, None, None]
    previous = (before.factor @ before.factor.mT) / WIDER**2
    return _Gaussian.fitted(mean, (1 - keep) * covariance + keep * previous)


@torch.no_grad()
def candidates(
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None = None,
    *,
    holes: bool,
    samples: int,
    noise: Noise,
) -> Candidates:
    r"""Weighted draws of p(z | x_visible), whose weighted means tend to expectations under it as K grows.

    The weights are w_k = p(x_visible | z_k) p(z_k) / \sum_j a_j q_j(z_k), where the mixture below the line has the
    densities q_j of all rounds, in the proportions a_j of their draws.

    Arguments:
        x, visible: (B, *event), data and bool; hidden elements of x may be any number inside the support.
        c: (B, C), the condition of a conditional model.
        holes: whether the encoder was trained with missing values, and accepts nan.
        samples: K.
        noise: the random numbers, one row of noise per row of x.

    Raises:
        ChoiceError: `samples` is below `LEAST_SAMPLES`.
    """
    if samples < LEAST_SAMPLES:
        raise ChoiceError(f"`samples` must be {LEAST_SAMPLES} or more, got {samples}")
    prior, dtype = model.prior(), dtype_of(model)

    def shared(draw_: int) -> Noise:
        """Noise of one row, which all rows share."""
        return Noise(noise.base + SHARED + draw_, noise.rows.new_zeros(1))

    def decode(z: Tensor) -> Distribution:
        return model.decode(z if c is None else torch.cat([z.expand(-1, len(c), -1), c.expand(len(z), *c.shape)], -1))

    def log_joint(z: Tensor) -> Tensor:
        return visible_log_prob(decode(z), x, visible) + prior.log_prob(z)

    wide = max(2, round(PRIOR_SHARE * samples))
    each = (samples - wide) // ROUNDS
    z = draw(prior, shared(0), wide).to(dtype)  # (wide, 1, D)
    joint = log_joint(z)
    parts: list[tuple[int, Callable[[Tensor], Tensor]]] = [(wide, prior.log_prob)]
    if holes:
        seen = torch.where(visible, x, torch.nan)
        mean, scale = _moments(model.posterior(seen) if c is None else model.posterior(seen, c), noise)
        gaussian = _Gaussian.fitted(mean, torch.diag_embed(scale.square()))
    else:
        index = resampled(torch.log(_tempered(joint - prior.log_prob(z), CHAINS)), CHAINS, noise)
        start = z[index, 0]  # (CHAINS, B, D)
        gaussian = _first_proposal(model, decode, x, visible, c, start, noise)
    z = z.expand(-1, len(x), -1)
    for round_ in range(ROUNDS):
        n = each if round_ < ROUNDS - 1 else samples - len(z)
        half = shared(1 + round_).normal((z.shape[-1],), (n + 1) // 2)[:, 0].to(dtype)
        more = gaussian.draw(torch.cat([half, -half])[:n])
        parts.append((n, gaussian.log_prob))
        z, joint = torch.cat([z, more]), torch.cat([joint, log_joint(more)])
        if round_ < ROUNDS - 1:
            gaussian = _adapted(gaussian, z, joint - _mixture(parts, z))
    log_weight = joint - _mixture(parts, z)
    log_px = torch.logsumexp(log_weight, 0)
    log_weight = log_weight - log_px
    effective = torch.exp(-torch.logsumexp(2 * log_weight, 0))
    return Candidates(z, log_weight, log_px - math.log(samples), effective)


def _mixture(parts: list[tuple[int, Callable[[Tensor], Tensor]]], z: Tensor) -> Tensor:
    """The log density at z (K, B, D) of the mixture of densities in the proportions of their draws: (K, B)."""
    total = sum(n for n, _ in parts)
    return torch.logsumexp(torch.stack([math.log(n / total) + log_prob(z) for n, log_prob in parts]), 0)


def resampled(log_weight: Tensor, n: int, noise: Noise) -> Tensor:
    """Indices (n, B) into K candidates, drawn with their weights (K, B) by systematic resampling, in random order."""
    weight = log_weight if log_weight.device.type == "mps" else log_weight.double()  # MPS has no float64
    edges = torch.cumsum(weight.exp(), 0).T.contiguous()  # (B, K)
    start = noise.uniform((1,)).to(edges.dtype)
    at = (torch.arange(n, device=edges.device) + start) / n * edges[:, -1:]
    index = torch.searchsorted(edges, at).clamp_max(len(log_weight) - 1).T  # (n, B)
    return index.gather(0, noise.uniform((n,)).argsort(1).T)


def draw_numbers(px: Distribution, noise: Noise) -> Tensor:
    """As `draw`, with 0 in place of the categories and yes/no values of a mixed table, which take the longest."""
    whole = px.whole if isinstance(px, Marginal) else px
    if not isinstance(whole, Mixed):
        return draw(px, noise)
    x = torch.zeros(*whole.batch_shape, *whole.event_shape, device=whole.order.device)
    for which, part in whole.parts:
        if not isinstance(part, Categories | Bernoulli):
            drawn = from_noise(part, noise, (len(which),), whole.batch_shape[0])
            x = x.to(drawn).index_copy(-1, which, drawn)
    return px.put(x) if isinstance(px, Marginal) else x


def averaged(px: Distribution) -> Tensor:
    """The mean (B, *event) of the mixture of M densities (M, B) with equal weights; for categories, the likeliest."""
    whole = px.whole if isinstance(px, Marginal) else px
    if isinstance(whole, Mixed):
        mean = whole.average(torch.full(whole.batch_shape, 1 / whole.batch_shape[0], device=whole.order.device))
    else:
        mean = whole.mean.mean(0)
    return px.put(mean) if isinstance(px, Marginal) else mean

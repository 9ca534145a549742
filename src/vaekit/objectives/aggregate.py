"""The aggregate posterior q(z) = 1/N sum_i q(z | x_i): its density, the parts of the KL, moments, and the MMD."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal

from vaekit.densities.flows import exact
from vaekit.densities.special import log_sum_exp
from vaekit.heads.posteriors import FullNormal
from vaekit.models.vae import Latent


def factorises(q: Distribution) -> bool:
    """Whether q is a product over the latent dimensions: one-dimensional densities wrapped in `Independent`."""
    return isinstance(q, Independent) and not q.base_dist.event_shape


def stratified_log_weights(rows: int, n: int, like: Tensor) -> Tensor:
    """Logarithms of w_ij, the weight of q(z_i | x_j) in the estimate of q(z_i) from a batch: (B, B).

    For n examples, the one that z_i was sampled from has weight 1/n, and the B - 1 others of the batch represent the
    n - 1 others of the data: 1/n on the diagonal, (n - 1) / (n (B - 1)) off it. This is the stratified estimate of Chen
    et al. (2018, appendix C), averaged over the choice of the example with the special weight. Rows sum to one for any
    B and n; a batch of one has weight one.
    """
    if rows == 1:
        return torch.zeros(1, 1, dtype=like.dtype, device=like.device)
    others = math.log((n - 1) / (n * (rows - 1))) if n > 1 else -math.inf
    diagonal = torch.eye(rows, dtype=torch.bool, device=like.device)
    weights = torch.full((rows, rows), others, dtype=like.dtype, device=like.device)
    return weights.masked_fill(diagonal, -math.log(n))


class Densities(NamedTuple):
    """Log-densities at the sample z_i of each example of a batch, with D latents."""

    given: Tensor  # log q(z | x), (B,)
    joint: Tensor  # log q(z), (B,)
    each: Tensor  # log q(z_j) of every dimension, (B, D)


def aggregate_densities(latent: Latent, n: int) -> Densities:
    r"""log q(z) and log q(z_j) for n examples, estimated from the batch.

    log q(z_i) = log sum_j w_ij prod_d q(z_id | x_j) and log q(z_id) = log sum_j w_ij q(z_id | x_j), with the weights
    inside each sum. The densities (not their logarithms) are unbiased over batches of B different examples, and exact
    for B = n.

    Arguments:
        latent: samples (B, *event), one per example, of a posterior that `factorises`. Memory is O(B^2 D).
        n: number of examples in the aggregate posterior.
    """
    q = latent.q
    assert isinstance(q, Independent)
    pairs = q.base_dist.log_prob(latent.z.unsqueeze(1)).flatten(2)  # (B, B, D): log q(z_id | x_j)
    weights = stratified_log_weights(len(pairs), n, pairs)
    whole = pairs.sum(-1)
    joint = log_sum_exp(weights + whole, 1)
    each = log_sum_exp(weights.unsqueeze(-1) + pairs, 1)
    return Densities(whole.diagonal(), joint, each)


class Split(NamedTuple):
    """The parts of log q(z | x) - log p(z), each (B,); their means over examples are the named quantities."""

    information: Tensor  # log q(z | x) - log q(z): the mutual information of example and code
    correlation: Tensor  # log q(z) - sum_j log q(z_j): the total correlation
    dimensions: Tensor  # sum_j log q(z_j) - log p(z): the KL of each dimension, summed


def split_rate(latent: Latent, n: int) -> Split:
    """Mutual information, total correlation and dimension-wise KL for n examples, from the batch (Chen et al. 2018).

    If the prior does not factorise, the last part is KL(q(z) || p(z)) minus the total correlation.
    """
    given, joint, each = aggregate_densities(latent, n)
    product = each.sum(-1)
    return Split(given - joint, joint - product, product - latent.log_p)


def covariance(values: Tensor) -> Tensor:
    """The unbiased covariance (D, D) of rows (B, D); zero for one row."""
    with exact(values):  # mixed precision would round the product to 8 bits
        centred = values - values.mean(0)
        return centred.T @ centred / max(len(values) - 1, 1)


def posterior_mean(q: Distribution) -> Tensor:
    """The mean of q(z | x) of each example, (B, D).

    Raises:
        ValueError: it has no closed form, as for a flow.
    """
    if not factorises(q) and not isinstance(q, MultivariateNormal | FullNormal):
        raise ValueError(f"the mean of {type(q).__name__} has no closed form")
    return q.mean.flatten(1)


def posterior_covariance(q: Distribution) -> Tensor:
    """E_x of the covariance of q(z | x), (D, D).

    Raises:
        ValueError: it has no closed form.
    """
    if isinstance(q, MultivariateNormal | FullNormal):
        with exact(q.mean):
            return q.covariance_matrix.mean(0)
    if not factorises(q):
        raise ValueError(f"the covariance of {type(q).__name__} has no closed form")
    return torch.diag(q.variance.flatten(1).mean(0))


def inverse_multiquadratic(square: Tensor, width: Tensor) -> Tensor:
    """k = C / (C + |a - b|^2)."""
    return width / (width + square)


def gaussian(square: Tensor, width: Tensor) -> Tensor:
    """k = exp(-|a - b|^2 / C)."""
    return torch.exp(-square / width)


KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"imq": inverse_multiquadratic, "gaussian": gaussian}
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(
    a: Tensor,
    b: Tensor,
    kernel: Callable[[Tensor, Tensor], Tensor] = inverse_multiquadratic,
) -> Tensor:
    r"""The unbiased squared maximum mean discrepancy of two samples, a scalar; it can be negative.

    mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_ij k(a_i, b_j) (Gretton et al. 2012). The kernel k is
    the mean of kernels whose widths C are `SCALES` times 2 D, the expected |a - b|^2 of two samples of N(0, I). No row
    is paired with itself, except in a sample of one row, for which the estimate is too large.

    Arguments:
        a, b: samples (B, D), (M, D).
        kernel: of squared distance and width, at most 1.
    """

    widths = 2 * a.shape[1] * torch.tensor(SCALES, dtype=a.dtype, device=a.device)[:, None, None]
    centre = b.mean(0).detach()  # distances do not depend on it, but their rounding errors do
    a, b = a - centre, b - centre

    def mean(x: Tensor, y: Tensor, paired: bool) -> Tensor:
        with exact(x):
            lengths = x.square().sum(-1, keepdim=True) + y.square().sum(-1)
            square = torch.addmm(lengths, x, y.T, alpha=-2).clamp_min(0)  # (B, M)
        values = kernel(square, widths).mean(0)
        if not paired or len(x) == 1:
            return values.mean()
        return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)

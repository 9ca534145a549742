r"""log p(x) of many data by quadrature on one grid of the latents, for models with at most three of them.

log p(x) = log \int p(z) p(x | z) dz by the trapezoidal rule on a regular grid (see `vaekit.toys.Quadrature`). All data
share the nodes, so each node is decoded once. For Bernoulli pixels with logits W h(z) + b,

    log p(x | z) = (W^T x) . h(z) + b . x + log p(0 | z),

so that a node costs a datum only as many multiplications as the last hidden layer is wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.heads import Bernoulli, Conditional
from vaekit.models.vae import VAE
from vaekit.networks import MLP

AT_ONCE = 4_000_000
"""The number of values of log p(x, z), or of x, in memory at once."""


SHIFTS = ((0.5, 0.5, 0.5), (0.5, 0.25, 0.0))
"""Shifts of the nodes, as shares of a step, that show the error of the rule.

The error of the trapezoidal rule is a sum over waves with k_i cycles per step in dimension i (Trefethen and Weideman
2014); a shift s multiplies the part of k by cos(2 pi k.s). The first shift changes the sign of the parts with one or
three k_i of 1 or -1 and the others 0, and the second takes those with two away, or changes their sign.
"""


class Integral(NamedTuple):
    """log p(x) of each datum, and the share of its integral within a step of the surface of the ball: (N,), float64."""

    log_px: Tensor
    edge: Tensor


@torch.no_grad()
def integrate(model: VAE, x: Tensor, points: int, reach: float, shift: Sequence[float] = ()) -> Integral:
    """log p(x) of the data x (N, *event) on the nodes of a grid of points^D nodes that lie in the ball |z| <= reach.

    Arguments:
        points: nodes per dimension on [-reach, reach].
        reach: the radius of the ball.
        shift: moves all nodes by this share of a step in each dimension; see `SHIFTS`.
    """
    dims, step = model.prior().event_shape.numel(), 2 * reach / (points - 1)
    dtype = next(model.parameters()).dtype
    side = torch.linspace(-reach, reach, points, dtype=dtype)
    offset = step * torch.tensor((*shift, *[0.0] * dims)[:dims], dtype=dtype)
    log_px, numbers = _log_px(model, x)
    rows = max(1, AT_ONCE // numbers)
    plane = torch.cartesian_prod(*[side] * (dims - 1)).reshape(-1, dims - 1) if dims > 1 else side.new_zeros(1, 0)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    edge = total.clone()
    for place in side:
        block = torch.cat([place.expand(len(plane), 1), plane], 1)
        radius = torch.linalg.vector_norm(block, dim=1)
        inside = radius <= reach * (1 + 1e-6)
        if not bool(inside.any()):
            continue
        for z, far in zip(block[inside].split(rows), (radius > reach - step)[inside].split(rows), strict=True):
            nodes = z + offset
            log_f = log_px(nodes) + model.prior().log_prob(nodes)[:, None]  # (M, N)
            total = torch.logaddexp(total, torch.logsumexp(log_f, 0).double())
            edge = torch.logaddexp(edge, torch.logsumexp(log_f[far], 0).double())
    return Integral(total + dims * math.log(step), torch.exp(edge - total))


def _log_px(model: VAE, x: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """A function of nodes z (M, D) that returns log p(x | z), (M, N), and the values that it computes per node."""
    likelihood, flat = model.likelihood, x.flatten(1)
    if isinstance(likelihood, Conditional) and isinstance(likelihood.head, Bernoulli):
        net, nothing = likelihood.net, torch.zeros_like(x[0])
        if isinstance(net, MLP) and net.direct is None and net.share == 1:
            features, constant = flat @ net.out.weight, flat @ net.out.bias  # (N, H), (N,)

            def by_features(z: Tensor) -> Tensor:
                h = net.hidden(z)
                return h @ features.T + constant + likelihood.head(net.out(h)).log_prob(nothing)[:, None]

            return by_features, max(flat.shape)
    return lambda z: model.decode(z[:, None]).log_prob(x), x.numel()


def error(model: VAE, x: Tensor, points: int, reach: float, log_px: Tensor) -> Tensor:
    """The approximate absolute error of `log_px` (N,), the result of `integrate` without a shift, by `SHIFTS`: (N,)."""
    half, quarter = (integrate(model, x, points, reach, shift).log_px for shift in SHIFTS)
    return torch.maximum((half - log_px).abs() / 2, (quarter - log_px).abs())

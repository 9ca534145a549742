r"""log p(x) as an integral over up to three latents, by the trapezoidal rule on a grid for each datum.

The grid lies in the coordinates u of z = m + L u, where m and L L^T are the moments of the flattened posterior, which
is the posterior raised to the power 1/4: twice as wide for a Gaussian, and modes with little mass count for more. They
are found on a row of grids. The first one covers the prior; on it the power is so low that the weights spread over
several nodes, so that narrow modes are seen; the next grids are at the moments of the one before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.noise import Key, Noise

from .target import Target

MOST_LATENTS = 3
POINTS = {1: (257, 193), 2: (129, 97), 3: (33, 25)}
"""Nodes per side of the final grid and of a coarser one, for the estimate of the error."""
FINER: dict[int, tuple[int, ...]] = {1: (1025, 4097), 2: (257, 513), 3: (49,)}
"""Nodes per side of further grids, for data whose error is above `TOLERANCE`."""
TOLERANCE = 1e-3
REACH = 6.0
"""Half the side of a grid in standard deviations."""
POWER = 0.25
"""The power of the posterior whose moments place the grid."""
ROUNDS = 25


class Integral(NamedTuple):
    """log p(x) with an estimate of its error, each (B,), float64.

    The error is the change from a coarser grid plus the share of the integral at the edge; infinite if the grids did
    not settle, or if an earlier one has seen a mode that the last one misses.
    """

    log_px: Tensor
    error: Tensor


def integrate(target: Target, *, at_once: int = 4096) -> Integral:
    """log p(x) of each datum by quadrature.

    Arguments:
        at_once: the number of codes that are decoded at once.

    Raises:
        ChoiceError: more than three latents.
    """
    if target.dims > MOST_LATENTS:
        raise ChoiceError(f"quadrature is for at most {MOST_LATENTS} latents, and this model has {target.dims}")
    fine, coarse = POINTS[target.dims]
    mean, factor = _prior_moments(target)
    u, _ = _grid(target.dims, coarse, target.x.device)
    highest = torch.full_like(mean[:, 0], -math.inf)
    before = highest
    for _ in range(ROUNDS):
        log_f = _on_grid(target, mean, factor, u, at_once)
        highest = torch.maximum(highest, log_f.max(0).values)
        power = _flattening(log_f, 4**target.dims)
        now = torch.where(power < POWER, -math.inf, _sum(log_f, factor, coarse, target.dims))
        settled = (now - before).abs() < 1e-3
        if bool(settled.all()):
            break
        mean, factor = _moments(mean, factor, u, torch.softmax(power * log_f, 0))
        before = now
    log_px = _sum(log_f, factor, coarse, target.dims)
    error = torch.full_like(log_px, math.inf)
    for points in (fine, *FINER[target.dims]):
        rows = torch.nonzero(settled & (error > TOLERANCE))[:, 0]
        if not len(rows):
            break
        u, edge = _grid(target.dims, points, target.x.device)
        log_f = _on_grid(target.of_rows(rows), mean[rows], factor[rows], u, at_once)
        value = _sum(log_f, factor[rows], points, target.dims)
        change = (value - log_px[rows]).abs() + torch.softmax(log_f, 0)[edge].sum(0)
        lost = highest[rows] > log_f.max(0).values + 1  # a mode that an earlier grid has seen
        log_px[rows], error[rows] = value, torch.where(lost, math.inf, change)
    return Integral(log_px, error)


def _prior_moments(target: Target) -> tuple[Tensor, Tensor]:
    """Mean (B, D) and triangular factor (B, D, D) of the prior, from draws."""
    z = draw(target.prior, Noise.of(0, 1024, Key.EVALUATE, device=target.x.device)).double()
    covariance = torch.cov(z.T).reshape(target.dims, target.dims)
    factor = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(target.dims, dtype=z.dtype, device=z.device))
    n = len(target.x)
    return z.mean(0).expand(n, -1), factor.expand(n, -1, -1)


def _grid(dims: int, points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The nodes u (M, D) and whether each lies on the boundary (M,)."""
    side = torch.linspace(-REACH, REACH, points, dtype=torch.float64, device=device)
    u = torch.cartesian_prod(*[side] * dims).reshape(-1, dims)
    return u, (u.abs() >= REACH - 1e-9).any(-1)


def _on_grid(target: Target, mean: Tensor, factor: Tensor, u: Tensor, at_once: int) -> Tensor:
    """log p(x, z) at the nodes of each datum, (M, B), float64."""
    dtype = next(target.model.parameters()).dtype
    with torch.no_grad():
        parts = []
        for part in u.split(max(1, at_once // len(mean))):
            z = mean + torch.einsum("bij,mj->mbi", factor, part)
            parts.append(target.log_joint(z.to(dtype)).double())
        return torch.cat(parts).nan_to_num(-math.inf)


def _sum(log_f: Tensor, factor: Tensor, points: int, dims: int) -> Tensor:
    """The log of the integral on a grid with this many points per side, (B,)."""
    width = 2 * REACH / (points - 1)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + dims * math.log(width)
    return torch.logsumexp(log_f, 0) + volume


def _flattening(log_f: Tensor, nodes: int) -> Tensor:
    """The largest power up to `POWER` at which each datum's weights spread over this many nodes, (B,)."""
    low, high = torch.full_like(log_f[0], -9.0), torch.full_like(log_f[0], math.log10(POWER))
    wide = _spread(log_f, 10**high) >= nodes
    for _ in range(16):
        middle = (low + high) / 2
        narrow = _spread(log_f, 10**middle) < nodes
        low, high = torch.where(narrow, low, middle), torch.where(narrow, middle, high)
    return torch.where(wide, POWER, 10**low)


def _spread(log_f: Tensor, power: Tensor) -> Tensor:
    """The effective number of nodes 1 / sum p^2."""
    return 1 / torch.softmax(power * log_f, 0).square().sum(0)


def _moments(mean: Tensor, factor: Tensor, u: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and factor of weights (M, B) on the nodes u of grids at `mean` and `factor`."""
    centre = torch.einsum("mb,md->bd", weights, u)
    second = torch.einsum("mb,mi,mj->bij", weights, u, u) - centre[:, :, None] * centre[:, None]
    inner = torch.linalg.cholesky(second + 1e-9 * torch.eye(u.shape[-1], dtype=u.dtype, device=u.device))
    return mean + torch.einsum("bij,bj->bi", factor, centre), factor @ inner

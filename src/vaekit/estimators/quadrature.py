r"""log p(x) as an integral over up to three latents, by the trapezoidal rule on a grid for each datum.

The grid lies in the coordinates u of z = m + L u, where m and L L^T are the moments of the flattened posterior, which
is the posterior raised to the power 1/4: twice as wide for a Gaussian, and modes with little mass count for more. They
are found on a row of grids. The first one covers the prior; on it the power is so low that the weights spread over
several nodes, so that narrow modes are seen; the next grids are at the moments of the one before. Where they do not
settle, because the posterior lies outside the first grid or is too narrow for it, they start again at q(z | x), and
then at the mode that Newton's method finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
EXACT = 0.01
"""The largest error in nats with which a result counts as exact; other data are integrated from other grids."""
VALUES = 4_000_000
"""Values of log p(x, z) that are held at once."""
REACH = 6.0
"""Half the side of a grid in standard deviations."""
POWER = 0.25
"""The power of the posterior whose moments place the grid."""
ROUNDS, NEWTON = 25, 50
"""Grids of an attempt, and steps of Newton's method."""


class Integral(NamedTuple):
    """log p(x) with an estimate of its error, each (B,), float64.

    The error is the change from a coarser grid plus the share of the integral at the edge; infinite if the grids did
    not settle, or if an earlier one has seen a mode that the last one misses. A log p(x) whose error is above `EXACT`
    must not be used.
    """

    log_px: Tensor
    error: Tensor


class _Found(NamedTuple):
    """An `Integral`, and the highest log p(x, z) that was seen (B,) with its z (B, D)."""

    log_px: Tensor
    error: Tensor
    highest: Tensor
    best: Tensor


def integrate(target: Target, *, at_once: int = 4096) -> Integral:
    """log p(x) of each datum by quadrature.

    Arguments:
        at_once: the number of codes that are decoded at once.

    Raises:
        ChoiceError: more than three latents.
    """
    if target.dims > MOST_LATENTS:
        raise ChoiceError(f"quadrature is for at most {MOST_LATENTS} latents, and this model has {target.dims}")
    size = min(at_once, VALUES // POINTS[target.dims][1] ** target.dims)
    found = [_settle(part, at_once) for part in _parts(target, size)]
    return Integral(*(torch.cat(values) for values in zip(*found, strict=True)))


def _parts(target: Target, size: int) -> Iterator[Target]:
    """Blocks of at most `size` data, or of one."""
    n = len(target.x)
    if size >= n:
        yield target
        return
    for rows in torch.arange(n, device=target.x.device).split(max(size, 1)):
        yield target.of_rows(rows)


def _settle(target: Target, at_once: int) -> Integral:
    """log p(x) from grids that start at the prior, and where these fail, at q and at the mode."""
    nowhere = torch.full((len(target.x),), -math.inf, dtype=torch.float64, device=target.x.device)
    mean, factor = _prior_moments(target)
    log_px, error, highest, best = _from(target, mean, factor, nowhere, mean, at_once)
    for start in (_at_q, _at_mode):
        rows = torch.nonzero(error > EXACT)[:, 0]
        if not len(rows):
            break
        part = target.of_rows(rows)
        again = _from(part, *start(part, best[rows]), highest[rows], best[rows], at_once)
        # a result that is below an earlier one misses a part of the integral
        better = (again.error < error[rows]) & (~error[rows].isfinite() | (again.log_px > log_px[rows] - error[rows]))
        log_px[rows] = torch.where(better, again.log_px, log_px[rows])
        error[rows] = torch.where(better, again.error, error[rows])
        highest[rows], best[rows] = again.highest, again.best
    return Integral(log_px, error)


def _from(target: Target, mean: Tensor, factor: Tensor, highest: Tensor, best: Tensor, at_once: int) -> _Found:
    """log p(x) from a first grid at `mean` and `factor`; `highest` and `best` are those of earlier attempts."""
    fine, coarse = POINTS[target.dims]
    u, _ = _grid(target.dims, coarse, target.x.device)
    before = torch.full_like(highest, -math.inf)
    for _ in range(ROUNDS):
        log_f = _on_grid(target, mean, factor, u, at_once)
        top, place = log_f.max(0)
        best = torch.where((top > highest)[:, None], mean + torch.einsum("bij,bj->bi", factor, u[place]), best)
        highest = torch.maximum(highest, top)
        power = _flattening(log_f, 4**target.dims)
        now = torch.where(power < POWER, -math.inf, _sum(log_f, factor, coarse, target.dims))
        settled = (now - before).abs() < 1e-3
        if bool(settled.all()):
            break
        weights = torch.softmax(power * log_f, 0).nan_to_num(1 / len(u))
        mean, factor = _moments(mean, factor, u, weights)
        before = now
    log_px = _sum(log_f, factor, coarse, target.dims)
    error = torch.full_like(log_px, math.inf)
    for points in (fine, *FINER[target.dims]):
        wanted = torch.nonzero(settled & (error > TOLERANCE))[:, 0]
        if not len(wanted):
            break
        u, edge = _grid(target.dims, points, target.x.device)
        for rows in wanted.split(max(1, VALUES // len(u))):
            log_f = _on_grid(target.of_rows(rows), mean[rows], factor[rows], u, at_once)
            value = _sum(log_f, factor[rows], points, target.dims)
            change = (value - log_px[rows]).abs() + torch.softmax(log_f, 0)[edge].sum(0)
            lost = highest[rows] > log_f.max(0).values + 1  # a mode that an earlier grid has seen
            log_px[rows], error[rows] = value, torch.where(lost, math.inf, change).nan_to_num(math.inf)
    return _Found(log_px, error, highest, best)


def _at_q(target: Target, best: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and factor of q(z | x)."""
    noise = Noise.of(0, len(best), Key.EVALUATE, device=best.device)
    with torch.no_grad():
        mean, scale = target.moments(target.q, draw(target.q, noise, 256))
    return mean.double(), torch.diag_embed(scale.double())


def _at_mode(target: Target, best: Tensor) -> tuple[Tensor, Tensor]:
    """The mode of the posterior near `best` (B, D), and the factor of the inverse curvature there.

    Newton's method with the damping of Levenberg and Marquardt; each datum keeps a step only if it rises.
    """
    z, damping = best, torch.ones_like(best[:, 0])
    value, slope, curvature = _derivatives(target, z)
    for _ in range(NEWTON):
        lengths, axes = torch.linalg.eigh(curvature)
        along = torch.einsum("bij,bi->bj", axes, slope) / (lengths.abs() + damping[:, None])
        there = z + torch.einsum("bij,bj->bi", axes, along)
        new = _derivatives(target, there)
        rises = new[0] > value
        z = torch.where(rises[:, None], there, z)
        value, slope = torch.where(rises, new[0], value), torch.where(rises[:, None], new[1], slope)
        curvature = torch.where(rises[:, None, None], new[2], curvature)
        damping = torch.where(rises, damping / 10, damping * 10).clamp(1e-12, 1e12)
    lengths, axes = torch.linalg.eigh(curvature)
    covariance = torch.einsum("bij,bj,bkj->bik", axes, 1 / lengths.abs().clamp_min(0.01), axes)
    return z, torch.linalg.cholesky(covariance)


def _derivatives(target: Target, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x, z) at z (B, D), its gradient, and minus its second derivatives (B, D, D), finite and float64."""
    dtype = next(target.model.parameters()).dtype
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = target.log_joint(z.to(dtype)[None])[0].double()
        slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
        rows = [torch.autograd.grad(s.sum(), z, retain_graph=True)[0] for s in slope.unbind(1)]
    curvature = -torch.stack(rows, 1).nan_to_num(0.0)
    symmetric = (curvature + curvature.mT) / 2
    return value.detach().nan_to_num(-math.inf), slope.detach().nan_to_num(0.0), symmetric


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

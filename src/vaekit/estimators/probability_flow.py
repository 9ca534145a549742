r"""log p(x) of a model that moves noise to data along dx/dt = v(x, t).

Along a path, log p changes by -div v (Chen et al. 2018, arXiv:1806.07366), so that for the noise x_0 of a datum x_1

    log p(x_1) = log N(x_0; 0, I) - \int_0^1 div v(x_t, t) dt.

The divergence is the trace of the Jacobian of v: exact for a few dimensions, above that Hutchinson's estimate
u^T (dv/dx) u for random signs u (Grathwohl et al. 2019, arXiv:1810.01367), which is unbiased.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.models.probability_flow import Field, runge_kutta
from vaekit.noise import Noise

EXACT = 32
"""The largest number of dimensions whose divergence is exact by default."""


class PathIntegral(NamedTuple):
    """log p of each row in nats, and its errors, (n,) each.

    `solver_error` estimates the size of the error of the solver, from a solution with half the steps. `probe_se` is the
    standard error of Hutchinson's estimate; 0 for an exact divergence.
    """

    log_prob: Tensor
    solver_error: Tensor
    probe_se: Tensor


def _divergence(field: Field, t: Tensor, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """v (B, D), and u^T (dv/dx) u for each of the directions u (K, B, D): (K, B)."""

    def along(u: Tensor) -> tuple[Tensor, Tensor]:
        v, slope, *_ = torch.func.jvp(lambda at: field(at, t), (x,), (u,))
        return v, (u * slope).sum(-1)

    v, slopes = torch.func.vmap(along, out_dims=(None, 0))(directions)  # type: ignore[arg-type]  # v is not mapped
    return v, slopes


@torch.no_grad()
def path_log_prob(
    field: Field, x: Tensor, *, steps: int = 20, probes: int | None = None, noise: Noise | None = None
) -> PathIntegral:
    """log p(x) by Runge-Kutta's method of order 4.

    Arguments:
        field: the velocity.
        x: (n, D).
        steps: number of steps, an even number; the solution is compared with that of half of them.
        probes: number of random directions of Hutchinson's estimate; None for the exact divergence.
        noise: random numbers of the directions, one row per row of x.
    """
    n, dims = x.shape
    if probes is None:
        u = torch.eye(dims, dtype=x.dtype, device=x.device)[:, None].expand(dims, n, dims)
    else:
        noise = noise or Noise.of(0, n, device=x.device)
        u = torch.where(noise.bits((dims,), probes) < 0, -1.0, 1.0).to(x.dtype)

    def solved(steps: int) -> Tensor:
        """log p by each direction, or by all of them if they are the axes: (K, n)."""
        columns = 1 if probes is None else probes

        def both(state: Tensor, t: Tensor) -> Tensor:
            v, slopes = _divergence(field, t, state[:, :dims], u)
            return torch.cat([v, (slopes.sum(0, keepdim=True) if probes is None else slopes).T], -1)

        state = runge_kutta(both, torch.cat([x, x.new_zeros(n, columns)], -1), 1.0, 0.0, steps)
        start = -0.5 * state[:, :dims].double().square().sum(-1) - 0.5 * dims * math.log(2 * math.pi)
        return start + state[:, dims:].double().T

    fine, coarse = solved(steps), solved(max(1, steps // 2))
    value = fine.mean(0)
    se = fine.std(0) / math.sqrt(len(fine)) if len(fine) > 1 else torch.zeros_like(value)
    if probes == 1:
        se = torch.full_like(value, math.nan)
    return PathIntegral(value, (value - coarse.mean(0)).abs() / 15, se)  # the error falls as steps^-4: 2^4 - 1

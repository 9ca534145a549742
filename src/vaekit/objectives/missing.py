"""The expected log p(x) or ELBO of a row, given which of its values are missing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_INDICATORS = 100
"""With more elements than this, the expectation depends only on the number of values that are present."""
ITERATIONS = 10
HUBER, TO_SIGMA = 2.0, 1.4826
"""The bound of a residual in standard deviations, and the ratio of these to the median absolute residual."""
WEAK, RIDGE = 0.1, 1.0
"""The ridge penalties for the mean and for the log of the scale. If only one row lacks a value, this explains at most
HUBER / WEAK standard deviations of its residual, so a row that is far more unusual remains unusual."""


class Expected(NamedTuple):
    """A robust linear regression of figures (n,) on the indicators of the values that are present; float64.

    Attributes:
        effect: (1 + D,) the constant, and the effect of each value that is present.
        residual: (n,) the figures minus their expectation.
        bounded: (n,) the residuals, those of outliers reduced to HUBER standard deviations.
        x: (n, D') the centred indicators, or (n, 1) their scaled sum.
        inverse: (D', D') the inverse of x' x + RIDGE.
    """

    effect: Tensor
    residual: Tensor
    bounded: Tensor
    x: Tensor
    inverse: Tensor


def regression(present: Tensor, figures: Tensor) -> Expected:
    """The regression by Huber's M-estimator for rows with these values `present`, bool (n, D).

    The influence of each row is bounded, so outliers hardly change the expectation.
    """
    y, there = figures.double(), present.double()
    dims = there.shape[1]
    design = there if dims <= MOST_INDICATORS else there.sum(1, keepdim=True) / dims**0.5
    x = design - design.mean(0)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    with_constant = torch.nn.functional.pad(x, (1, 0), value=1.0)
    weak = WEAK * torch.nn.functional.pad(eye, (1, 0, 1, 0))  # the constant is not penalised
    residual = y - y.median()
    for _ in range(ITERATIONS):  # least squares with weights
        size = residual.abs()
        weight = (HUBER * TO_SIGMA * size.median() / size.clamp_min(1e-300)).clamp_max(1.0)
        weighted = with_constant.T * weight
        known = torch.linalg.solve(torch.addmm(weak, weighted, with_constant), weighted @ y)
        residual = torch.addmv(y, with_constant, known, alpha=-1)
    middle, slope = known[0], known[1:]
    bound = HUBER * TO_SIGMA * residual.abs().median()
    bounded = torch.minimum(torch.maximum(residual, -bound), bound)
    inverse = torch.linalg.inv(x.T @ x + RIDGE * eye)
    constant = middle - design.mean(0) @ slope
    effect = slope if dims <= MOST_INDICATORS else (slope / dims**0.5).expand(dims)
    return Expected(torch.cat([constant[None], effect]), residual, bounded, x, inverse)


def expected(present: Tensor, figures: Tensor) -> tuple[Tensor, Tensor]:
    """The expectation and the scale of the figures (n,) of rows with these values `present`, bool (n, D): (n,) each.

    Both are learned from these rows: the expectation by `regression`, and the log of the scale by a ridge regression of
    the log absolute residuals.
    """
    if figures.device.type == "mps":  # which has no float64
        centre, scale = expected(present.cpu(), figures.cpu())
        return centre.float().to(figures.device), scale.float().to(figures.device)
    found = regression(present, figures)
    sizes = found.residual.abs()
    logs = sizes.clamp_min(1e-3 * sizes.median() + 1e-12).log()
    scale = torch.exp(logs.mean() + found.x @ (found.inverse @ (found.x.T @ (logs - logs.mean()))))
    return figures.double() - found.residual, scale

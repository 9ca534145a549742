"""What the ELBO of a row is expected to be given which of its values are missing: fewer values, another ELBO."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_INDICATORS = 100
"""With more elements than this, the expectation depends only on the number of values that are present."""
ITERATIONS = 10
HUBER, TO_SIGMA = 2.0, 1.4826
"""The bound of a residual in standard deviations, and the factor from the median of its size to one of them."""
WEAK, RIDGE = 0.1, 1.0
"""The ridges of the mean and of the log of the scale. One row that lacks a value explains at most HUBER / WEAK standard
deviations by it, so a row that is far more unusual remains unusual."""


def expected(present: Tensor, figures: Tensor) -> tuple[Tensor, Tensor]:
    """The expectation and the scale of the figures (n,) of rows with these values `present`, bool (n, D): (n,) each.

    Both are learned from the same rows: the expectation is linear in the indicators of the values that are present, by
    Huber's M-estimator, and so is the log of the scale. Outliers among the rows hardly influence them.
    """
    y, there = figures.double(), present.double()
    design = there if there.shape[1] <= MOST_INDICATORS else there.mean(1, keepdim=True)
    x = design - design.mean(0)
    inverse = torch.linalg.inv(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device))
    middle, slope, residual = y.median(), x.new_zeros(x.shape[1]), y
    for _ in range(ITERATIONS):
        residual = y - middle - x @ slope
        bound = HUBER * TO_SIGMA * residual.abs().median()
        bounded = torch.minimum(torch.maximum(residual, -bound), bound)
        slope = slope + inverse @ (x.T @ bounded - WEAK * slope)
        middle = middle + bounded.mean()
    sizes = residual.abs()
    logs = sizes.clamp_min(1e-3 * sizes.median() + 1e-12).log()
    scale = torch.exp(logs.mean() + x @ (inverse @ (x.T @ (logs - logs.mean()))))
    return y - residual, scale

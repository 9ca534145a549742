"""The kernel distance of two samples (KID): the unbiased squared maximum mean discrepancy of a cubic kernel.

Bińkowski et al. (2018), arXiv:1801.01401, by the estimator of Gretton et al. (2012):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),
    k(x, y) = (x . y / D + 1)^3.

It compares the first three moments of the features, and its expectation does not depend on the number of data.
"""

from __future__ import annotations

import numpy as np
import torch

from .blocks import Blocked, Estimate, jackknife
from .nearest import chunks


def kernel_sums(a: Blocked, b: Blocked) -> np.ndarray:
    """The sums of k(x, y) over each pair of blocks, (A, B) float64."""
    member = torch.zeros(len(b), b.count)
    member[torch.arange(len(b)), torch.from_numpy(b.code)] = 1
    sums = np.zeros((a.count, b.count))
    for rows in chunks(len(a), len(b)):
        base = torch.addmm(torch.ones(1), a.x[rows], b.x.T, alpha=1 / a.x.shape[1])
        np.add.at(sums, a.code[rows], (base.square().mul_(base) @ member).double().numpy())
    return sums


def _within(rows: Blocked) -> np.ndarray:
    """The sums of k(x, x') over pairs of different rows of each pair of blocks."""
    sums = kernel_sums(rows, rows)
    own = ((rows.x.double().square().sum(1) / rows.x.shape[1] + 1) ** 3).numpy()
    sums[np.diag_indices(rows.count)] -= np.bincount(rows.code, own, rows.count)
    return sums


def kernel_distance(real: Blocked, samples: Blocked) -> Estimate:
    """The unbiased squared MMD of two sets of features, with the error of the jackknife over blocks.

    It may be negative by chance if the distributions are equal.
    """
    xx, yy, xy = _within(real), _within(samples), kernel_sums(real, samples)
    n, m = len(real), len(samples)
    of_x, of_y, cross = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1)), xy.sum() / (n * m)

    def left(within: np.ndarray, rows: Blocked) -> np.ndarray:
        fewer = len(rows) - rows.sizes
        return (within.sum() - 2 * within.sum(1) + np.diag(within)) / np.maximum(fewer * (fewer - 1), 1)

    without_x = left(xx, real) + of_y - 2 * (xy.sum() - xy.sum(1)) / ((n - real.sizes) * m)
    without_y = of_x + left(yy, samples) - 2 * (xy.sum() - xy.sum(0)) / (n * (m - samples.sizes))
    return jackknife(float(of_x + of_y - 2 * cross), without_x, without_y)

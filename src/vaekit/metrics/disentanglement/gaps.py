"""Two versions of the mutual information gap, MIG, which must not be mixed.

They differ in codes, estimator and factors counted: disentanglement_lib (Locatello et al. 2019) reports `mig_lib`, and
the paper defines `mig_chen`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

from .information import BINS, Score, binned, checked, mutual_information, shares

Array = NDArray[Any]
GRID = 6000  # maximum number of grid points for integrating the density of one latent
CELLS = 50_000_000  # maximum number of values of all factors times points: 400 MB
REACH = 6.0  # standard deviations beyond the outermost code


def gap(matrix: Array, *, second: float | Array = 0.0) -> Score:
    """The mean over factors of the largest minus the second largest number of a matrix (D, F).

    Arguments:
        second: the second largest number if there is only one latent.
    """
    if len(matrix) == 1:
        each = matrix[0] - second
    else:
        ordered = np.sort(matrix, 0)
        each = ordered[-1] - ordered[-2]
    return Score(float(each.mean()), each, matrix)


@formerly("bins")
def mig_lib(means: Array, factors: Array, *, bins: int = BINS) -> Score:
    """The mutual information gap of posterior means in bins (Locatello et al. 2019, disentanglement_lib).

    Factors with more values than bins keep it below 1: on dSprites a perfect code reaches 0.9024 (`mig_ceiling`).

    Arguments:
        means: (N, D); the library uses 10,000.
        factors: (N, F) of any values.
    """
    z, v = checked(means, factors)
    return gap(shares(mutual_information(binned(z, bins=bins), v), v))


@formerly("bins")
def mig_ceiling(values: Sequence[int], *, bins: int = BINS) -> float:
    """The `mig_lib` of a perfect code over all combinations of factors, given each factor's number of spaced values.

    Bins of equal width hold unequal numbers of values, so a factor with more values than bins stays below 1: on
    dSprites (3, 6, 40, 32 and 32 values) the mean over factors is 0.9024.

    Raises:
        ChoiceError: a factor has fewer than two values.
    """
    scores = []
    for count in values:
        if count < 2:
            raise ChoiceError(f"a factor needs two values or more to be scored, got {count}")
        filled = np.bincount(binned(np.arange(count, dtype=float)[:, None], bins=bins)[:, 0]) / count
        filled = filled[filled > 0]
        scores.append(float(-(filled * np.log(filled)).sum() / math.log(count)))
    return float(np.mean(scores))


def mig_chen(means: Array, scales: Array, factors: Array) -> Score:
    r"""The mutual information gap of Chen et al. (2018): I(z_j; v_k) = H(z_j) - H(z_j | v_k) with z_j ~ q(z_j).

    q(z_j) = 1/N sum_n N(mean_nj, scale_nj^2) and q(z_j | v_k), the same over the data with that value, are integrated
    on a grid rather than sampled. The paper counts scale, orientation and the two positions of dSprites, but not shape.

    Arguments:
        means, scales: means and standard deviations of the posteriors, (N, D).
        factors: (N, F).

    Raises:
        ChoiceError: the shapes do not agree, a scale is not above 0, or a factor has a single value or thousands.
    """
    z, v = checked(means, factors)
    s = np.asarray(scales, float)
    if s.shape != z.shape or not (s > 0).all():
        raise ChoiceError(f"scales must be above 0 and have the shape of the means, {z.shape}, got {s.shape}")
    information = np.zeros((z.shape[1], v.shape[1]))
    for j in range(z.shape[1]):
        low, high = (z[:, j] - REACH * s[:, j]).min(), (z[:, j] + REACH * s[:, j]).max()
        points = int(min(GRID, max(200, math.ceil((high - low) / (0.5 * s[:, j].min())))))
        grid = np.linspace(low, high, points)
        step = grid[1] - grid[0]
        if (cells := int((v.max(0) + 1).sum()) * points) > CELLS:
            raise ChoiceError(f"factors with {cells // points:,} values need too much memory here: give them in bins")
        sums = [np.zeros((int(v[:, k].max()) + 1, points)) for k in range(v.shape[1])]
        block = max(1, 4_000_000 // points)
        for a in range(0, len(z), block):
            mean, scale = z[a : a + block, j, None], np.maximum(s[a : a + block, j, None], 0.5 * step)
            density = np.exp(-0.5 * ((grid - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
            for k, by_value in enumerate(sums):
                order = np.argsort(v[a : a + block, k], kind="stable")
                values, first = np.unique(v[a : a + block, k][order], return_index=True)
                by_value[values] += np.add.reduceat(density[order], first, axis=0)
        whole = _entropy(sums[0].sum(0) / len(z), step)
        for k, by_value in enumerate(sums):
            counts = np.bincount(v[:, k], minlength=len(by_value))
            inside = [_entropy(f / c, step) for f, c in zip(by_value, counts, strict=True)]
            information[j, k] = max(whole - float(counts @ inside) / len(z), 0.0)
    return gap(shares(information, v))


def _entropy(density: Array, step: float) -> float:
    """-int p log p of a density on an evenly spaced grid."""
    positive = density[density > 0]
    return float(-(positive * np.log(positive)).sum() * step)


def counted_by_chen(names: Sequence[str], data: str) -> list[int]:
    """The indices of the factors in the MIG of Chen et al. (2018): all but the shape of dSprites, as in the paper."""
    return [i for i, name in enumerate(names) if not (data == "dsprites" and name == "shape")]

"""Errors of statistics of samples and data: the delete-a-block jackknife, by group where data have groups.

The rows of a set are cut into blocks of independent units (rows, or whole groups). With t the statistic of all rows and
t_b the one without block b of B, the jackknife (Efron and Stein 1981) estimates

    the variance by (B - 1) / B sum_b (t_b - mean t_b)^2,
    a bias that falls as one over the number of rows by (B - 1) (mean t_b - t).

Several independent sets add their variances and biases. In expectation the variance is too large rather than too small,
most of all for a distance that is zero (twice it for one that is a sum over pairs).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import standard_error, t_quantile, units

Array = NDArray[Any]
BLOCKS = 25
"""The maximum number of blocks of a set."""
LEVEL = 0.05
"""The intervals miss the value with this probability."""


class Estimate(NamedTuple):
    """A number with its standard error and its 95% interval; nan if they are unknown."""

    value: float
    se: float = math.nan
    low: float = math.nan
    high: float = math.nan


class Blocked:
    """Rows (N, D) in the order of their blocks, in float32.

    Arguments:
        x: (N, D) features.
        group: (N,) codes of independent units; by default each row is one.
        seed: of the choice of the units of each block.

    Raises:
        ChoiceError: fewer than two rows or units, values that are not finite, or another shape.
    """

    def __init__(self, x: ArrayLike, group: ArrayLike | None = None, *, seed: int = 0):
        rows = np.asarray(x, np.float32)
        if rows.ndim != 2 or len(rows) < 2:
            raise ChoiceError(f"two rows or more of features, (N, D), are needed, got an array of shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise ChoiceError("the features of some rows are not finite: leave these rows out, and say how many")
        code = block_codes(len(rows), group, seed=seed)
        self.order = np.argsort(code, kind="stable")
        self.code: NDArray[np.int64] = code[self.order]
        self.x: Tensor = torch.from_numpy(np.ascontiguousarray(rows[self.order]))
        self.group = None if group is None else np.asarray(group)[self.order]
        self.count = int(code.max()) + 1
        ends = np.searchsorted(self.code, np.arange(self.count + 1))
        self.slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        self.sizes = np.diff(ends)

    def __len__(self) -> int:
        return len(self.code)


def block_codes(n: int, group: ArrayLike | None = None, *, seed: int = 0) -> NDArray[np.int64]:
    """The block of each of n rows, from 0: at most 25 blocks of about as many rows each, with whole groups in one.

    Raises:
        ChoiceError: a single unit, or another number of groups than rows.
    """
    rng = np.random.default_rng(seed)
    if group is None:
        if n < 2:
            raise ChoiceError(f"two rows or more are needed, got {n}")
        return rng.permutation(np.arange(n) % min(BLOCKS, n)).astype(np.int64)
    codes = np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    if len(codes) != n:
        raise ChoiceError(f"group must have one value for each of {n} rows, got {len(codes)}")
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        raise ChoiceError("all rows are of one group: data of two groups or more are needed for an error by group")
    load = np.zeros(min(BLOCKS, len(sizes)))
    block = np.empty(len(sizes), np.int64)
    order = rng.permutation(len(sizes))
    for unit in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first, each to the smallest block
        block[unit] = load.argmin()
        load[block[unit]] += sizes[unit]
    return block[codes]


def jackknife(
    value: float,
    *sets: Array,
    unbiased: bool = False,
) -> Estimate:
    """An estimate with its standard error and Student's t interval.

    Arguments:
        value: the statistic of all rows.
        sets: for each independent set of rows, the statistics without each of its blocks, (B,).
        unbiased: whether to subtract the jackknife's estimate of the bias.
    """
    parts, bias = [], 0.0
    for without in sets:
        b, middle = len(without), float(without.mean())
        parts.append((b - 1) / b * float(((without - middle) ** 2).sum()))
        bias += (b - 1) * (middle - value)
    estimate = value - bias if unbiased else value
    variance = sum(parts)
    se = math.sqrt(variance)
    # Satterthwaite: the degrees of freedom of a sum of variances
    below = sum(part**2 / (len(without) - 1) for part, without in zip(parts, sets, strict=True))
    degrees = variance**2 / below if below > 0 else float(min(len(s) for s in sets) - 1)
    reach = t_quantile(LEVEL, degrees) * se
    return Estimate(estimate, se, estimate - reach, estimate + reach)


def ratio(a: Array, b: Array, *, a_group: ArrayLike | None = None, b_group: ArrayLike | None = None) -> Estimate:
    """The mean of a (N,) over the mean of b (M,), both at least 0, with an interval of the logarithm, by group.

    The variance of the logarithm is that of the two means, each relative to its mean.
    """
    above, below = float(a.mean()), float(b.mean())
    if below <= 0:
        return Estimate(math.nan if above <= 0 else math.inf)
    errors = standard_error(a, a_group), standard_error(b, b_group)
    if above <= 0 or errors[0] is None or errors[1] is None:
        return Estimate(above / below)
    relative = math.hypot(errors[0] / above, errors[1] / below)
    reach = math.exp(t_quantile(LEVEL, min(units(len(a), a_group), units(len(b), b_group)) - 1) * relative)
    return Estimate(above / below, above / below * relative, above / below / reach, above / below * reach)

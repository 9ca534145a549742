"""A permutation test that held-out rows and draws of a model are of one distribution, for many statistics at once.

Each held-out row and the draws that are matched with it form a set. If the data are draws of the model, given the
condition of the row, the rows of a set are exchangeable. So the differences that arise if a random row of each set
takes the place of the held-out one have the distribution of those observed, for any data: normal, binary or sparse.
p-values are corrected by the step-down maximum of Westfall and Young (1993, Algorithm 4.1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PERMUTATIONS = 999
"""The number of random permutations; 1 / (PERMUTATIONS + 1) is the smallest p-value."""
AT_ONCE = 4_000_000
"""The number of values that are standardised at once."""
TIED = 1e-5
"""Differences are equal if they differ by less than this share: sums in float32 are rounded."""


def places(n: int, drawn: int, *, seed: int = 0) -> Array:
    """Which rows take the held-out places in each permutation, (1 + PERMUTATIONS, n + drawn) of 0 and 1.

    Rows are the n held-out ones, then the draws; draw j belongs to the held-out row j n // drawn. The first
    permutation is that of the data themselves.
    """
    if drawn < n:
        raise ValueError(f"each of {n} rows needs a draw or more, got {drawn}")
    rng, rows = np.random.default_rng(seed), np.arange(n)
    first = -(-rows * drawn // n)  # the first draw of each set
    sizes = np.diff(first, append=drawn)
    found = np.zeros((1 + PERMUTATIONS, n + drawn), np.float32)
    found[0, :n] = 1
    for one in found[1:]:
        taken = (rng.random(n) * (sizes + 1)).astype(np.int64)
        one[np.where(taken == 0, rows, n + first + taken - 1)] = 1
    return found


def _differences(z: Array, of_held: Array, n: int, variance: bool) -> Array:
    """Absolute differences of means, or of variances, of z (N, J) per permutation, (P, J), over their error.

    The columns of z have mean 0 and variance 1. The errors are those of rows of one distribution, of s^2 with
    Var(s^2) = (mu_4 - (n - 3) / (n - 1)) / n, and the same for each permutation.
    """
    m = len(z) - n
    held = of_held @ z
    drawn = z.sum(0) - held
    if not variance:
        return np.abs(held / n - drawn / m) / math.sqrt(1 / n + 1 / m)
    squares = z * z
    held_squares = of_held @ squares
    drawn_squares = squares.sum(0) - held_squares
    difference = (held_squares - held**2 / n) / (n - 1) - (drawn_squares - drawn**2 / m) / (m - 1)
    fourth = (squares * squares).mean(0)
    return np.abs(difference) / np.sqrt(sum((fourth - (k - 3) / (k - 1)) / k for k in (n, m)))


def permutation_p(held: Array, drawn: Array, tested: Array, *, seed: int = 0) -> Array:
    """Corrected p-values of equal means and of equal variances of each column, (2, D); 1 where it is not tested.

    If held-out rows are draws of the model, the chance of any p-value of at most alpha is at most alpha.

    Arguments:
        held: (n, D) held-out rows, independent.
        drawn: (M, D) draws, M at least n, in the order of the rows that they are matched with.
        tested: (2, D) which of the means and variances are tested; such columns are not constant.
        seed: of the permutations.
    """
    n, dims = held.shape
    of_held, block = places(n, len(drawn), seed=seed), max(1, AT_ONCE // (n + len(drawn)))

    def differences(tests: Array, of_held: Array) -> Array:
        """Of these tests, which are columns, and D + columns for their variances; (P, len(tests))."""
        found = np.empty((len(of_held), len(tests)), np.float32)
        for variance in (False, True):
            here = (tests >= dims) == variance
            columns = tests[here] % dims
            both = np.concatenate([held[:, columns], drawn[:, columns]]).astype(np.float64)
            z = ((both - both.mean(0)) / both.std(0)).astype(np.float32)
            found[:, here] = _differences(z, of_held, n, variance)
        return found

    tests = np.flatnonzero(tested)
    corrected = np.ones(2 * dims)
    if not len(tests):
        return corrected.reshape(2, dims)
    parts = np.array_split(tests, -(-len(tests) // block))
    tests = tests[np.argsort(np.concatenate([differences(part, of_held[:1])[0] for part in parts]), kind="stable")]
    largest, p = np.zeros(len(of_held), np.float32), []
    for part in np.array_split(tests, -(-len(tests) // block)):  # from the smallest difference to the largest
        found = differences(part, of_held)
        observed = found[0] * (1 - TIED)
        found[:, 0] = np.maximum(found[:, 0], largest)
        np.maximum.accumulate(found, axis=1, out=found)
        largest = found[:, -1].copy()
        p.append((found >= observed).mean(0))
    corrected[tests] = np.maximum.accumulate(np.concatenate(p)[::-1])[::-1]
    return corrected.reshape(2, dims)

"""How far the columns, and the pairs of columns, of two samples of rows are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column

from .features import is_number

Array = NDArray[Any]
BINS = 10
"""The number of bins of a number for pairs of columns, with equal shares of the real rows."""
LEVELS = 100
"""The maximum number of categories of a column in a pair; rarer ones are one level."""
PAIRED = 50
"""The maximum number of columns whose pairs are compared, which are the first ones."""
DRAWS = 50
"""Bootstrap draws for standard errors."""


class Distances(NamedTuple):
    """Distances of two samples of rows, followed by B bootstrap draws of the same: the first axis has length 1 + B.

    The field columns (1 + B, D) has the Kolmogorov-Smirnov distance of numbers and the total variation distance of
    categories. For the first P columns, pairs (1 + B, P, P) has the total variation distance of the contingency tables
    of all pairs, with numbers in bins, and associations (1 + B, P, P) the association of each pair in the first sample
    minus that in the second.
    """

    columns: Array
    pairs: Array
    associations: Array


def distances(a: Array, b: Array, columns: Sequence[Column], reference: Array, *, seed: int = 0) -> Distances:
    """The `Distances` of the rows a (N, D) from the rows b (M, D).

    Arguments:
        columns: D columns.
        reference: real rows (R, D), which define the bins of numbers.
        seed: of the bootstrap.
    """
    of_columns, of_pairs = _Columns(a, b, columns), _Pairs(a, b, columns[:PAIRED], reference)
    rng = np.random.default_rng(seed)
    found = []
    for draw in range(1 + DRAWS):
        u, v = (np.ones(len(x)) if draw == 0 else _drawn(len(x), rng) for x in (a, b))
        found.append((of_columns(u, v), *of_pairs(u, v)))
    return Distances(*(np.stack(each) for each in zip(*found, strict=True)))


def _drawn(n: int, rng: np.random.Generator) -> Array:
    """How often each of n rows occurs in a bootstrap sample, (n,)."""
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(float)


class _Columns:
    """The distance of each column of two samples, for weights of their rows."""

    def __init__(self, a: Array, b: Array, columns: Sequence[Column]):
        self.n = len(a)
        both = np.concatenate([a, b])
        # nan, a missing value, sorts above all numbers: it counts as the largest one, and as a category of its own
        self.codes = [np.unique(both[:, j], return_inverse=True)[1].ravel() for j in range(both.shape[1])]
        self.ordered = [is_number(column) for column in columns]

    def __call__(self, u: Array, v: Array) -> Array:
        found = []
        for codes, ordered in zip(self.codes, self.ordered, strict=True):
            k = codes.max() + 1
            one, other = (np.bincount(c, w, k) for c, w in ((codes[: self.n], u), (codes[self.n :], v)))
            one, other = (np.cumsum(w) if ordered else w for w in (one, other))
            difference = np.abs(one / u.sum() - other / v.sum())
            found.append(difference.max() if ordered else difference.sum() / 2)
        return np.array(found)


class _Pairs:
    """The distances of all pairs of columns of two samples, for weights of their rows.

    The association of two numbers is their rank correlation; that of any other pair is Cramer's V of their contingency
    table, corrected for its bias (Bergsma, 2013), with numbers in bins.
    """

    def __init__(self, a: Array, b: Array, columns: Sequence[Column], reference: Array):
        self.numbers = np.array([is_number(column) for column in columns], bool)
        levels = [_Levels(column, reference[:, j]) for j, column in enumerate(columns)]
        self.starts = np.cumsum([0, *(level.size for level in levels[:-1])])
        self.tables = [np.concatenate([level(x[:, j]) for j, level in enumerate(levels)], 1) for x in (a, b)]
        self.ranks = [_centred_ranks(x[:, : len(columns)][:, self.numbers]) for x in (a, b)]

    def __call__(self, u: Array, v: Array) -> tuple[Array, Array]:
        shares = [_weighted(one_hot, w) for one_hot, w in zip(self.tables, (u, v), strict=True)]
        pairs = self._sums(np.abs(shares[0] - shares[1])) / 2
        associations = [self._association(p, r, w) for p, r, w in zip(shares, self.ranks, (u, v), strict=True)]
        return pairs, associations[0] - associations[1]

    def _sums(self, table: Array) -> Array:
        """The sums (P, P) of the blocks of all pairs of columns."""
        return np.add.reduceat(np.add.reduceat(table, self.starts, 0), self.starts, 1)

    def _association(self, shares: Array, ranks: Array, w: Array) -> Array:
        level = np.diag(shares)
        expected = np.outer(level, level)
        chi = np.divide((shares - expected) ** 2, expected, out=np.zeros_like(shares), where=expected > 0)
        used, n = np.add.reduceat((level > 0).astype(float), self.starts), w.sum()
        phi = np.maximum(0, self._sums(chi) - np.outer(used - 1, used - 1) / (n - 1))
        corrected = used - (used - 1) ** 2 / (n - 1)
        least = np.minimum.outer(corrected, corrected) - 1
        found = np.sqrt(np.divide(phi, least, out=np.zeros_like(phi), where=least > 1e-9)).clip(0, 1)
        if self.numbers.any():
            mean = w @ ranks / n
            covariance = _weighted(ranks, w) - np.outer(mean, mean)
            spread = np.sqrt(np.diag(covariance).clip(0))
            scale = np.outer(spread, spread)
            found[np.ix_(self.numbers, self.numbers)] = np.divide(
                covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12
            )
        return found


def _weighted(x: Array, w: Array) -> Array:
    """x^T diag(w) x / sum(w)."""
    return ((x * w[:, None].astype(x.dtype)).T @ x).astype(np.float64) / w.sum()


class _Levels:
    """The levels of one column for contingency tables: categories, or bins of a number, and one for missing values.

    Of more than `LEVELS` categories, all but the most frequent of the reference rows share a level.
    """

    def __init__(self, column: Column, reference: Array):
        known = reference[~np.isnan(reference)]
        self.edges: Array | None = None
        if is_number(column):
            self.edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if len(known) else np.zeros(0)
            self.size = len(self.edges) + 2
        else:
            counts = np.bincount(known.astype(int), minlength=max(2, len(column.categories)))
            self.level = np.arange(len(counts))
            if len(counts) > LEVELS:
                self.level[np.argsort(-counts, kind="stable")] = np.minimum(np.arange(len(counts)), LEVELS - 1)
            self.size = int(self.level.max()) + 2

    def __call__(self, values: Array) -> Array:
        """One-hot levels (N, size) float32; the last one is for missing values."""
        missing = np.isnan(values)
        plain = np.where(missing, 0, values)
        codes = self.level[plain.astype(int)] if self.edges is None else np.searchsorted(self.edges, plain, "left")
        one_hot = np.zeros((len(values), self.size), np.float32)
        one_hot[np.arange(len(values)), np.where(missing, self.size - 1, codes)] = 1
        return one_hot


def _centred_ranks(x: Array) -> Array:
    """The ranks of each column of x (N, D), from -1/2 to 1/2; 0 for missing values."""
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=0, nan_policy="omit") if x.size else np.zeros_like(x)
    known = (~np.isnan(x)).sum(0)
    return np.nan_to_num((ranks - (known + 1) / 2) / np.maximum(known, 1))

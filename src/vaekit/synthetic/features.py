"""Rows of a table as inputs of the models of scikit-learn, and as coordinates of a distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column

Array = NDArray[Any]
MOST = 255
"""The maximum number of categories that trees of scikit-learn split by sets."""
ROUNDS = 100
"""The number of boosted trees."""


def is_number(column: Column) -> bool:
    """Whether the values of a column have an order; those of the others are codes of categories."""
    return column.kind in ("real", "counts")


def boosted_trees(regression: bool, n: int, sets: Sequence[int], seed: int) -> Any:
    """Boosted trees of scikit-learn with its default settings, except for smaller leaves if there are few rows.

    Arguments:
        n: the number of rows to learn from.
        sets: the inputs that are codes of categories.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    return kind(
        max_iter=ROUNDS, min_samples_leaf=max(2, min(20, n // 20)), early_stopping=False, random_state=seed,
        categorical_features=list(sets) or None,
    )  # fmt: skip


class Features:
    """Rows (N, D) as inputs of trees and of linear models; fitted to real rows, which all models share.

    A column of more than `MOST` categories is ordered by how often each occurs.

    Arguments:
        columns: the columns of the rows, without those to predict.
        rows: real rows (N, D).
    """

    def __init__(self, columns: Sequence[Column], rows: Array):
        self.columns = columns
        sizes = [0 if is_number(c) else max(2, len(c.categories)) for c in columns]
        self.ranks = {j: _ranks(rows[:, j], k) for j, k in enumerate(sizes) if k > MOST}
        self.sets = [j for j, k in enumerate(sizes) if 0 < k <= MOST]
        self.numbers = [j for j in range(len(columns)) if j not in self.sets]
        ordered = self.trees(rows)[:, self.numbers]
        present = ~np.isnan(ordered)
        count = np.maximum(present.sum(0), 1)
        self.mean = np.where(present, ordered, 0).sum(0) / count
        spread = np.sqrt(np.where(present, (ordered - self.mean) ** 2, 0).sum(0) / count)
        self.scale = np.where(spread > 0, spread, 1.0)
        self.sizes = {j: sizes[j] for j in self.sets}

    def trees(self, rows: Array) -> Array:
        """Inputs (N, D) of trees: numbers and codes, with nan where a value is missing."""
        x = np.array(rows, np.float64)
        for j, ranks in self.ranks.items():
            known = ~np.isnan(x[:, j])
            x[known, j] = ranks[x[known, j].astype(int)]
        return x

    def linear(self, rows: Array) -> Array:
        """Inputs (N, F) of linear models: standardised numbers, one input per category, and what is missing."""
        x = (self.trees(rows)[:, self.numbers] - self.mean) / self.scale
        missing = np.isnan(x)
        codes = [rows[:, j, None] == np.arange(k) for j, k in self.sizes.items()]
        return np.concatenate([np.where(missing, 0, x).clip(-20, 20), missing, *codes], 1).astype(np.float64)


def _ranks(values: Array, size: int) -> Array:
    """The rank of each code 0..size-1 by how often it occurs, the most frequent first."""
    count = np.bincount(values[~np.isnan(values)].astype(int), minlength=size)
    ranks = np.empty(len(count))
    ranks[np.argsort(-count, kind="stable")] = np.arange(len(count))
    return ranks


class Gower:
    """The mean over columns of the difference between two rows, each from 0 to 1 (Gower, 1971).

    Numbers differ by their difference in rank among the real rows, so that no scale or long tail dominates; categories
    differ by 0 or 1, and so do a missing and a known value.

    Arguments:
        columns: the columns of the rows.
        rows: the real rows (N, D) by which numbers are ranked.
    """

    def __init__(self, columns: Sequence[Column], rows: Array):
        self.columns = columns
        known = [rows[~np.isnan(rows[:, j]), j] for j in range(len(columns))]
        self.sorted = {j: np.sort(known[j]) for j, c in enumerate(columns) if is_number(c)}
        self.numbers = list(self.sorted)
        self.codes = [j for j in range(len(columns)) if j not in self.sorted]

    def coordinates(self, rows: Array) -> tuple[Array, Array]:
        """Ranks of numbers (N, n) in [0, 1], -1 where missing, and codes (N, D - n), both float32."""
        ranks = np.full((len(rows), len(self.numbers)), -1, np.float32)
        for i, j in enumerate(self.numbers):
            x, ordered = rows[:, j], self.sorted[j]
            known = ~np.isnan(x)
            both = np.searchsorted(ordered, x[known], "left") + np.searchsorted(ordered, x[known], "right")
            ranks[known, i] = both / max(1, 2 * len(ordered))
        return ranks, np.nan_to_num(rows[:, self.codes], nan=-1).astype(np.float32)

    def nearest(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """The nearest row of `b` (M, D) for each row of `a` (N, D), and the other way round.

        Returns:
            The distance of each row of `a` (N,), the number of the row of `b`, the first of several at the same
            distance (N,), and the distance of each row of `b` from its nearest row of `a` (M,).
        """
        (ranks_a, codes_a), (ranks_b, codes_b) = self.coordinates(a), self.coordinates(b)
        least, where, back = np.empty(len(a)), np.empty(len(a), np.int64), np.full(len(b), np.inf)
        block = max(1, 4_000_000 // len(b))
        for start in range(0, len(a), block):
            rows = slice(start, start + block)
            total = np.zeros((len(a[rows]), len(b)), np.float32)
            for u, v in zip(ranks_a[rows].T, ranks_b.T, strict=True):
                step = np.abs(u[:, None] - v)
                if (u < 0).any() or (v < 0).any():
                    step[(u[:, None] < 0) != (v < 0)] = 1
                total += step
            for u, v in zip(codes_a[rows].T, codes_b.T, strict=True):
                total += u[:, None] != v
            where[rows] = total.argmin(1)
            least[rows] = np.take_along_axis(total, where[rows, None], 1)[:, 0]
            back = np.minimum(back, total.min(0))
        columns = max(1, len(self.columns))
        return least / columns, where, back / columns

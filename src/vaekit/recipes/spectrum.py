"""The spectrum of a table: how many directions its rows vary in, which sets the default number of latents."""

from __future__ import annotations

import numpy as np

from vaekit.data.core import Array, Column, Computed, Data

SHARE = 0.95
"""The part of the variance that the counted principal components hold."""
ROWS = 10_000
"""Rows that are measured at most."""
NUMBERS = 2**24
"""Numbers that are measured at most, for rows of many elements or categories."""


def rank_of(data: Data) -> int:
    """The number of principal components that hold `SHARE` of the variance of the encoded training rows of a table.

    Evenly spaced training rows are measured. Numbers are standardised, counts as log(1 + x); the indicators of a
    categorical column are scaled to a total variance of 1; missing values are replaced by the mean.

    Returns:
        1 or more for vectors, 0 for data of other kinds.
    """
    raw = data.train.raw
    if data.kind != "vector" or isinstance(raw, Computed):
        return 0
    n, dims = len(data.train), int(np.prod(data.shape))
    width = sum(max(1, len(column.categories)) for column in data.schema) if data.schema else dims
    chosen = np.unique(np.linspace(0, n - 1, max(2, min(n, ROWS, NUMBERS // width))).astype(np.int64))
    rows = np.asarray(data.events(data.train[chosen]), np.float64).reshape(len(chosen), dims)
    x = np.concatenate(
        [encoded(column, values) for column, values in zip(data.schema, rows.T, strict=True)]
        if data.schema
        else [scaled(rows)],
        axis=1,
    )
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    variances = np.linalg.eigvalsh(gram)[::-1].clip(0)
    held = np.cumsum(variances)
    return int(np.searchsorted(held, SHARE * held[-1])) + 1 if held[-1] > 0 else 1


def encoded(column: Column, values: Array) -> Array:
    """The inputs of a network for one column (n,), scaled to a total variance of 1: (n, inputs)."""
    if column.kind != "categorical":
        return scaled(np.log1p(values)[:, None] if column.kind == "counts" else values[:, None])
    hot = (values[:, None] == np.arange(len(column.categories))).astype(np.float64)
    hot[np.isnan(values)] = np.nan
    return scaled(hot, together=True)


def scaled(x: Array, together: bool = False) -> Array:
    """Columns (n, D) of mean 0 and variance 1, or of a total variance of 1 if `together`; missing values become 0."""
    present = ~np.isnan(x)
    count = present.sum(0).clip(1)
    centred = np.where(present, x - np.where(present, x, 0).sum(0) / count, 0.0)
    variance = (centred**2).sum(0) / count
    variance = np.full_like(variance, variance.sum()) if together else variance
    return centred / np.sqrt(np.where(variance > 0, variance, 1.0))

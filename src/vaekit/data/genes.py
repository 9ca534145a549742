"""The choice of columns of counts, such as genes: the most variable ones, found in any number of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

from .core import Array, Computed, blocks, counted
from .source import Source
from .sparse import Sparse


def with_genes(
    x: Any, source: Source, rows: NDArray[np.int64], most: int | None, cells: int
) -> tuple[Any, Source, str]:
    """x (N, D) and its source with only the columns that `chosen` keeps, and a note on their number.

    Raises:
        DataError: no column is left.
    """
    kept = chosen(x, rows, most, cells)
    names, schema = source.feature_names, source.schema
    source = replace(
        source,
        feature_names=None if names is None else [names[i] for i in kept],
        schema=tuple(schema[i] for i in kept) if schema else (),
        scale=None,
    )
    few = f"those above 0 in at least {counted(cells, 'training row')}" if cells > 1 else ""
    high = "those of highest deviance in the training rows" if most is not None and len(kept) == most else ""
    note = f"{len(kept):,} of {x.shape[1]:,} columns are kept: {high or few or 'all that are above 0'}"
    return taken_columns(x, kept.tolist()), source, note


def taken_columns(x: Any, positions: Sequence[int], absent: float | None = None) -> Any:
    """x (N, D) with the columns at these positions; -1 stands for a column of the value `absent`.

    A sparse matrix stays sparse, unless `absent` is not 0.
    """
    where = np.asarray(positions)
    there = where >= 0
    if isinstance(x, Sparse) and (there.all() or absent == 0):
        return x.only(where)
    taken = (np.asarray(x) if isinstance(x, Computed) else x)[:, np.where(there, where, 0)]
    if there.all():
        return taken
    taken = taken if absent == 0 else taken.astype(np.result_type(taken.dtype, np.float32))
    taken[:, ~there] = absent
    return taken


def chosen(x: Any, rows: NDArray[np.int64], most: int | None, cells: int) -> NDArray[np.int64]:
    """The columns of counts (N, D) to keep, in their order, measured on the training rows `rows`.

    Args:
        x: counts; missing values count as 0.
        rows: the training rows.
        most: the number of columns of highest `deviance`; None for all.
        cells: rows in which a column must be above 0.

    Raises:
        DataError: no column is left.
    """
    found, score = _measured(x, rows)
    kept = np.flatnonzero(found >= cells)
    if not len(kept):
        raise DataError(f"no column is above 0 in {cells:,} of the {len(rows):,} training rows: lower `min_cells`")
    if most is not None and most < len(kept):
        kept = np.sort(kept[np.argsort(-score[kept], kind="stable")[:most]])
    return kept


def deviance(x: Any, rows: NDArray[np.int64]) -> Array:
    """The binomial deviance of each column of counts from a constant share of the row's total, float64 (D,).

    2 sum_i [x_i log(x_i / (n_i p)) + (n_i - x_i) log((n_i - x_i) / (n_i (1 - p)))] with the totals n_i and the share p
    of the column in all rows: high for genes that differ between cells, without a transformation of the counts
    (Townes et al. 2019, doi:10.1186/s13059-019-1861-6).
    """
    return _measured(x, rows)[1]


def _measured(x: Any, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """The number of rows in which each column is above 0, and its deviance."""
    width = x.shape[1]
    found, totals = np.zeros(width, np.int64), np.zeros(width)
    for _, _, columns, values in _entries(x, rows):
        found += np.bincount(columns, minlength=width)
        totals += np.bincount(columns, values, minlength=width)
    every = totals.sum()
    share = totals / max(every, 1)
    score = -every * np.log1p(-np.minimum(share, 1 - 1e-12))  # as if every count were 0
    for n, at, columns, values in _entries(x, rows):
        p, n_i = share[columns], n[at]
        rest = n_i - values
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(rest > 0, rest * np.log(rest / (n_i * (1 - p))), 0.0)
            change = values * np.log(values / (n_i * p)) + logs + n_i * np.log1p(-np.minimum(p, 1 - 1e-12))
        score += np.bincount(columns, change, minlength=width)
    return found, 2 * score


def _entries(x: Any, rows: NDArray[np.int64]) -> Any:
    """Yields (totals of the rows (n,), and position, column and value of each count above 0) by blocks of rows."""
    if isinstance(x, Sparse):
        step = 1 + 2_000_000 * max(1, len(x)) // max(1, x.matrix.nnz)
        for a in range(0, len(rows), step):
            part = x.matrix[rows[a : a + step]].tocoo()
            values = np.nan_to_num(part.data.astype(np.float64))
            above = values > 0
            yield _of(len(rows[a : a + step]), part.row[above], part.col[above], values[above])
        return
    for _, block in blocks(x, rows, double=True):
        at, columns = np.nonzero(np.nan_to_num(block) > 0)
        yield _of(len(block), at, columns, block[at, columns].astype(np.float64))


def _of(n: int, at: Array, columns: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    return np.bincount(at, values, minlength=n), at, columns, values

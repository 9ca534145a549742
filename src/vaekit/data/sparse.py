"""Sparse matrices, whose rows become dense when they are indexed."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

from .core import Array, Computed, row_dtype

PARTS: dict[str, tuple[str, ...]] = {
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}
"""The arrays that `scipy.sparse.save_npz` writes for each format, beside format, shape and data."""


MOST_COLUMNS = 2**24
"""Maximum width of a sparse matrix, whose rows become dense."""


class Sparse(Computed):
    """A SciPy sparse matrix as an array (N, D), or (N, *row), in its `row_dtype`; float64 stays float64.

    Arguments:
        matrix: (N, D).
        name: of the data, for messages.
        row: shape of a row.

    Raises:
        DataError: the matrix does not have two axes, has too many columns, or does not hold real numbers.
    """

    trusted = False
    resident = False

    def __init__(self, matrix: Any, name: str = "x", row: tuple[int, ...] | None = None) -> None:
        if matrix.ndim != 2 or matrix.dtype.kind not in "buif":
            raise DataError(
                f"{name}: a sparse matrix must hold real numbers in 2 axes (rows, columns), got {matrix.dtype} of "
                f"shape {matrix.shape}"
            )
        if matrix.shape[1] > MOST_COLUMNS:
            raise DataError(
                f"{name}: a sparse matrix of shape {matrix.shape} has rows too wide to be dense, expected at most "
                f"{MOST_COLUMNS:,} columns: leave out columns"
            )
        matrix = matrix.tocsr()
        self.matrix = matrix.astype(row_dtype(matrix.dtype, double=True), copy=False)
        self.shape = self.matrix.shape if row is None else (self.matrix.shape[0], *row)
        self.dtype = self.matrix.dtype

    def rows(self, index: NDArray[np.int64]) -> Array:
        """The rows with these numbers, dense."""
        dense: Array = self.matrix[index].toarray()
        return dense.reshape(len(dense), *self.shape[1:])

    def only(self, columns: NDArray[np.int64]) -> "Sparse":
        """The matrix with only these columns, in this order; -1 stands for a column of zeros."""
        from scipy.sparse import csr_array

        there = np.flatnonzero(columns >= 0)
        if len(there) == len(columns):
            return Sparse(self.matrix[:, columns])
        ones = np.ones(len(there), self.matrix.dtype)
        return Sparse(self.matrix @ csr_array((ones, (columns[there], there)), (self.shape[1], len(columns))))


def is_sparse(x: Any) -> bool:
    """Whether `x` is a SciPy sparse matrix or array; does not import SciPy."""
    scipy = sys.modules.get("scipy.sparse")
    return scipy is not None and scipy.issparse(x)


def stacked(parts: Sequence[Any]) -> Sparse:
    """The rows of all parts, sparse and dense, as one sparse matrix."""
    from scipy.sparse import csr_array, vstack

    return Sparse(vstack([csr_array(part.matrix if isinstance(part, Sparse) else part) for part in parts]))


def saved(keys: Mapping[str, Any]) -> bool:
    """Whether these names of arrays are those that `scipy.sparse.save_npz` writes."""
    return {"format", "shape", "data"} <= set(keys) and any(set(parts) <= set(keys) for parts in PARTS.values())


def read(where: str, array: Callable[[str], Array]) -> tuple[Sparse, set[str]]:
    """The matrix that `scipy.sparse.save_npz` wrote, and the names of its arrays.

    Arguments:
        where: the file, for messages.
        array: returns the array with a name.

    Raises:
        DataError: the format is unknown, or the indices do not fit the shape.
    """
    from scipy import sparse

    kind = array("format")
    name = kind.item() if kind.ndim == 0 else ""
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
    if name not in PARTS:
        raise DataError(f"{where}: unknown sparse format {name!r}, expected {', '.join(PARTS)}")
    try:
        shape = tuple(int(side) for side in array("shape"))
        data, parts = array("data"), [array(part) for part in PARTS[name]]
        if name == "coo":
            matrix = sparse.coo_array((data, tuple(parts)), shape=shape)
        else:
            matrix = getattr(sparse, f"{name}_array")((data, *parts), shape=shape)
        if name in ("csr", "csc", "bsr"):
            if np.any(np.diff(matrix.indptr) < 0):  # check_format does not look if the last one is 0
                raise ValueError("indptr must be a non-decreasing sequence")
            matrix.check_format(full_check=True)  # SciPy does not check the indices when it uses them
        return Sparse(matrix, where), {"format", "shape", "data", *PARTS[name], "_is_array"}
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{where}: its sparse matrix is damaged ({error}); save it again with scipy.sparse.save_npz"
        ) from error

"""Columns that come beside the data (ids, dates, labels): kept as they are, and shown as text, NumPy or Arrow.

A column is a list of cells of a text file, an array (N,), or a column of pandas, polars or pyarrow.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .core import Array
from .readers import frames

Columns = dict[str, Any]
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"-?(?=\.?\d)(0|[1-9]\d*)?(\.\d*)?([eE][+-]?\d+)?")


def as_texts(column: Any) -> list[str]:
    """The cells as in a .csv file, with as many digits as their dtype needs; missing ones are empty."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return ["" if value != value else str(value) for value in column]
    return column if _is_text(column) else frames.cells_of(column)


def as_array(column: Any) -> Array:
    """The cells as booleans, integers, floats (nan where missing) or text.

    Text is read as numbers if all cells are written like 7 or -1.5; 007 is a name.
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "buifU":
        return column
    cells = _parsed(column) if _is_text(column) else frames.values_in(column)
    kinds = {type(cell) for cell in cells if cell is not None}
    missing = any(cell is None for cell in cells)
    if kinds == {bool} and not missing:
        return np.array(cells, bool)
    if kinds == {int} and not missing and max(map(abs, cells)) < 2**63:
        return np.array(cells, np.int64)
    if kinds and kinds <= {int, float}:
        return np.array([np.nan if cell is None else cell for cell in cells], np.float64)
    return np.array(as_texts(column), np.str_)


def as_arrow(column: Any) -> Any:
    """The cells as an Arrow array of their own type; a missing number is null."""
    import pyarrow as pa

    if _is_text(column):
        return pa.array(_parsed(column))
    if isinstance(column, np.ndarray):
        return pa.array(column.tolist() if column.dtype.kind in "OSU" else column)
    return frames.as_arrow(column)


def _is_text(column: Any) -> bool:
    return isinstance(column, list) and all(isinstance(cell, str) for cell in column)


def _parsed(column: list[str]) -> list[Any]:
    """Cells of text as integers or floats, None where missing, if all of them are; else unchanged."""
    cells = [cell.strip() for cell in column]
    for pattern, read in ((WHOLE, int), (NUMBER, float)):
        if any(cells) and all(not cell or pattern.fullmatch(cell) for cell in cells):
            return [read(cell) if cell else None for cell in cells]
    return column

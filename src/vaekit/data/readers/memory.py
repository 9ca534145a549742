"""Data in memory (tensors, series, datasets of torch, lists) as arrays."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vaekit.data import sparse
from vaekit.data.arrays import Source
from vaekit.data.core import Array, Computed
from vaekit.errors import DataError

from . import frames
from .registry import reader


def column_of(values: Any, what: str) -> Array:
    """A column as an array (N,); a series or a list of objects is parsed like the cells of a CSV file."""
    if frames.is_series(values):
        return frames.values_of(values, what)
    array = np.asarray(_numpy(values))
    return frames.values_of(array.tolist(), what) if array.dtype.kind == "O" and array.ndim == 1 else array


@reader("arrays", "arrays in memory")
def source(x: Any, *, label: Any = None, name: str = "arrays") -> Source:
    """A source with `x` (N, ...) and `label` (N,) or None as arrays, from arrays, tensors, series or a Dataset.

    Raises:
        DataError: `x` is a DataLoader, a path, an iterator or a Dataset without rows, or its rows differ in shape.
    """
    torch = sys.modules.get("torch")  # a tensor or a Dataset exists only if torch is imported
    if torch is not None and isinstance(x, torch.utils.data.DataLoader):
        raise DataError(f"{name}: a DataLoader yields batches, not rows: give its dataset (loader.dataset) or arrays")
    if isinstance(x, str | os.PathLike):
        raise DataError(f"{name}: from_arrays expects arrays, got {str(x)!r}: use load for names and paths")
    if isinstance(x, Iterator):
        raise DataError(f"{name}: an iterator has no length and can be read only once: give list(...) or an array")
    if torch is not None and isinstance(x, torch.utils.data.Dataset):
        x, own = _dataset(x, torch, name)
        label = own if label is None else label
    x = frames.values_of(x, name) if frames.is_series(x) else _numpy(x)
    return Source(x, label=None if label is None else column_of(label, f"{name}: label"))


def _numpy(x: Any) -> Any:
    if sparse.is_sparse(x):
        return sparse.Sparse(x)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return x if isinstance(x, np.ndarray | Computed) else _stacked(x)
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _stacked(x: Any) -> Array:
    try:
        return np.asarray(x)
    except ValueError as error:
        raise DataError(f"all rows must have the same shape ({error}); resize or pad them") from error


def _dataset(data: Any, torch: Any, name: str) -> tuple[Any, Any]:
    if isinstance(data, torch.utils.data.IterableDataset):
        raise DataError(f"{name}: an IterableDataset has no rows to split: give a map-style Dataset or arrays")
    if isinstance(data, torch.utils.data.TensorDataset):
        if len(data.tensors) > 2:
            raise DataError(f"{name}: expected a TensorDataset of x or of x and label, got {len(data.tensors)} tensors")
        return data.tensors[0], data.tensors[1] if len(data.tensors) == 2 else None
    rows, codes = [], []
    for i in range(len(data)):
        item = data[i]
        if isinstance(item, dict):
            x = next((item[key] for key in ("x", "image") if key in item), None)
            code = next((item[key] for key in ("y", "label") if key in item), None)
            if x is None:
                raise DataError(f"{name}: items must have a key x or image, got {', '.join(map(str, item))}")
        else:
            x, code = (item[0], item[1] if len(item) > 1 else None) if isinstance(item, tuple | list) else (item, None)
        rows.append(np.asarray(_numpy(x)))
        codes.append(code if code is None or isinstance(code, str) else np.asarray(_numpy(code)).item())
    if other := next((row.shape for row in rows if row.shape != rows[0].shape), None):
        raise DataError(
            f"{name}: all items must have the same shape, got {rows[0].shape} and {other}; resize or pad them"
        )
    return np.stack(rows) if rows else np.empty((0,)), None if not codes or None in codes else np.array(codes)

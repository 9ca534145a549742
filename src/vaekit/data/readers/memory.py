"""Data in memory as arrays: tensors, series, datasets of torch, lists."""

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
    """One value for each row: of a series or a list of anything, the cells that a CSV file would hold."""
    if frames.is_series(values):
        return frames.values_of(values, what)
    found = np.asarray(_numpy(values))
    return frames.values_of(found.tolist(), what) if found.dtype.kind == "O" and found.ndim == 1 else found


@reader("arrays", "arrays in memory")
def source(x: Any, *, label: Any = None, name: str = "arrays") -> Source:
    """x and its labels as arrays, from arrays, tensors or a Dataset."""
    torch = sys.modules.get("torch")  # whoever holds a tensor or a Dataset has imported it
    if torch is not None and isinstance(x, torch.utils.data.DataLoader):
        raise DataError(f"{name}: a DataLoader gives batches, not rows: give its dataset (loader.dataset) or arrays")
    if isinstance(x, str | os.PathLike):
        raise DataError(f"{name}: from_arrays takes arrays, got {str(x)!r}: give names and paths to load")
    if isinstance(x, Iterator):
        raise DataError(f"{name}: an iterator gives its rows only once and has no length: give list(...) or an array")
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
        raise DataError(f"rows must all have one shape ({error}); resize or pad them") from error


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
    if odd := next((row.shape for row in rows if row.shape != rows[0].shape), None):
        raise DataError(f"{name}: items must all have one shape, got {rows[0].shape} and {odd}; resize or pad them")
    return np.stack(rows) if rows else np.empty((0,)), None if not codes or None in codes else np.array(codes)

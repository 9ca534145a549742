"""Data in memory (tensors, series, datasets of torch, lists) as arrays."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vaekit.data import sparse
from vaekit.data.core import Array, Computed
from vaekit.data.source import Source
from vaekit.errors import DataError

from . import frames
from .registry import reader


def column_of(values: Any, name: str) -> Array:
    """A column as an array (N,); a series or a list of objects is parsed like the cells of a CSV file."""
    if frames.is_series(values):
        return frames.values_of(values, name)
    if np.ma.is_masked(values) and values.dtype.kind != "f":
        mask, values = np.ma.getmaskarray(values), np.ma.getdata(values).astype(object)
        values[mask] = None  # missing, as in a list
    array = np.asarray(as_array(values, name))
    return frames.values_of(array.tolist(), name) if array.dtype.kind == "O" and array.ndim == 1 else array


@reader("arrays", "arrays in memory")
def source(x: Any, *, label: Any = None, name: str = "arrays") -> Source:
    """A source with `x` (N, ...) and `label` (N,) or None as arrays, from arrays, tensors, series or a Dataset.

    Raises:
        DataError: `x` is a DataLoader, a path, an iterator or a tensor without dense data, or its rows differ in shape.
    """
    torch = sys.modules.get("torch")  # a tensor or a Dataset exists only if torch is imported
    if torch is not None and isinstance(x, torch.utils.data.DataLoader):
        raise DataError(f"{name}: a DataLoader yields batches, not rows: give its dataset (loader.dataset) or arrays")
    if isinstance(x, str | os.PathLike):
        raise DataError(f"{name}: from_arrays expects arrays, got {str(x)!r}: use load for names and paths")
    if isinstance(x, Iterator):
        raise DataError(f"{name}: an iterator has no length and can be read only once: give list(...) or an array")
    notes: tuple[str, ...] = ()
    if torch is not None and isinstance(x, torch.utils.data.Dataset):
        x, own, notes = _dataset(x, torch, name)
        label = own if label is None else label
    x = frames.values_of(x, name) if frames.is_series(x) else as_array(x, name)
    return Source(x, label=None if label is None else column_of(label, f"{name}: label"), notes=notes)


def as_array(x: Any, name: str) -> Any:
    """An array, tensor, masked array, sparse matrix, image or list of these as an array; masked values become nan.

    Raises:
        DataError: it cannot become an array of one shape; `name` stands for it in the message.
    """
    torch = sys.modules.get("torch")
    if sparse.is_sparse(x):
        return sparse.Sparse(x, name)
    if torch is not None and isinstance(x, torch.Tensor):
        return _of_tensor(x, torch, name)
    if isinstance(x, np.ma.MaskedArray):
        return _unmasked(x)
    return x if isinstance(x, np.ndarray | Computed) else _stacked(x)


def _of_tensor(x: Any, torch: Any, name: str) -> Any:
    x = x.detach()
    try:
        if x.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc) and x.ndim == 2:
            from scipy.sparse import csr_array

            x = x.cpu().to_sparse_csr()
            parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
            return sparse.Sparse(csr_array(parts, shape=tuple(x.shape)), name)
        narrow = x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64)
        return (x.float() if narrow else x).cpu().numpy()
    except (TypeError, RuntimeError) as error:  # quantised, nested, without data
        why = str(error).split("\n")[0]
        raise DataError(f"{name}: a tensor of {x.dtype} cannot be read ({why}): convert it to a dense array") from None


def _unmasked(x: Any) -> Array:
    """A masked array with nan for its masked values, if there are any."""
    if not np.ma.is_masked(x) or x.dtype.kind not in "buif":
        return np.asarray(x)
    return np.asarray(x.astype(np.result_type(x.dtype, np.float32)).filled(np.nan))


def _stacked(x: Any) -> Array:
    pillow = sys.modules.get("PIL.Image")  # an image of Pillow exists only if Pillow is imported
    try:
        if pillow is not None and isinstance(x, pillow.Image):
            return _pixels(x)
        if pillow is not None and isinstance(x, list | tuple):
            x = [_pixels(one) if isinstance(one, pillow.Image) else one for one in x]
        return np.asarray(x)
    except ValueError as error:
        raise DataError(f"all rows must have the same shape ({error}); resize or pad them") from error


def _pixels(image: Any) -> Array:
    """The values of an image of Pillow: (H, W), RGB or RGBA; palettes and other colour spaces are converted."""
    if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB"))


def _dataset(data: Any, torch: Any, name: str) -> tuple[Any, Any, tuple[str, ...]]:
    """The rows of a Dataset, their labels or None, and notes."""
    if isinstance(data, torch.utils.data.IterableDataset):
        raise DataError(f"{name}: an IterableDataset has no rows to split: give a map-style Dataset or arrays")
    if isinstance(data, torch.utils.data.TensorDataset):
        if len(data.tensors) > 2:
            raise DataError(f"{name}: expected a TensorDataset of x or of x and label, got {len(data.tensors)} tensors")
        return data.tensors[0], data.tensors[1] if len(data.tensors) == 2 else None, ()
    rows: list[Array] = []
    codes: list[Any] = []
    notes: tuple[str, ...] = ()
    for i in range(len(data)):
        item = data[i]
        if isinstance(item, dict):
            x = next((item[key] for key in ("x", "image") if key in item), None)
            code = next((item[key] for key in ("y", "label") if key in item), None)
            if x is None:
                raise DataError(f"{name}: items must have a key x or image, got {', '.join(map(str, item))}")
        else:
            x, code = (item[0], item[1] if len(item) > 1 else None) if isinstance(item, tuple | list) else (item, None)
            if isinstance(item, tuple | list) and len(item) > 2:
                notes = (
                    f"items have {len(item)} parts: the first is x, the second the label, the others are not used",
                )
        rows.append(np.asarray(as_array(x, name)))
        codes.append(_code(code, name))
    if other := next((row.shape for row in rows if row.shape != rows[0].shape), None):
        raise DataError(
            f"{name}: all items must have the same shape, got {rows[0].shape} and {other}; resize or pad them"
        )
    labels = None if all(code is None for code in codes) else _stacked(codes)
    return np.stack(rows) if rows else np.empty((0,)), labels, notes


def _code(code: Any, name: str) -> Any:
    """The label of one item: a number, a text, None, or several numbers as an array."""
    if code is None or isinstance(code, str):
        return code
    if isinstance(code, dict):
        raise DataError(f"{name}: the label of an item must be a number or a text, got a dict with {', '.join(code)}")
    values = np.asarray(as_array(code, name))
    return values.item() if values.size == 1 else values

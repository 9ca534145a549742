"""Results, one per row of data, written beside the columns that came with the rows: .csv, .parquet, .npz or .h5ad."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import DataError
from vaekit.utils.files import write_atomically
from vaekit.utils.progress import say

from .beside import Columns, as_array, as_arrow, as_texts
from .core import Array
from .readers import hdf5
from .writing import write_texts

TABLES = (".csv", ".parquet")
SUFFIXES = (*TABLES, ".npz", ".h5ad")
NEEDS = {".parquet": ("pyarrow", "parquet"), ".h5ad": ("h5py", "cells")}
PREFIX = "column."
"""Before the names of the columns that came with the data, in .npz files."""
OF_DATA = " (of the data)"
OBSM = {"z": "X_vae"}
"""Names of results (N, D) in the .obsm of AnnData; others are called X_NAME."""

Results = Mapping[str, Any]


def check_package(path: Path) -> None:
    """Raise DataError if the format of `path` needs a package that is missing; to be called before any work."""
    module, extra = NEEDS.get(path.suffix.lower(), ("numpy", ""))
    if importlib.util.find_spec(module) is None:
        raise DataError(f"writing {path} needs {module}: pip install 'vaekit[{extra}]', or write .csv or .npz")


def as_columns(results: Results, n: int, carried: Columns) -> Columns:
    """The columns of a table: the row number as `index`, what was carried, then the results.

    A result (N, D) becomes D columns, z0, z1 and so on. A carried column that has the name of another is renamed.
    """
    spread: Columns = {}
    for name, values in results.items():
        if np.ndim(values) > 2:
            raise DataError(f"{name!r} has one array per row, which is no column of a table: write a .npz file")
        wide = np.ndim(values) == 2
        spread |= {f"{name}{j}": values[:, j] for j in range(np.shape(values)[1])} if wide else {name: values}
    kept = {name: column[:n] for name, column in renamed(carried, ("index", *spread)).items()}
    return {"index": np.arange(n), **kept, **spread}


def renamed(carried: Columns, taken: Collection[str]) -> Columns:
    """The carried columns; those with a name in `taken` get another one, and a note says which."""
    free: Columns = {}
    for name, column in carried.items():
        new = name
        while new in taken or (new != name and new in carried):
            new += OF_DATA
        if new != name:
            say(f"note: the column {name!r} of the data is called {new!r} in the output, where {name!r} is a result")
        free[new] = column
    return free


def write_results(path: Path, results: Results, n: int, carried: Columns, source: Any = None) -> None:
    """Write results of n rows and the columns carried beside them, in the format of the suffix.

    .csv and .parquet have the columns of `as_columns`, in .parquet with their types. .npz has each result as an array,
    and the carried columns with `PREFIX` before their names. .h5ad is a copy of the .h5ad file that the rows came from,
    or has the carried columns in .obs; results (N,) are added to .obs and results (N, D) to .obsm (`OBSM`).

    Args:
        path: the file, whose folder exists.
        results: arrays (N, ...) or lists by name.
        n: number of rows; of the carried columns, the first n cells are written.
        carried: further columns by name (see `beside`).
        source: the .h5ad file that the rows came from, if they came from one; cells without a result get nan.

    Raises:
        DataError: results and format do not fit together.
        RunError: the file cannot be written.
    """
    check_package(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: results are written as {', '.join(SUFFIXES)}; name such a file")
    if suffix in TABLES:
        columns = as_columns(results, n, carried)
        write_columns(path, columns)
    elif suffix == ".npz":
        arrays = {name: np.asarray(values) for name, values in results.items()}
        write_atomically(path, partial(_write_npz, arrays=arrays | prefixed(carried, n)))
    else:
        write_atomically(path, partial(_write_h5ad, results=results, n=n, carried=carried, source=source))


def prefixed(carried: Columns, n: int) -> dict[str, Array]:
    """The first n cells of the carried columns as arrays, with `PREFIX` before their names."""
    return {f"{PREFIX}{name}": as_array(column[:n]) for name, column in carried.items()}


def write_columns(path: Path, columns: Mapping[str, Any], delimiter: str = ",") -> None:
    """Write columns of equal length as .parquet with their types, or as text with a header."""
    if path.suffix.lower() == ".parquet":
        check_package(path)
        write_atomically(path, partial(_write_parquet, columns=columns))
        return
    texts: dict[str, Sequence[str]] = {name: as_texts(column) for name, column in columns.items()}
    write_atomically(path, lambda part: write_texts(part, texts, delimiter))


def _write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    with open(path, "wb") as file:  # if given a name, NumPy would append .npz to it
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: as_arrow(column) for name, column in columns.items()}), path)


# --- AnnData ----------------------------------------------------------------------------------------------------


def _write_h5ad(path: Path, results: Results, n: int, carried: Columns, source: Any) -> None:
    import h5py

    if source is not None:
        shutil.copyfile(source, path)
    with h5py.File(path, "r+" if source is not None else "w") as file:
        if source is None:
            _new_file(file, n, {name: as_array(column[:n]) for name, column in carried.items()})
        obs, obsm = file["obs"], file.require_group("obsm")
        cells = _length(obs)
        for name, values in results.items():
            array = _padded(as_array(values if isinstance(values, np.ndarray) else list(values)), cells)
            if array.ndim > 1:
                key = OBSM.get(name, f"X_{name}")
                _make_way(obsm, key)
                _dataset(obsm, key, array.reshape(cells, -1))
                continue
            order = [_text(one) for one in obs.attrs["column-order"]]
            if name in order:
                order[order.index(name)] = _make_way(obs, name)
            _dataset(obs, name, array)
            obs.attrs.create("column-order", [*order, name], dtype=h5py.string_dtype())


def _new_file(file: Any, n: int, columns: Mapping[str, Array]) -> None:
    """An AnnData file without variables, whose .obs has these columns; `cell` has the names of the cells."""
    import h5py

    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        file.create_group(name).attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    names = columns.get("cell", np.arange(n).astype(np.str_))
    columns = {name: values for name, values in columns.items() if name != "cell"}
    for name, index, held in (("obs", names, columns), ("var", np.array([], np.str_), {})):
        frame = file.create_group(name)
        frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        frame.attrs.create("column-order", [*held], shape=(len(held),), dtype=h5py.string_dtype())
        _dataset(frame, "_index", index.astype(np.str_))
        for column, values in held.items():
            _dataset(frame, column, values)


def _dataset(group: Any, name: str, values: Array) -> None:
    import h5py

    key = name.replace("/", "∕")  # a slash would make a group
    text = values.dtype.kind not in "buif"
    held = values.astype(object) if text else values
    made = group.create_dataset(key, data=held, dtype=h5py.string_dtype() if text else None)
    made.attrs.update({"encoding-type": "string-array" if text else "array", "encoding-version": "0.2.0"})


def _padded(values: Array, n: int) -> Array:
    """Values of n cells, of which the last have no result: nan, or empty text."""
    if len(values) == n:
        return values
    blank = "" if values.dtype.kind == "U" else np.nan
    return np.concatenate([values, np.full((n - len(values), *values.shape[1:]), blank)])


def _make_way(group: Any, name: str) -> str:
    """Rename the entry `name` of a group, if there is one; its new name."""
    new = name
    while new in group:
        new += OF_DATA
    if new != name:
        group.move(name, new)
        say(f"note: {name!r} of the data is called {new!r} in the output, where {name!r} is a result")
    return new


def _length(frame: Any) -> int:
    """The number of rows of a frame, whose index is an array, categories, or texts that may be missing."""
    index = frame[_text(frame.attrs["_index"])]
    if not hdf5.is_group(index):
        return len(index)
    return len(index["codes" if "codes" in index else "values"])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""AnnData: cells by genes with annotations, from .h5ad files (read with h5py alone) or from objects in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vaekit.data import sparse
from vaekit.data.arrays import LARGEST_COUNT
from vaekit.data.core import Array, blocks, listed
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import frames, hdf5
from .registry import reader, with_suffix

LABEL = ("label", "labels", "cell_type", "celltype", "cell_line")
"""Columns of obs that may be labels."""
Layer = Annotated[
    str | None, Knob("matrix of an AnnData to read: X, raw or the name of a layer; by default the first with counts")
]


@dataclass
class Cells:
    """The parts of an AnnData that are read: each matrix is read when it is called.

    Attributes:
        matrices: functions that return X, the layers and raw by name, (cells, genes).
        genes: names of the genes, and those of raw.
        names: names of the cells.
        obs: annotations of the cells, each (N,).
    """

    matrices: dict[str, Callable[[], Any]]
    genes: list[str]
    raw_genes: list[str]
    names: list[str]
    obs: dict[str, Array]
    notes: tuple[str, ...] = ()


def is_anndata(x: Any) -> bool:
    """Whether `x` is an AnnData object; does not import anndata."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(x, getattr(anndata, "AnnData", ()))


@reader("h5ad", "an .h5ad file", reads=with_suffix(".h5ad"), files=".h5ad")
def h5ad(path: Path, *, layer: Layer = None, label: str | None = None, to_train: bool = True) -> Source:
    """The cells of an .h5ad file; obs becomes columns beside the data, and sparse matrices stay sparse.

    Args:
        path: path of the file.
        layer: the matrix to read. By default X if it holds whole numbers from 0, else the layer `counts`, else raw,
            else X as real numbers; a note says which was read if it is not X.
        label: column of obs with the labels.

    Raises:
        DataError: h5py is missing, the file is damaged, or it has no such matrix.
    """
    with hdf5.opened(path) as file:
        return _source(_stored(file, path), str(path), layer, label, to_train)


@reader("anndata", "an AnnData object")
def in_memory(
    x: Any, *, layer: Layer = None, label: str | None = None, to_train: bool = True, name: str = "the AnnData"
) -> Source:
    """An AnnData object, read like its .h5ad file."""
    layers = {str(key): _constant(x.layers[key]) for key in x.layers}
    raw = {} if x.raw is None else {"raw": _constant(x.raw.X)}
    main = {} if x.X is None else {"X": _constant(x.X)}
    table = frames.read(x.obs, f"{name}: obs", drop=frames.nested(x.obs))
    return _source(
        Cells(
            main | layers | raw,
            [str(gene) for gene in x.var_names],
            [] if x.raw is None else [str(gene) for gene in x.raw.var_names],
            [str(cell) for cell in x.obs_names],
            table.columns,
        ),
        name,
        layer,
        label,
        to_train,
    )


def _constant(matrix: Any) -> Callable[[], Any]:
    def read() -> Any:
        load = getattr(matrix, "to_memory", None)  # of a matrix that is backed by a file
        return matrix if load is None else load()

    return read


def _source(cells: Cells, where: str, layer: str | None, label: str | None, to_train: bool) -> Source:
    name, x, counts = _chosen(cells, where, layer)
    genes = cells.raw_genes if name == "raw" else cells.genes
    if x.ndim != 2 or len(x) != len(cells.names) or x.shape[1] != len(genes):
        raise DataError(f"{where}: {name} has shape {x.shape}, expected ({len(cells.names)}, {len(genes)})")
    notes = [*cells.notes]
    if layer is None and name != "X":
        notes.append(f"{'raw.X' if name == 'raw' else f'layer {name!r}'} holds the counts and is read instead of X")
    elif layer is None and not counts:
        notes.append("X does not hold counts and there is no layer of counts: it is read as real numbers")
    if label is not None and label not in cells.obs:
        if not to_train:
            return _source(cells, where, layer, None, to_train)
        raise DataError(f"label={label!r}: obs of {where} has no such column; it has {listed(list(cells.obs))}")
    if label is None:
        label = next((key for key in LABEL[:2] if key in cells.obs and cells.obs[key].dtype.kind in "iuU"), None)
    if label is None and to_train:
        notes += [f"to use {key!r} as the labels, give `label={key!r}`" for key in LABEL if key in cells.obs][:1]
    return Source(
        x,
        label=None if label is None else cells.obs[label],
        columns=dict(cells.obs),
        names=cells.names,
        feature_names=distinct(genes),
        kind="counts" if counts else "vector",
        notes=tuple(notes),
    )


def _chosen(cells: Cells, where: str, layer: str | None) -> tuple[str, Any, bool]:
    """The name of the matrix to read, the matrix, and whether it holds counts."""
    order = [name for name in ("X", "counts", "raw") if name in cells.matrices] if layer is None else [layer]
    if not order or order[0] not in cells.matrices:
        shown = listed(list(cells.matrices)) or "none"
        raise DataError(f"{where} has no matrix {layer or 'X'!r}; it has {shown}: choose one with `layer`")
    for name in order:
        x = _matrix(cells.matrices[name](), f"{where}: {name}")
        if whole(x):
            return name, x, True
    if len(order) > 1:
        x = _matrix(cells.matrices[order[0]](), f"{where}: {order[0]}")
    return order[0], x, False


def _matrix(x: Any, where: str) -> Any:
    if sparse.is_sparse(x):
        return sparse.Sparse(x, where)
    return x if isinstance(x, sparse.Sparse) else np.asarray(x)


def whole(x: Any) -> bool:
    """Whether a matrix holds counts: whole numbers from 0 up."""
    if isinstance(x, sparse.Sparse):
        x = x.matrix.data
    if x.dtype.kind not in "buif":
        return False
    return all(
        bool(((part >= 0) & (part <= LARGEST_COUNT) & (part == np.round(part))).all())
        for _, part in blocks(x, double=True)
    )


def distinct(names: list[str]) -> list[str]:
    """The names with -1, -2, ... appended to those that repeat, as AnnData's `var_names_make_unique` does."""
    seen: dict[str, int] = {}
    taken, distinct = set(names), []
    for name in names:
        n = seen.get(name, 0)
        new = name
        while n and (new := f"{name}-{n}") in taken:
            n += 1
        seen[name] = n + 1
        taken.add(new)
        distinct.append(new)
    return distinct


# --- the layout of .h5ad files ------------------------------------------------------------------------------------


def _stored(file: Any, path: Path) -> Cells:
    obs, var = (hdf5.member(file, name) for name in ("obs", "var"))
    if obs is None or var is None or not (hdf5.is_group(obs) and hdf5.is_group(var)):
        raise DataError(
            f"{path} has no groups obs and var, as anndata 0.7 and later write them: read it with a recent anndata, "
            "and write it again"
        )
    names, genes = _index(obs, "obs"), _index(var, "var")
    matrices = {
        name: _reading(found, name, path, len(names))
        for name, found in [("X", hdf5.member(file, "X")), *_layers(file), ("raw", hdf5.member(file, "raw/X"))]
        if found is not None
    }
    raw_var = hdf5.member(file, "raw/var")
    raw_genes = [] if raw_var is None or not hdf5.is_group(raw_var) else _index(raw_var, "raw/var")
    columns, unread = _columns(obs, len(names))
    notes = (f"columns of obs that cannot be read: {listed(unread)}",) if unread else ()
    return Cells(matrices, genes, raw_genes, names, columns, notes)


def _layers(file: Any) -> list[tuple[str, Any]]:
    layers = hdf5.member(file, "layers")
    return [] if layers is None or not hdf5.is_group(layers) else [(name, hdf5.member(layers, name)) for name in layers]


def _reading(found: Any, name: str, path: Path, n: int) -> Callable[[], Any]:
    return lambda: matrix(found, name, path, n)


def matrix(found: Any, name: str, path: Path, n: int) -> Any:
    """A matrix of n rows in an .h5ad file: an array, or a group with data, indices and indptr, which stays sparse."""
    if not hdf5.is_group(found):
        return hdf5.array(found, name)
    form = str(hdf5.attribute(found, "encoding-type") or hdf5.attribute(found, "h5sparse_format")).split("_")[0]
    shape = hdf5.attribute(found, "shape", None)
    shape = hdf5.attribute(found, "h5sparse_shape", None) if shape is None else shape
    if form not in ("csr", "csc") or shape is None:
        raise DataError(f"{path}: {name} is stored as {form or 'an unknown format'!r}, expected csr or csc")
    if np.asarray(shape).shape != (2,) or int(np.asarray(shape)[0]) != n:
        raise DataError(f"{path}: {name} has shape {np.asarray(shape).tolist()}, but there are {n:,} cells")
    parts = {"format": np.array(form), "shape": np.asarray(shape)}
    for part in ("data", "indices", "indptr"):
        stored = hdf5.member(found, part)
        if stored is None:
            raise DataError(f"{path}: {name} has no {part}")
        parts[part] = hdf5.array(stored, f"{name}/{part}")
    return sparse.read(f"{path}: {name}", parts.__getitem__)[0]


def _index(frame: Any, what: str) -> list[str]:
    """The names of the rows of obs or var."""
    name = str(hdf5.attribute(frame, "_index", "_index"))
    found = hdf5.member(frame, name)
    if found is None:
        raise DataError(f"{frame.file.filename}: {what} has no index {name!r}")
    return [str(value) for value in _column(frame, name, found).tolist()]


def _columns(frame: Any, n: int) -> tuple[dict[str, Array], list[str]]:
    """The columns of obs, and the names of those that are neither numbers nor texts."""
    index = str(hdf5.attribute(frame, "_index", "_index"))
    order = hdf5.attribute(frame, "column-order", ())
    names = [str(name.decode() if isinstance(name, bytes) else name) for name in np.asarray(order).ravel().tolist()]
    columns, unread = {}, []
    for name in dict.fromkeys([*names, *(key for key in frame if key not in (index, "__categories"))]):
        found = hdf5.member(frame, name)
        try:
            values = None if found is None else _column(frame, name, found)
        except DataError:
            values = None
        if values is None or values.shape != (n,):
            unread.append(name)
        else:
            columns[name] = values.astype(np.int64) if values.dtype.kind == "b" else values
    return columns, unread


def _column(frame: Any, name: str, found: Any) -> Array:
    """One column: an array, a categorical, or values with a mask; missing texts are "", missing numbers nan."""
    if hdf5.is_group(found):
        codes, categories, mask = (hdf5.member(found, part) for part in ("codes", "categories", "mask"))
        if codes is not None and categories is not None:
            return _named(hdf5.array(codes, name), hdf5.array(categories, name))
        values = hdf5.member(found, "values")
        if values is None or mask is None:
            raise DataError(f"{name} is stored in an unknown way")
        known, masked = hdf5.array(values, name), hdf5.array(mask, name).astype(bool)
        if known.dtype.kind == "U":
            return np.where(masked, "", known)
        return np.where(masked, np.nan, known.astype(np.float64)) if masked.any() else known
    old = hdf5.member(frame, f"__categories/{name}")  # anndata before 0.8
    values = hdf5.array(found, name)
    return values if old is None else _named(values, hdf5.array(old, name))


def _named(codes: Array, categories: Array) -> Array:
    """The categories of codes as texts, "" for the code -1."""
    if codes.dtype.kind not in "iu" or (codes.size and not -1 <= codes.min() <= codes.max() < len(categories)):
        raise DataError("codes of categories are damaged")
    return np.array([*map(str, categories.tolist()), ""], np.str_)[codes.astype(np.int64)]

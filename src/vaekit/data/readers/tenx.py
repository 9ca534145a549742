"""Counts of 10x Genomics: .h5 files, and folders with matrix.mtx, barcodes.tsv and features.tsv."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data import sparse
from vaekit.data.core import Array, listed
from vaekit.data.source import Source
from vaekit.errors import DataError

from . import hdf5
from .anndata import distinct
from .registry import reader, with_suffix

GENES = "Gene Expression"
PARTS = ("barcodes", "data", "indices", "indptr", "shape")
"""The arrays of a matrix in an HDF5 file."""
MATRIX = ("matrix.mtx", "matrix.mtx.gz")
MOST_HEADER = 2**16  # bytes, comments included
ENTRIES = {
    field: re.compile(rb"(?:[ \t]*+[0-9]++[ \t]++[0-9]++" + value + rb"[ \t]*+\r?+\n|[ \t\r]*+\n)*+")
    for field, value in {
        "integer": rb"[ \t]++[+-]?+[0-9]++",
        "real": rb"[ \t]++[0-9+.eE-]++",
        "pattern": rb"",
    }.items()
}
"""Lines with a row, a column and a value of each kind (`pattern` has none), and empty lines."""


def is_h5(path: Path) -> bool:
    """Whether a file is an HDF5 file with a 10x matrix; False for files that cannot be read."""
    if not with_suffix(".h5", ".hdf5")(path) or not path.is_file():
        return False
    try:
        with hdf5.opened(path) as file:
            return _matrix_of(file) is not None
    except DataError:
        return False


def _matrix_of(file: Any) -> Any:
    """The group with the matrix in an HDF5 file, or None."""
    found = hdf5.member(file, "matrix") or next((hdf5.member(file, name) for name in file), None)
    there = found is not None and hdf5.is_group(found) and all(part in found for part in PARTS)
    return found if there else None


@reader("10x-h5", "a 10x .h5 file", reads=is_h5)
def h5(path: Path) -> Source:
    """The filtered or raw matrix that Cell Ranger writes as .h5, versions 2 and 3; counts stay sparse.

    Raises:
        DataError: h5py is missing, the file is damaged, or it is another HDF5 file.
    """
    with hdf5.opened(path) as file:
        found = _matrix_of(file)
        if found is None:
            raise DataError(f"{path} is not a 10x matrix (a group with {', '.join(PARTS)})")
        stored = {part: hdf5.array(hdf5.member(found, part), part) for part in PARTS}
        genes = hdf5.member(found, "features/name")
        genes = hdf5.member(found, "gene_names") if genes is None else genes
        if genes is None:
            raise DataError(f"{path} has neither features/name nor gene_names")
        names = hdf5.array(genes, "features").astype(np.str_)
        types = hdf5.member(found, "features/feature_type")
        kinds = None if types is None else hdf5.array(types, "feature_type").astype(np.str_)
        stored |= {"format": np.array("csr"), "shape": stored["shape"][::-1]}  # csc of genes x cells
        read = sparse.read(str(path), stored.__getitem__)[0]
    return _source(read.matrix, stored["barcodes"].astype(np.str_), names, kinds, str(path))


def has_matrix(path: Path) -> bool:
    """Whether a folder holds a 10x matrix, or a path is one."""
    return _matrix_in(path) is not None


def _matrix_in(path: Path) -> Path | None:
    """The matrix.mtx of a folder, whose name may have a prefix, or the file itself."""
    if path.is_dir():
        found = sorted(file for file in path.glob("*matrix.mtx*") if file.name.endswith(MATRIX))
        return found[0] if len(found) == 1 else None
    return path if path.name.endswith((".mtx", ".mtx.gz")) else None


@reader("10x", "a 10x folder", reads=has_matrix, files="matrix.mtx with barcodes.tsv and features.tsv")
def folder(path: Path) -> Source:
    """A folder of Cell Ranger: matrix.mtx (genes x cells), barcodes.tsv, and features.tsv or genes.tsv, plain or .gz.

    The names of the three files may begin with a prefix, as in GEO.

    Raises:
        DataError: a file is missing or damaged, or the files do not fit together.
    """
    where = _matrix_in(path)
    assert where is not None
    prefix = where.name.split("matrix.mtx")[0] if "matrix.mtx" in where.name else ""

    def beside(*names: str) -> Path:
        files = [where.parent / f"{prefix}{name}{end}" for name in names for end in ("", ".gz")]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise DataError(f"{path}: there is no {' or '.join(names)} beside {where.name}")
        return found

    features = _rows(beside("features.tsv", "genes.tsv"))
    cells = [row[0] for row in _rows(beside("barcodes.tsv")) if row]
    if any(len(row) < 2 for row in features):
        raise DataError(f"{path}: features.tsv must have the columns id and name")
    kinds = np.array([row[2] for row in features]) if all(len(row) > 2 for row in features) else None
    matrix = market(where, (len(features), len(cells)))
    names = np.array([row[1] for row in features])
    return _source(matrix.T.tocsr(), np.array(cells), names, kinds, str(path))


def _source(x: Any, cells: Array, genes: Array, kinds: Array | None, where: str) -> Source:
    """The source of a matrix (cells, features); features that are not genes are left out."""
    if x.shape != (len(cells), len(genes)) or (kinds is not None and len(kinds) != len(genes)):
        raise DataError(
            f"{where}: the matrix has {x.shape[0]} cells and {x.shape[1]} features, but there are {len(cells)} "
            f"barcodes and {len(genes)} features"
        )
    notes: tuple[str, ...] = ()
    if kinds is not None and (kinds == GENES).any() and not (kinds == GENES).all():
        others = listed(sorted(set(kinds.tolist()) - {GENES}))
        notes = (f"{int((kinds != GENES).sum()):,} features that are not genes are left out ({others})",)
        x, genes = x.tocsc()[:, np.flatnonzero(kinds == GENES)], genes[kinds == GENES]
    matrix: Any = sparse.Sparse(x.tocsr(), where)
    return Source(
        matrix,
        names=cells.tolist(),
        feature_names=distinct(genes.tolist()),
        kind="counts",
        notes=notes,
    )


def _reading(path: Path, read: Callable[[Any], Any]) -> Any:
    """The result of `read` for the open file, plain or .gz."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                return read(file)
        with path.open("rb") as file:
            return read(file)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read ({error}): damaged, or another format") from error


def _rows(path: Path) -> list[list[str]]:
    """The cells of a file separated by tabs."""
    try:
        text = _reading(path, lambda file: file.read().decode("utf-8"))
        return [row for row in csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): expected text in UTF-8, separated by tabs") from error


def market(path: Path, shape: tuple[int, int]) -> Any:
    """The sparse matrix of this shape in a Matrix Market file, after a check of the sizes that it declares.

    Raises:
        DataError: the file has another form or shape, or is damaged.
    """
    from scipy.io import mmread

    content: bytes = _reading(path, lambda file: file.read())
    lines = io.BytesIO(content[:MOST_HEADER])
    words = next(lines, b"").decode("ascii", "replace").lower().split()
    if words[:3] != ["%%matrixmarket", "matrix", "coordinate"] or words[4:] != ["general"]:
        raise DataError(f"{path}: expected a Matrix Market file of coordinates without symmetry, got {' '.join(words)}")
    sizes = next((line for line in lines if not line.startswith(b"%") and line.strip()), b"")
    if not content.endswith(b"\n"):
        content += b"\n"
    if words[3] not in ENTRIES:
        raise DataError(f"{path}: expected values that are {' or '.join(ENTRIES)}, got {words[3]}")
    whole = ENTRIES[words[3]].match(content, lines.tell())
    assert whole is not None  # it also matches an empty text
    if whole.end() < len(content):  # SciPy may crash on such lines, or read them without an error
        line = content[whole.end() :].split(b"\n", 1)[0]
        raise DataError(f"{path}: expected lines with a row, a column and a number, got {line[:40]!r}")
    try:
        rows, columns, entries = (int(size) for size in sizes.split())
    except ValueError:
        raise DataError(f"{path}: expected the sizes of the matrix after its header, got {sizes[:60]!r}") from None
    if (rows, columns) != shape:
        raise DataError(f"{path}: {rows:,} features and {columns:,} cells, but the files beside it list {shape}")
    if not 0 <= entries <= len(content) // 4:
        raise DataError(f"{path} declares {entries:,} entries, but has only {len(content):,} bytes: it is cut short")
    try:
        matrix = mmread(io.BytesIO(content), spmatrix=False)
    except (ValueError, OverflowError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: its matrix is damaged: {error}") from error
    return matrix.astype(np.int32) if matrix.dtype.kind == "i" and abs(matrix.data).max(initial=0) < 2**31 else matrix

"""The cache folder for downloads and packed data, and atomic writing into it."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaekit.errors import DataError
from vaekit.utils.files import cache_folder, part_of, remove_parts

from .core import BLOCK, Array, Progress, blocks, row_dtype

LARGE = 64 * 2**20  # bytes; larger arrays are memory-mapped from a file

folder = cache_folder


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that replaces `path` atomically: it is written beside `path`, flushed to disk, then renamed.

    Raises:
        DataError: the cache cannot be written.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> DataError:
    """The error for a cache that cannot be written."""
    return DataError(
        f"cannot write {path} ({error.strerror or error}): set VAEKIT_CACHE (or `cache`) to a writable folder with "
        "enough free space"
    )


def joined(parts: Sequence[Array], cache: str | Path | None = None, progress: Progress | None = None) -> Array:
    """The rows of all parts in one array, in their common `row_dtype`; float64 stays float64.

    A large array is written to the cache once, then memory-mapped.

    Args:
        parts: (N_i, *row), memory-mapped or in memory.
        cache: as for `folder`.
        progress: called during writing.

    Raises:
        DataError: the cache cannot be written.
    """
    dtype = row_dtype(np.result_type(*(part.dtype for part in parts)), double=True)
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    if dtype.kind not in "uif" or sum(part.nbytes for part in parts) < LARGE:
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        with np.errstate(over="ignore"):
            return np.asarray(whole) if dtype.kind not in "uif" else np.asarray(whole).astype(dtype, copy=False)
    key = hashlib.sha256(" ".join([dtype.str, *map(_identity, parts)]).encode()).hexdigest()[:32]
    path = folder(cache) / "joined" / f"{key}.npy"
    rows = (block for part in parts for _, block in blocks(part, double=True))
    return written(path, dtype, shape, rows, progress)


def written(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], rows: Iterable[Array], progress: Progress | None = None
) -> Array:
    """The array in a .npy file of the cache, mapped; the file is written first if it does not exist.

    Args:
        path: path of the file, whose name identifies the array.
        dtype, shape: of the array.
        rows: its rows in blocks, in order; not used if the file exists.
        progress: called during writing.

    Raises:
        DataError: the cache cannot be written, or there are more or fewer rows.
    """
    if not path.exists():
        done = 0
        with writing(path) as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in rows:
                file.write(np.ascontiguousarray(block, dtype).data)
                done += len(block)
                if progress is not None:
                    progress("writing the data to the cache", done, shape[0])
            if done != shape[0]:
                raise DataError(f"the data declare {shape[0]:,} rows, but have {done:,}: they are damaged")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def stacked(columns: Sequence[Array], cache: str | Path | None = None) -> Array:
    """Columns (N,) as the rows (N, D) of one array, written to the cache once and mapped if it is large.

    Raises:
        DataError: the cache cannot be written.
    """
    dtype, n = np.result_type(*columns), len(columns[0])
    row = len(columns) * dtype.itemsize
    if n * row < LARGE or dtype.kind not in "uif":
        return np.stack(columns, axis=1)
    step = max(1, BLOCK // row)
    sha = hashlib.sha256(f"{dtype.str} {n} {len(columns)}".encode())
    for column in columns:
        for start in range(0, n, BLOCK // 8):
            sha.update(np.ascontiguousarray(column[start : start + BLOCK // 8], dtype).data)
    path = folder(cache) / "joined" / f"{sha.hexdigest()[:32]}.npy"
    parts = (np.stack([column[start : start + step] for column in columns], axis=1) for start in range(0, n, step))
    return written(path, dtype, (n, len(columns)), parts)


def _identity(x: Array) -> str:
    """A text that identifies an array: its position in a read-only memory map, else a hash of its content."""
    base: Any = x
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    if isinstance(base, np.memmap) and base.mode == "r" and base.filename is not None:
        stat = os.stat(base.filename)
        offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0] + base.offset
        file = [Path(base.filename).resolve(), stat.st_size, stat.st_mtime_ns]
        return f"{file} {offset} {x.dtype.str} {x.shape} {x.strides}"
    sha = hashlib.sha256()
    for _, block in blocks(x, double=True):
        sha.update(np.ascontiguousarray(block).data)
    return f"{x.dtype.str} {x.shape} {sha.hexdigest()}"


class Packer:
    """Writes uint8 rows one by one into a .npy file; `close` writes their number into the header."""

    def __init__(self, file: IO[bytes], row: tuple[int, ...]) -> None:
        self.file, self.row, self.n = file, row, 0
        self._header()
        self._data = file.tell()

    def _header(self) -> None:
        shape = (self.n, *self.row)
        np.lib.format.write_array_header_1_0(  # NumPy pads the header so that the first axis can grow in place
            self.file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )

    def add(self, row: Array) -> None:
        """Append one uint8 row."""
        assert (row.shape, row.dtype) == (self.row, np.uint8)
        self.file.write(np.ascontiguousarray(row).data)
        self.n += 1

    def close(self) -> None:
        """Write the number of rows into the header."""
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self._data

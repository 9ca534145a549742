"""NumPy files: .npy files are memory-mapped; arrays of .npz files are mapped, unpacked into the cache, or read."""

import io
import lzma
import math
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data import sparse
from vaekit.data.core import Array, Progress
from vaekit.data.source import Source
from vaekit.errors import DataError

from . import zip_directory
from .registry import reader, with_suffix
from .stores import Key, Store, hint, holds_objects, source_of, with_columns

MOST_HEADER = 2**16  # bytes
BAD_HEADER = (TypeError, ArithmeticError, LookupError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
"""Exceptions of NumPy for headers that are not valid, besides ValueError."""
UNPACKED = 2**30  # bytes; larger compressed arrays are unpacked into the cache, then mapped
DAMAGE = (
    ValueError,
    ArithmeticError,
    TypeError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)
"""Exceptions of NumPy, zipfile and the compression modules for damaged files."""


@reader("npy", "a .npy file", reads=with_suffix(".npy"), files=".npy")
def npy(path: Path) -> Source:
    """The data in a .npy file; see `array`."""
    return Source(array(path))


def arrays(path: Path) -> dict[str, Array]:
    """All arrays of a .npz file, in memory.

    Raises:
        DataError: the file is not a .npz file, is damaged, or holds Python objects.
    """
    with _damage(path), zipfile.ZipFile(path) as file:
        store = _Store(path, file, None)
        return {key: store.read(key) for key in store.shapes}


def array(path: Path) -> Array:
    """The array in a .npy file, memory-mapped.

    Raises:
        DataError: the file is not a .npy file, is cut short, or holds Python objects.
    """
    with _damage(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes): save the array again with numpy.save")
        _, shape, dtype = _npy_header(path)
        if dtype.hasobject:
            raise holds_objects(path, "the array")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.load(path, mmap_mode="r", allow_pickle=False)


@reader("npz", "a .npz file", reads=with_suffix(".npz"), files=".npz")
def source(
    path: Path,
    *,
    x_key: Key = None,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The data in a .npz file: an array x (or counts, ...), with labels, factors, batches and names if there are any.

    Arrays such as x_train, x_test and x_valid, with y_train and so on, become the splits; train_images, Xtest and
    val_labels are also recognised. A sparse matrix written by `scipy.sparse.save_npz` is read as one. Every further
    array with one number or text per row becomes a column; codes are replaced by their names if the file has them
    (batch and batch_names). A note lists the unused arrays. Labels may be texts, the names of the classes.

    Args:
        path: path of the file.
        x_key: name of the array with the data, if it is not a usual one.
        cache: the cache folder, if not the default.
        progress: called while large arrays are joined in the cache.

    Raises:
        DataError: the file is not a .npz file, is damaged, has no array with data, or holds data as Python objects.
    """
    read = _source(path, x_key, cache, progress)
    return replace(read, notes=(*read.notes, *hint(read))) if to_train and label is None else read


def _source(path: Path, x_key: str | None, cache: str | Path | None, progress: Progress | None) -> Source:
    with _damage(path), zipfile.ZipFile(path) as file:
        store = _Store(path, file, cache)
        if x_key is None and sparse.saved(store.shapes):
            matrix, used = sparse.read(str(path), store.read)
            return with_columns(store, matrix, used)
        return source_of(store, x_key, progress)


class _Store(Store):
    """The arrays of a .npz file: headers are read at once, contents when needed."""

    def __init__(self, path: Path, file: zipfile.ZipFile, cache: str | Path | None) -> None:
        super().__init__(path, cache)
        zip_directory.check(path, file)
        self.file = file
        for member in file.infolist():
            if member.filename.endswith(".npy"):
                key = member.filename[:-4]
                with file.open(member) as stream:
                    _, shape, dtype = _header(stream)
                    expected = stream.tell() + math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and expected != member.file_size:
                    raise DataError(
                        f"{path}: array {key!r} declares {shape} of {dtype}, {expected} bytes with its header, but has "
                        f"{member.file_size}: the file is damaged; save it again"
                    )
                self.shapes[key], self.dtypes[key] = shape, dtype

    def read(self, key: str) -> Array:
        """An array, in memory; bytes are decoded as UTF-8."""
        if self.dtypes[key].hasobject:
            raise holds_objects(self.path, f"array {key!r}")
        with self.file.open(f"{key}.npy") as stream:
            values: Array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read()  # at the end, zipfile compares the checksum
            _check_text(values, key)
            try:
                return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
            except UnicodeDecodeError:
                raise DataError(
                    f"{self.path}: array {key!r} holds bytes that are not text in UTF-8: save texts with .astype(str)"
                ) from None

    def data(self, key: str) -> Array:
        """An array that may be large: mapped in the file, unpacked into the cache and mapped, or in memory."""
        info = self.file.getinfo(f"{key}.npy")
        if self.dtypes[key].hasobject or 0 in self.shapes[key]:
            return self.read(key)
        if info.compress_type == zipfile.ZIP_STORED and info.file_size >= caches.LARGE:
            return self._mapped(key, info)
        if info.file_size >= UNPACKED:
            return self._unpacked(key, info)
        return self.read(key)

    def _mapped(self, key: str, info: zipfile.ZipInfo) -> Array:
        self._check_sum(key, info)
        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            local = file.read(30)  # the lengths of name and extra field may differ from the central directory
            file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), 1)
            fortran, shape, dtype = _header(file)
            order: Any = "F" if fortran else "C"
            return np.memmap(self.path, dtype, mode="r", offset=file.tell(), shape=shape, order=order)

    def _check_sum(self, key: str, info: zipfile.ZipInfo) -> None:
        """Read an array once, so that zipfile compares its checksum; a file in the cache records the success."""
        passed = self.in_cache("npz", key, info.CRC).with_suffix(".ok")
        if not passed.exists():
            with self.file.open(info) as stream:
                while stream.read(2**24):
                    pass
            with suppress(DataError), caches.writing(passed):
                pass  # if the cache cannot be written, the checksum is compared again next time

    def _unpacked(self, key: str, info: zipfile.ZipInfo) -> Array:
        target = self.in_cache("npz", key, info.CRC)
        if not target.exists():
            with caches.writing(target) as out, self.file.open(info) as stream:
                shutil.copyfileobj(stream, out, 2**20)
        return np.load(target, mmap_mode="r", allow_pickle=False)


def _check_text(values: Array, key: str) -> None:
    """Raise ValueError if a text array holds invalid characters, some of which crash Python."""
    if values.dtype.kind == "U" and values.nbytes:
        codes = np.frombuffer(np.ascontiguousarray(values).tobytes(), values.dtype.str[0] + "u4")
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
            raise ValueError(f"array {key!r} holds invalid text")


def _header(stream: Any) -> tuple[bool, tuple[int, ...], np.dtype[Any]]:
    """Whether the array is in Fortran order, its shape and its type, from the header; the stream then is at the data.

    Raises:
        ValueError: the header is not valid.
    """
    version = np.lib.format.read_magic(stream)
    size = stream.read(2 if version == (1, 0) else 4)
    if int.from_bytes(size, "little") > MOST_HEADER:
        raise ValueError(f"its header is {int.from_bytes(size, 'little')} bytes long")
    whole = io.BytesIO(size + stream.read(int.from_bytes(size, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(whole)
    except BAD_HEADER as error:
        raise ValueError(f"its header is damaged: {error}") from error
    if any(n < 0 for n in shape):
        raise ValueError(f"its header declares the shape {shape}")
    return fortran, shape, dtype


def _npy_header(path: Path) -> tuple[bool, tuple[int, ...], np.dtype[Any]]:
    with path.open("rb") as stream:
        return _header(stream)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise DataError for any exception of NumPy and zipfile about a damaged file."""
    try:
        yield
    except DataError:
        raise
    except RuntimeError as error:  # zipfile needs a password
        raise DataError(f"{path} cannot be read as a NumPy file ({error}): save it without a password") from error
    except DAMAGE as error:
        raise DataError(
            f"{path} cannot be read as a NumPy file ({error}): damaged, or another format; save it again"
        ) from error

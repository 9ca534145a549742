"""HDF5 files: groups, arrays and texts, with the checks that keep a small or hostile file from harm."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import BLOCK, Array, Progress
from vaekit.errors import DataError

RATIO, SMALL = 1100, 2**20
"""An array may be 1,100 times as large as its compressed bytes (deflate reaches 1,032), or this many bytes."""
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError)
"""Exceptions of h5py for damaged files."""
SECONDS, BYTES_PER_SECOND = 5, 10**7
"""CPU time for reading the attributes and texts of a small file, and the speed expected of a large one."""
MEMORY, GROWTH = 10**9, 8
"""Memory for the attributes and texts of a small file, in bytes, and in bytes per byte of a large one."""

MOST_MEMBERS = 10_000
"""Groups and arrays of a file at most."""
MOST_CHUNK = 2**29
"""Bytes of a block of rows that is read at once."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The root group of an HDF5 file, open for reading.

    Raises:
        DataError: h5py is missing, or the file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"reading {path} needs h5py: pip install 'vaekit[hdf5]', or save its arrays with numpy.savez (a sparse "
            "matrix with scipy.sparse.save_npz)"
        ) from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    about = path.stat()
    examine(path, about.st_size, about.st_mtime_ns)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (*DAMAGE, MemoryError) as error:
        raise DataError(f"{path} cannot be read as HDF5 ({error}): damaged, or another format") from error


@lru_cache(maxsize=64)
def examine(path: Path, size: int, changed: int) -> None:
    """Read the attributes and texts of a file in another process, because the HDF5 library can hang on damaged ones.

    Arguments:
        path: the file.
        size: its bytes.
        changed: time of its last change; a file that changes is examined again.

    Raises:
        DataError: that process crashes, or needs far more time or memory than the size of the file explains.
    """
    from .hdf5_walk import TOO_LARGE

    seconds, memory = SECONDS + size // BYTES_PER_SECOND, MEMORY + GROWTH * size
    code = _walked(path, seconds, memory)
    if code == TOO_LARGE:
        raise DataError(f"{path} is damaged: reading its texts takes more than {memory:,} bytes of memory")
    if code < 0:
        ends = "does not end" if -code == getattr(signal, "SIGXCPU", None) else f"ends with signal {-code}"
        raise DataError(f"{path} is damaged: reading its attributes and texts {ends}")


def _walked(path: Path, seconds: int, memory: int) -> int:
    """The exit code of `hdf5_walk.walk` in a new process, negative if a signal ended it."""
    source = Path(__file__).with_name("hdf5_walk.py").read_text(encoding="utf-8")
    command = [sys.executable, "-c", source, str(path), str(seconds), str(memory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True).returncode


def member(group: Any, name: str) -> Any:
    """The group or array `name` (or a path of names) in a group, or None.

    Raises:
        DataError: a link leads elsewhere: another file could be read without the user's knowledge.
    """
    import h5py

    found = group
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or part not in found:
            return None
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise DataError(f"{group.file.filename}: {name} is a link to another place, which is not followed")
        found = found[part]
    return found


def is_group(found: Any) -> bool:
    """Whether a member is a group, not an array."""
    import h5py

    return isinstance(found, h5py.Group)


def attribute(found: Any, name: str, default: Any = "") -> Any:
    """An attribute of a member; bytes are decoded."""
    value = found.attrs.get(name, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def array(found: Any, what: str) -> Array:
    """An array of numbers or of texts, in memory; the values of an enumeration are their names, or booleans.

    Raises:
        DataError: it is a group, holds other values, lies in another file, or is larger than its bytes allow.
    """
    import h5py

    where = _checked(found, what)
    text = h5py.check_string_dtype(found.dtype)
    if text is not None:
        values = np.asarray(found.asstr("utf-8", "replace")[()], dtype=object)
        return np.array([str(value).replace("\0", "") for value in values.ravel()], dtype=np.str_).reshape(values.shape)
    if (named := h5py.check_enum_dtype(found.dtype)) is not None:
        return _enumerated(np.asarray(found[()]), named, where)
    if found.dtype.kind not in "buif":
        raise DataError(f"{where} holds {found.dtype}, expected numbers or texts")
    return np.asarray(found[()])


def is_named(found: Any) -> bool:
    """Whether the values of an array are an enumeration of names, not of false and true."""
    import h5py

    named = h5py.check_enum_dtype(found.dtype)
    return named is not None and not _is_bool(named)


def _is_bool(named: Mapping[str, int]) -> bool:
    return {name.lower(): value for name, value in named.items()} == {"false": 0, "true": 1}


def _enumerated(codes: Array, named: Mapping[str, int], where: str) -> Array:
    """The values of an enumeration by their names, or as booleans if these are false and true."""
    if _is_bool(named):
        return codes.astype(bool)
    name_of = {value: name for name, value in named.items()}
    found, index = np.unique(codes, return_inverse=True)
    if unknown := [int(code) for code in found if int(code) not in name_of]:
        raise DataError(f"{where} holds {unknown[0]}, which its enumeration does not name: it is damaged")
    return np.array([name_of[int(code)] for code in found], np.str_)[index].reshape(codes.shape)


def _checked(found: Any, what: str) -> str:
    """The place of an array in words, for messages; raises the errors of `array` but that for its values."""
    import h5py

    where = f"{found.file.filename}: {what}"
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{where} is a group, expected an array")
    if found.is_virtual or found.external:
        raise DataError(f"{where} lies in another file, which is not read")
    size = max(math.prod(found.shape), math.prod(found.chunks or ())) * found.dtype.itemsize
    stored = min(found.id.get_storage_size(), Path(found.file.filename).stat().st_size)
    if size > max(SMALL, RATIO * stored):
        raise DataError(f"{where} declares {found.shape} of {found.dtype}, but only {stored:,} bytes are stored")
    return where


def members(group: Any) -> dict[str, Any]:
    """All arrays of a file by their paths without the first slash; links to other places are not followed.

    Raises:
        DataError: there are more than `MOST_MEMBERS` groups and arrays.
    """
    import h5py

    found: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(inside: Any, path: str) -> None:
        for name in inside:
            if not isinstance(inside.get(name, getlink=True), h5py.HardLink):
                continue
            child, where = inside[name], f"{path}/{name}" if path else name
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MOST_MEMBERS:
                raise DataError(f"{group.file.filename} has more than {MOST_MEMBERS:,} groups and arrays: export fewer")
            if isinstance(child, h5py.Dataset):
                found[where] = child
            elif isinstance(child, h5py.Group):
                walk(child, where)

    walk(group, "")
    return found


def mapped(found: Any, what: str, target: Path, progress: Progress | None, turned: bool = False) -> Array:
    """An array of numbers that may be large: a large one is mapped in its file, or copied to the cache and mapped.

    Args:
        found, what: as for `array`.
        target: path of the copy, whose name identifies the file and the array.
        progress: called while the array is copied.
        turned: whether the axes are reversed, so that the last one becomes that of the rows.

    Raises:
        DataError: as for `array`; or the cache cannot be written.
    """
    import h5py

    where = _checked(found, what)
    plain = found.dtype.kind in "buif" and h5py.check_enum_dtype(found.dtype) is None
    if math.prod(found.shape) * found.dtype.itemsize < caches.LARGE or not plain:
        whole = array(found, what)
        return np.ascontiguousarray(whole.T) if turned else whole
    if not turned and (there := _in_place(found)) is not None:
        return there
    shape = found.shape[::-1] if turned else found.shape
    n, chunk = shape[0], (found.chunks or (1,))[-1 if turned else 0]
    row = math.prod(shape[1:]) * found.dtype.itemsize
    step = max(1, BLOCK // max(1, row) // chunk) * chunk  # whole chunks, so that none is read twice
    if min(step, n) * row > MOST_CHUNK:
        raise DataError(f"{where} has chunks of {chunk:,} rows, which are too large: save it in smaller chunks")
    places = (slice(start, start + step) for start in range(0, n, step))
    parts = (found[..., place].T if turned else found[place] for place in places)
    return caches.written(target, found.dtype, shape, parts, progress)


def _in_place(found: Any) -> Array | None:
    """An array mapped where it lies in its file, or None if it does not lie there in one piece."""
    offset = found.id.get_offset()
    if offset is None or found.chunks is not None:
        return None
    try:
        there = np.memmap(found.file.filename, found.dtype, mode="r", offset=offset, shape=found.shape)
    except (OSError, ValueError):
        return None
    same = all(there[i].tobytes() == found[i].tobytes() for i in (0, len(there) // 2, len(there) - 1))
    return there if same else None

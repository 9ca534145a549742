"""Arrays of numbers in MATLAB files of versions 5 to 7.2 (MATLAB, "MAT-File Format", 2015, chapter 1).

They are parsed here because SciPy's parser may crash on damaged files; the tests compare it with SciPy.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.core import Array
from vaekit.errors import DataError

HEADER, MATRIX, COMPRESSED = 128, 14, 15
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Dtypes of the classes of arrays of numbers."""
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Dtypes in which numbers are stored: MATLAB stores whole doubles as the smallest integers that hold them."""
LOGICAL, COMPLEX = 0x0200, 0x0800
"""Bits of the flags of an array."""
START, MOST_AXES, MOST_VARIABLES = 4096, 32, 10_000
"""Bytes of a variable in which its header must lie; axes of an array, and variables of a file, at most."""
RATIO, SMALL = 1100, 2**20
"""A variable may be 1,100 times as large as its compressed bytes (deflate reaches 1,032), or this many bytes."""


@dataclass(frozen=True)
class Variable:
    """A variable of a file.

    Attributes:
        name: its name.
        shape: its shape in MATLAB.
        dtype: the type of its numbers in MATLAB; None if it is not an array of real numbers.
        stored: the type in which they are stored.
        place, size: position in the file, and number of bytes there, of its element.
        start: position of the numbers in the element, after it is unpacked.
        packed: whether the element is compressed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    stored: np.dtype[Any]
    place: int
    size: int
    start: int
    packed: bool


def variables(path: Path) -> list[Variable]:
    """The variables in a file.

    Raises:
        DataError: the file is damaged or of another format.
    """
    total = path.stat().st_size
    found: list[Variable] = []
    with path.open("rb") as file:
        head = file.read(HEADER)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            raise DataError(
                f"{path} is not a MATLAB file of version 5 or later, or is damaged: save it again with -v7 or -v7.3"
            )
        at = HEADER
        while at + 8 <= total:
            file.seek(at)
            kind, size = struct.unpack(f"{order}II", file.read(8))
            if kind not in (MATRIX, COMPRESSED) or at + 8 + size > total or len(found) >= MOST_VARIABLES:
                raise _damaged(path, f"at byte {at:,}")
            start = file.read(min(size, START))
            place = at + 8
            try:
                if kind == COMPRESSED:
                    start = zlib.decompressobj().decompress(start, START)[8:]
                found.append(_parsed(start, order, place, size, kind == COMPRESSED))
            except (struct.error, zlib.error, ValueError, IndexError) as error:
                raise _damaged(path, f"in the variable at byte {at:,}: {error}") from error
            at = place + size
    return found


def _damaged(path: Path, where: str) -> DataError:
    return DataError(f"{path} cannot be read as a MATLAB file ({where}): damaged; save it again with -v7 or -v7.3")


def _element(data: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """The type, the number of bytes and the position of the content of an element, and the position of the next one."""
    first, second = struct.unpack_from(f"{order}II", data, at)
    if first >> 16:  # a small element, whose content lies in its tag
        if first >> 16 > 4:
            raise ValueError("a small element is too long")
        return first & 0xFFFF, first >> 16, at + 4, at + 8
    return first, second, at + 8, at + 8 + -(-second // 8) * 8


def _parsed(data: bytes, order: str, place: int, size: int, packed: bool) -> Variable:
    """The header of a variable from the first bytes of its element."""
    _, length, start, at = _element(data, 0, order)
    flags = struct.unpack_from(f"{order}I", data, start)[0] if length >= 4 else 0
    kind, length, start, at = _element(data, at, order)
    if kind != 5 or length % 4 or not 2 <= length // 4 <= MOST_AXES:
        raise ValueError("its shape is damaged")
    shape = struct.unpack_from(f"{order}{length // 4}i", data, start)
    if min(shape) < 0:
        raise ValueError("its shape is negative")
    _, length, start, at = _element(data, at, order)
    name = data[start : start + length].decode("ascii", "replace")
    dtype = np.dtype("bool" if flags & LOGICAL else CLASSES.get(flags & 0xFF, "V1"))
    if dtype.kind == "V" or flags & COMPLEX or not math.prod(shape):
        return Variable(name, shape, None, np.dtype("u1"), place, size, 0, packed)
    kind, length, start, _ = _element(data, at, order)
    stored = np.dtype(order + STORED[kind]) if kind in STORED else None
    if stored is None or length != math.prod(shape) * stored.itemsize:
        raise ValueError(f"its numbers do not fit its shape {shape}")
    return Variable(name, shape, dtype, stored, place, size, start, packed)


def read(path: Path, variable: Variable) -> Array:
    """The numbers of a variable, in memory.

    Raises:
        DataError: they are damaged, or more than the bytes of the file allow.
    """
    assert variable.dtype is not None
    count = math.prod(variable.shape)
    length = variable.start + count * variable.stored.itemsize
    if length > (max(SMALL, RATIO * variable.size) if variable.packed else variable.size):
        raise DataError(
            f"{path}: {variable.name} declares {variable.shape}, but only {variable.size:,} bytes are stored"
        )
    with path.open("rb") as file:
        file.seek(variable.place)
        data = file.read(variable.size)
    if variable.packed:
        unpack = zlib.decompressobj()
        try:
            data = unpack.decompress(data, length + 8)[8:]
            unpack.decompress(unpack.unconsumed_tail, START)  # at the end, zlib compares the checksum
        except zlib.error as error:
            raise _damaged(path, f"{variable.name}: {error}") from error
        if not unpack.eof:
            raise _damaged(path, f"{variable.name} has no end")
    if len(data) < length:
        raise _damaged(path, f"{variable.name} is cut short")
    values = np.frombuffer(data, variable.stored, count, variable.start)
    return values.astype(variable.dtype).reshape(variable.shape, order="F")

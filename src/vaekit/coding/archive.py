"""The format of archives, without pickle: a header of JSON, the stack of bits, and what the model takes as known.

8 bytes    b"\\x89VAEKIT\\n"
4 bytes    length of the header, little endian
header     JSON in UTF-8, compressed by zlib: version, the path of the run and the SHA-256 of its weights,
           likelihood, n, shape and dtype of the data, SHA-256 of the data, grids and bins, sizes of the parts
states     8 bytes per lane
words      4 bytes each, bottom first
known      missing elements, totals and conditions, each compressed by zlib
4 bytes    CRC-32 of everything before
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import DataError, RunError
from vaekit.utils.files import write_atomically

from .ans import Stack

MAGIC = b"\x89VAEKIT\n"
VERSION = 1
LONGEST_HEADER = 2**22
MOST_LANES = 2**16
ROWS_PER_BYTE = 1400
"""More data than this cannot be in a byte: every datum costs at least one shift, 0.006 bits."""
MOST_BORROWED = 2**32
KNOWN = ("missing", "total", "condition")
"""The parts of what the model takes as known, in their order."""


@dataclass
class Archive:
    """The contents of an archive.

    Attributes:
        header: see the module; without the sizes of the parts.
        stack: the bits.
        known: what the model takes as known, by name, compressed by `deflated`.
    """

    header: dict[str, Any]
    stack: Stack
    known: dict[str, bytes] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of data."""
        return int(self.header["n"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return tuple(self.header["shape"])

    def to_bytes(self) -> tuple[bytes, dict[str, int]]:
        """The archive, and the sizes of its parts in bytes: `header`, `states`, `words` and `known`."""
        known = [self.known.get(name, b"") for name in KNOWN]
        sizes = [len(part) for part in known]
        words, lanes = self.stack.words, len(self.stack.states)
        whole = self.header | {"lanes": lanes, "words": len(words), "borrowed": self.stack.missing, "known": sizes}
        text = zlib.compress(json.dumps(whole, separators=(",", ":"), allow_nan=False).encode(), 9)
        parts = [
            MAGIC + struct.pack("<I", len(text)) + text,
            self.stack.states.astype("<u8").tobytes(),
            words.astype("<u4").tobytes(),
            b"".join(known),
        ]
        body = b"".join(parts)
        lengths = dict(zip(("header", "states", "words", "known"), map(len, parts), strict=True))
        return body + struct.pack("<I", zlib.crc32(body)), lengths | {"header": lengths["header"] + 4}


def write(path: Path, content: bytes) -> None:
    """Write an archive atomically.

    Raises:
        RunError: the file cannot be written.
    """
    write_atomically(path, lambda part: part.write_bytes(content))


def read(path: Path) -> Archive:
    """Read an archive.

    Raises:
        DataError: it is not an archive, damaged, or of a newer version.
        RunError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if content[:8] != MAGIC:
        raise DataError(f"{path} is not an archive: `vaekit compress` and `run.compress` write them")
    if len(content) < 16 or struct.unpack("<I", content[-4:])[0] != zlib.crc32(content[:-4]):
        raise DataError(f"{path} is damaged: its checksum differs; copy it again")
    try:
        return parsed(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): copy it again") from None


def deflated(content: bytes) -> bytes:
    """The inverse of `inflated`."""
    return zlib.compress(content, 9)


def inflated(content: bytes, most: int) -> bytes:
    """The decompressed content, at most so many bytes.

    Raises:
        ValueError, zlib.error: it is damaged, or has more bytes.
    """
    inflate = zlib.decompressobj()
    text = inflate.decompress(content, most + 1)  # not `most`, as 0 would mean that there is no limit
    if len(text) > most or not inflate.eof:
        raise ValueError(f"a part has more than {most:,} bytes, or is not whole")
    return text


def parsed(content: bytes) -> Archive:
    """The archive with this content.

    Raises:
        DataError: it is of a newer version.
        KeyError, OverflowError, TypeError, ValueError, struct.error, zlib.error: it is damaged.
    """
    content = content[:-4]
    (length,) = struct.unpack("<I", content[8:12])
    header = json.loads(inflated(content[12 : 12 + length], LONGEST_HEADER))
    if (found := int(header["version"])) != VERSION:
        raise DataError(f"the archive has version {found}, and this vaekit reads {VERSION}: update vaekit")
    lanes, words, missing = (int(header.pop(name)) for name in ("lanes", "words", "borrowed"))
    sizes = [int(size) for size in header.pop("known")]
    n, shape = int(header["n"]), [int(size) for size in header["shape"]]
    rest = content[12 + length :]
    possible = 0 < lanes <= MOST_LANES and words >= 0 and 0 <= missing < MOST_BORROWED
    possible = possible and len(sizes) == len(KNOWN) and min(sizes) >= 0
    possible = possible and len(rest) == 8 * lanes + 4 * words + sum(sizes)
    if not (possible and 0 < n < ROWS_PER_BYTE * len(content) and bool(shape) and min(shape) > 0):
        raise ValueError("the sizes of its parts are not possible")
    states = np.frombuffer(rest, "<u8", lanes).astype(np.uint64)
    stacked = np.frombuffer(rest, "<u4", words, 8 * lanes).astype(np.uint32)
    if (states < np.uint64(1 << 31)).any() or (states >= np.uint64(1 << 63)).any():
        raise ValueError("a state is out of range")
    known, at = {}, 8 * lanes + 4 * words
    for name, size in zip(KNOWN, sizes, strict=True):
        if size:
            known[name] = rest[at : at + size]
        at += size
    return Archive(header, Stack.of(states, stacked, missing, whole=True), known)

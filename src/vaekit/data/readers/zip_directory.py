"""The directory of a .zip or .npz file compared with the headers of its files; zipfile compares only their names."""

import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ENTRY, HEADER = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
"""An entry of the directory, and the header before a file."""
END, END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
"""What follows the directory; the second precedes the first in large archives."""
LOCATOR = 20
"""Bytes between `END64` and `END`."""
FULL = 2**32 - 1
"""A size that is stored in a further field."""
PASSWORD, LATER, UTF8 = 1, 8, 2**11
"""Flags: encrypted; checksum and sizes follow the file, and are not in its header; the name is UTF-8."""


class _About(NamedTuple):
    """What the directory or a header says of a file; `header` and `file` are in bytes."""

    flags: int
    packing: int
    checksum: int
    size: int
    unpacked: int
    name: bytes


def check(path: Path, file: zipfile.ZipFile) -> None:
    """Compare the directory of an open archive with its number of entries, and with the header of each file.

    Raises:
        zipfile.BadZipFile: they differ.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        entries = list(_entries(raw, file.start_dir))
        if len(entries) != len(file.infolist()):
            raise zipfile.BadZipFile(
                f"it has {len(file.infolist())} files, but {len(entries)} entries of its directory"
            )
        for info, entry in zip(file.infolist(), entries, strict=True):
            # zipfile has resolved the sizes of large files
            entry = entry._replace(size=info.compress_size, unpacked=info.file_size)
            if differs := _difference(entry, _header(raw, info.header_offset)):
                raise zipfile.BadZipFile(f"its directory and the header of {info.filename!r} differ in {differs}")


def _entries(raw: mmap.mmap, at: int) -> Iterator[_About]:
    """The entries of the directory; afterwards, their number is compared with the one that is stored.

    Raises:
        zipfile.BadZipFile: the numbers differ, or the directory does not end where it should.
    """
    count = 0
    while raw[at : at + 4] == b"PK\1\2" and at + ENTRY.size <= len(raw):
        _, _, _, flags, packing, _, _, checksum, size, unpacked, name, extra, comment, *_ = ENTRY.unpack_from(raw, at)
        at += ENTRY.size
        yield _About(flags, packing, checksum, size, unpacked, raw[at : at + name])
        at += name + extra + comment
        count += 1
    stated = None
    if raw[at : at + 4] == b"PK\6\6" and at + END64.size <= len(raw):
        _, size, _, _, _, _, _, stated, *_ = END64.unpack_from(raw, at)
        at += 12 + size + LOCATOR
    if raw[at : at + 4] != b"PK\5\6" or at + END.size > len(raw):
        raise zipfile.BadZipFile("its directory of files has no end")
    short = END.unpack_from(raw, at)[4]
    if (short != 2**16 - 1 and short != count % 2**16) or stated not in (None, count):
        raise zipfile.BadZipFile(f"its directory has {count} entries, but states {short if stated is None else stated}")


def _header(raw: mmap.mmap, at: int) -> _About:
    """The header before a file.

    Raises:
        zipfile.BadZipFile: there is none.
    """
    if at < 0 or raw[at : at + 4] != b"PK\3\4" or at + HEADER.size > len(raw):
        raise zipfile.BadZipFile(f"byte {at} does not begin a file, but its directory says so")
    _, _, flags, packing, _, _, checksum, size, unpacked, name, extra = HEADER.unpack_from(raw, at)
    at += HEADER.size
    more, large = raw[at + name : at + name + extra], []
    while len(more) >= 4:
        kind, length = struct.unpack_from("<HH", more)
        if kind == 1:
            large = [int.from_bytes(more[4 + i : 12 + i], "little") for i in range(0, length, 8)]
        more = more[4 + length :]
    if unpacked == FULL and large:
        unpacked = large.pop(0)
    if size == FULL and large:
        size = large.pop(0)
    return _About(flags, packing, checksum, size, unpacked, raw[at : at + name])


def _difference(one: _About, other: _About) -> str:
    """The first field in which two descriptions of a file differ; empty if they agree."""
    if one.name != other.name or ((one.flags ^ other.flags) & UTF8 and not one.name.isascii()):
        return "its name"
    if one.packing != other.packing:
        return "how it is packed"
    if (one.flags ^ other.flags) & PASSWORD:
        return "whether it is encrypted"
    if (one.flags | other.flags) & LATER:
        return ""
    if (one.size, one.unpacked) != (other.size, other.unpacked):
        return "its size"
    return "" if one.checksum == other.checksum else "its checksum"

"""Text files in any common encoding (UTF-8, UTF-16, Windows-1252, Latin-1), compressed or not."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from vaekit.errors import DataError

PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {  # longer marks first
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHERS = {
    b"PK\x03\x04": "an Excel workbook or a .zip archive: save the sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    b"SQLite format 3": "an SQLite data base: export the table as CSV",
    b"\x89HDF": "an HDF5 file: save the table as CSV or Parquet",
    b"ARROW1": "an Arrow file: save the table as Parquet",
    b"\x93NUMPY": "a NumPy array: name it .npy",
    b"%PDF": "a PDF: save the table as CSV",
}
BLOCK = 2**20
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of reading a file, compressed or not."""
_NOT_ASCII = re.compile("[^\x00-\x7f]")


@dataclass(frozen=True)
class Text:
    """A file of text and how to read it.

    Args:
        path: path of the file.
        encoding: name of a codec of Python.
        notes: messages to the user about the encoding.
    """

    path: Path
    encoding: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> "Text":
        """Read the whole file in blocks and infer its encoding.

        Raises:
            DataError: the file cannot be read, or is not text; the message names its format if it is recognised.
        """
        try:
            with unpacked(path) as file:
                return _examined(path, file)
        except DAMAGE as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path} cannot be read ({reason})") from error

    def open(self) -> TextIO:
        """The file, opened at its start, with its line ends unchanged."""
        return io.TextIOWrapper(unpacked(self.path), self.encoding, newline="")


def unpacked(path: Path) -> IO[bytes]:
    """The bytes of a file, uncompressed if it is compressed with gzip, bzip2 or xz."""
    with path.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path, "rb")


def _examined(path: Path, file: IO[bytes]) -> Text:
    start = file.read(BLOCK)
    if known := next((text for magic, text in OTHERS.items() if start.startswith(magic)), None):
        raise DataError(f"{path} is {known}")
    visible = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if visible[:1] == b"<":
        raise DataError(f"{path} is a web page or XML, not a table: download the data file, or save the table as CSV")
    if visible[:1] in (b"{", b"[") and visible[1:2] not in (b"", b","):
        raise DataError(f"{path} looks like JSON: save the table as CSV or Parquet")
    if visible[:9].lower() == b"@relation":
        raise DataError(f"{path} is an ARFF file: save the table as CSV")
    marked = next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), None)
    if marked is None and start.count(b"\0", 1, 200) > len(start[:200]) // 4:  # Latin text, two bytes per character
        marked = "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    if marked:
        return Text(path, marked, (f"{path.name} is read as {marked[:6].upper()}",))
    return _eight_bits(path, file, start)


def _eight_bits(path: Path, file: IO[bytes], block: bytes) -> Text:
    """UTF-8 if the whole file is valid; Windows-1252 or Latin-1 if most non-ASCII bytes are not; else DataError."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    good = bad = line = 0
    first_bad, undefined = 0, False
    while block:
        if b"\0" in block:
            raise DataError(f"{path} is not text (it holds zero bytes): expected CSV in UTF-8, or .parquet")
        if not block.isascii() or bad:
            text = decode(block)
            chars = _NOT_ASCII.findall(text)
            escaped = [char for char in chars if "\udc80" <= char <= "\udcff"]
            if escaped and not bad:
                first_bad = line + 1 + text[: text.index(escaped[0])].count("\n")
            bad, good = bad + len(escaped), good + len(chars) - len(escaped)
            undefined = undefined or any(byte in block for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D))
        line += block.count(b"\n")
        block = file.read(BLOCK)
    if not bad:
        return Text(path, "utf-8-sig")
    if good >= bad:
        raise DataError(f"{path}, line {first_bad}: not UTF-8, unlike the other lines: correct it, or save as UTF-8")
    encoding, name = ("latin-1", "Latin-1") if undefined else ("cp1252", "Windows-1252 (Latin-1)")
    return Text(
        path,
        encoding,
        (f"{path.name} is not UTF-8 (line {first_bad}) and is read as {name}: if texts look wrong, save it as UTF-8",),
    )

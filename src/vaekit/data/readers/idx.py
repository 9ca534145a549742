"""IDX, the format of MNIST and similar data sets: one file, or a folder with train and t10k images and labels."""

import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Progress
from vaekit.data.source import Source
from vaekit.errors import DataError

from .registry import reader

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"^(?P<set>.*?)(?P<part>train|t10k|test)-(?P<content>images|labels)[-.]idx(?P<axes>\d)-ubyte(\.gz)?$")
STANDARD = (60_000, 50_000)
"""With this many training rows, as in MNIST, the rows from the second number on are the validation split."""


def is_idx(path: Path) -> bool:
    """Whether a file is an IDX file, by its name."""
    return re.search(r"[-.](idx\d?(-ubyte)?|ubyte)(\.gz)?$", path.name) is not None


START = 4 + 4 * 255  # size of the longest header in bytes


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise DataError for any error of gzip or the system about a file."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _unpacked_size(path: Path) -> int:
    """Size in bytes of the IDX file in a gzip file, by the IDX header; the size that gzip stores may be wrong.

    Raises:
        DataError: the file cannot be read, or has no IDX header.
    """
    with _damage(path), gzip.open(path) as stream:
        dtype, shape, offset = _promised(stream.read(START), path)
        return offset + dtype.itemsize * math.prod(shape)


def header(start: bytes, length: int, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Type, shape and header size of an IDX file that starts with `start` and has `length` bytes.

    Raises:
        DataError: there is no IDX header, or it does not fit the size of the file.
    """
    dtype, shape, offset = _promised(start, path)
    expected = offset + dtype.itemsize * math.prod(shape)
    if expected != length:
        raise DataError(
            f"{path}: its header declares {' x '.join(map(str, shape))} values of {dtype.itemsize} byte(s), {expected} "
            f"bytes in all, got {length}: {'cut short' if length < expected else 'a wrong header'}; download it again"
        )
    return dtype, shape, offset


def _promised(start: bytes, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Type, shape and header size by the first bytes of an IDX file."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES or not start[3]:
        types = ", ".join(f"0x{code:02x}" for code in TYPES)
        raise DataError(
            f"{path} is not an IDX file: expected two zero bytes, a type ({types}) and a number of axes, got "
            f"{start[:4].hex(' ') or 'no bytes'}; choose another file, or give it the suffix of its format"
        )
    dtype, axes = np.dtype(TYPES[start[2]]), start[3]
    offset = 4 + 4 * axes
    if len(start) < offset:
        raise DataError(f"{path} is cut short: its header needs {offset} bytes, got {len(start)}; download it again")
    shape = tuple(int.from_bytes(start[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    return dtype, shape, offset


def parse(data: bytes, path: Path) -> Array:
    """The array in the (unpacked) bytes of the IDX file `path`.

    Raises:
        DataError: as for `header`.
    """
    dtype, shape, offset = header(data[:START], len(data), path)
    return np.frombuffer(data, dtype, offset=offset).reshape(shape)


def _unpacked(path: Path, size: int, cache: str | Path | None) -> Path:
    """A gzip file, unpacked once into the cache; at most one byte more than `size` is unpacked."""
    try:
        stat = path.stat()
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        target = caches.folder(cache) / "idx" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.idx"
        if not target.exists():
            with gzip.open(path) as stream, caches.writing(target) as out:
                _copy(stream, out, size + 1)
        return target
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): download it again") from error


def _copy(stream: gzip.GzipFile, out: IO[bytes], most: int) -> None:
    while most > 0 and (part := stream.read(min(most, 2**20))):
        out.write(part)
        most -= len(part)


def read(path: Path, cache: str | Path | None = None) -> Array:
    """The array in an IDX file, memory-mapped; a gzip file is unpacked into memory, or into the cache if it is large.

    Raises:
        DataError: the file cannot be read, or its header is wrong.
    """
    if path.suffix == ".gz":
        size = _unpacked_size(path)
        if size < caches.LARGE:
            with _damage(path), gzip.open(path) as stream:
                return parse(stream.read(size + 1), path)
        unpacked = _unpacked(path, size, cache)
        with unpacked.open("rb") as file:
            header(file.read(START), unpacked.stat().st_size, path)  # errors name the user's file
        return read(unpacked)
    try:
        with path.open("rb") as file:
            start = file.read(4 + 4 * 255)
        dtype, shape, offset = header(start, path.stat().st_size, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    if not math.prod(shape):
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


@reader("idx", "an IDX file", reads=lambda path: is_idx(path) and not path.is_dir(), files="IDX (plain or .gz)")
def source(path: Path, *, cache: str | Path | None = None) -> Source:
    """The data in one IDX file, with the labels in the file beside it if their names match.

    Raises:
        DataError: the file cannot be read, or holds single numbers.
    """
    x = read(path, cache)
    if x.ndim == 1:
        raise DataError(f"{path} holds {len(x)} single numbers (labels?), expected data: give the images or the folder")
    match = NAME.match(path.name)
    if match is None:
        return Source(x)
    files = _files(path.parent)
    labels = files.get((match["set"], match["part"], "labels"))
    return Source(x, label=None if labels is None else _labels(labels, len(x)))


def has_idx(path: Path) -> bool:
    """Whether the folder holds images with file names as in MNIST."""
    return any(content == "images" for _, _, content in _files(path))


@reader("idx-folder", "a folder of IDX files", reads=lambda path: path.is_dir() and has_idx(path))
def folder(path: Path, *, cache: str | Path | None = None, progress: Progress | None = None) -> Source:
    """A folder of files named as in MNIST, plain or gzip; train and t10k become the train and test splits.

    Of 60,000 training rows the last 10,000 become the validation split, as is customary for MNIST and Fashion-MNIST.

    Raises:
        DataError: there are no training images or several data sets, or the files do not fit each other.
    """
    files = _files(path)
    sets = sorted({name for name, _, content in files if content == "images"})
    if len(sets) > 1:
        raise DataError(
            f"{path} holds several IDX data sets ({', '.join(sets)}): give the file with the images of one of them"
        )
    images = {
        "test" if part != "train" else part: file for (_, part, content), file in files.items() if content == "images"
    }
    if "train" not in images:
        raise DataError(f"{path} holds {images['test'].name} but no training images (train-images-idx3-ubyte[.gz])")
    x = {part: read(file, cache) for part, file in images.items()}
    label = {}
    for (_, part, content), file in files.items():
        part = "test" if part != "train" else part
        if content == "labels" and part in x:
            label[part] = _labels(file, len(x[part]))
    return together(x["train"], x.get("test"), label.get("train"), label.get("test"), cache, progress)


def together(
    train: Array,
    test: Array | None,
    train_label: Array | None,
    test_label: Array | None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Training and test data as one source with the customary splits; large arrays are joined in the cache.

    Raises:
        DataError: the arrays differ in shape or type.
    """
    if test is None:
        return Source(train, label=train_label)
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise DataError(
            "training and test data must agree in type and shape: "
            f"got {train.dtype} {train.shape[1:]} and {test.dtype} {test.shape[1:]}"
        )
    n = len(train)
    splits = {"train": np.arange(n), "test": np.arange(n, n + len(test))}
    if n == STANDARD[0]:
        splits |= {"train": np.arange(STANDARD[1]), "valid": np.arange(STANDARD[1], n)}
    label, notes = None, []
    if train_label is not None or test_label is not None:
        parts = {"train": (train, train_label), "test": (test, test_label)}
        label = np.concatenate([np.full(len(x), -1) if known is None else known for x, known in parts.values()])
        notes = [f"the {part} data have no labels" for part, (_, known) in parts.items() if known is None]
    return Source(caches.joined([train, test], cache, progress), label=label, splits=splits, notes=tuple(notes))


def _files(path: Path) -> dict[tuple[str, str, str], Path]:
    """The IDX files in a folder by data set, part (train, t10k or test) and content (images or labels)."""
    files: dict[tuple[str, str, str], Path] = {}
    for file in sorted(path.iterdir(), reverse=True):  # so that a plain file replaces the same file in gzip
        if match := NAME.match(file.name):
            files[match["set"], match["part"], match["content"]] = file
    return files


def _labels(path: Path, n: int) -> Array:
    label = read(path)
    if label.shape != (n,):
        raise DataError(f"{path} must hold one label for each of {n} images, got shape {label.shape}")
    return np.asarray(label)

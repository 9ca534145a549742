"""IDX, the format of MNIST and its descendants: one file, or a folder of train and t10k images and labels."""

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
from vaekit.data.arrays import Source
from vaekit.data.core import Array, Progress
from vaekit.errors import DataError

from .registry import reader

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"^(?P<set>.*?)(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx(?P<axes>\d)-ubyte(\.gz)?$")
STANDARD = (
    60_000,
    50_000,
)  # of this many training rows, the rows after so many are by custom the valid split


def is_idx(path: Path) -> bool:
    """Whether the file name is one that IDX files have."""
    return re.search(r"[-.](idx\d?(-ubyte)?|ubyte)(\.gz)?$", path.name) is not None


START = 4 + 4 * 255  # bytes of the longest header


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what gzip and the system say of a file into one error."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _unpacked_size(path: Path) -> int:
    """Bytes that the IDX file in a gzip file has, by its own header: gzip's word for it may be wrong.

    Raises:
        DataError: it cannot be read, or has no IDX header.
    """
    with _damage(path), gzip.open(path) as stream:
        dtype, shape, offset = _promised(stream.read(START), path)
        return offset + dtype.itemsize * math.prod(shape)


def header(start: bytes, length: int, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Type, shape and header length of an IDX file that starts with `start` and has `length` bytes.

    Raises:
        DataError: no IDX header, or one that does not agree with the length of the file.
    """
    dtype, shape, offset = _promised(start, path)
    expected = offset + dtype.itemsize * math.prod(shape)
    if expected != length:
        raise DataError(
            f"{path}: its header promises {' x '.join(map(str, shape))} of {dtype.itemsize} byte(s), {expected} bytes "
            f"in all, got {length}: {'cut short' if length < expected else 'a wrong header'}; fetch it again"
        )
    return dtype, shape, offset


def _promised(start: bytes, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Type, shape and header length that the first bytes of an IDX file promise."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES or not start[3]:
        types = ", ".join(f"0x{code:02x}" for code in TYPES)
        raise DataError(
            f"{path} is not an IDX file: expected two zero bytes, a type ({types}) and a number of axes, got "
            f"{start[:4].hex(' ') or 'nothing'}; choose another file, or rename it to its true format"
        )
    dtype, axes = np.dtype(TYPES[start[2]]), start[3]
    offset = 4 + 4 * axes
    if len(start) < offset:
        raise DataError(f"{path} is cut short: its header needs {offset} bytes, got {len(start)}; fetch it again")
    shape = tuple(int.from_bytes(start[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    return dtype, shape, offset


def parse(data: bytes, path: Path) -> Array:
    """The array in the (unpacked) bytes of the IDX file `path`."""
    dtype, shape, offset = header(data[:START], len(data), path)
    return np.frombuffer(data, dtype, offset=offset).reshape(shape)


def _unpacked(path: Path, size: int, cache: str | Path | None) -> Path:
    """A gzip file unpacked into the cache, once: at most one byte more than `size`."""
    try:
        stat = path.stat()
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        target = caches.folder(cache) / "idx" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.idx"
        if not target.exists():
            with gzip.open(path) as stream, caches.writing(target) as out:
                _copy(stream, out, size + 1)
        return target
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): fetch it again") from error


def _copy(stream: gzip.GzipFile, out: IO[bytes], most: int) -> None:
    while most > 0 and (part := stream.read(min(most, 2**20))):
        out.write(part)
        most -= len(part)


def read(path: Path, cache: str | Path | None = None) -> Array:
    """The array in an IDX file: a memory map (of a large gzip file, unpacked in the cache), or in memory.

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
            header(file.read(START), unpacked.stat().st_size, path)  # by the name of the user's own file
        return read(unpacked)
    try:
        with path.open("rb") as file:
            start = file.read(4 + 4 * 255)
        dtype, shape, offset = header(start, path.stat().st_size, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    if not math.prod(shape):
        return np.empty(shape, dtype)  # nothing to map
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


@reader("idx", "an IDX file", reads=lambda path: is_idx(path) and not path.is_dir(), files="IDX (plain or .gz)")
def source(path: Path, *, cache: str | Path | None = None) -> Source:
    """One IDX file of data; labels from the file beside it where the name says which that is."""
    x = read(path, cache)
    if x.ndim == 1:
        raise DataError(
            f"{path} holds {len(x)} single numbers (labels?), expected data: give the images' file or folder"
        )
    match = NAME.match(path.name)
    if match is None:
        return Source(x)
    files = _files(path.parent)
    labels = files.get((match["set"], match["part"], "labels"))
    return Source(x, label=None if labels is None else _labels(labels, len(x)))


def has_idx(path: Path) -> bool:
    """Whether the folder holds images under MNIST's file names."""
    return any(what == "images" for _, _, what in _files(path))


@reader("idx-folder", "a folder of IDX files", reads=lambda path: path.is_dir() and has_idx(path))
def folder(path: Path, *, cache: str | Path | None = None, progress: Progress | None = None) -> Source:
    """A folder of MNIST-named files, plain or gzip; train and t10k make the train and test rows.

    Where there are 60,000 training rows the last 10,000 are the valid split, in the order of the file, as is the
    custom for MNIST and Fashion-MNIST.

    Raises:
        DataError: no training images, several data sets in one folder, or files that do not fit each other.
    """
    files = _files(path)
    sets = sorted({name for name, _, what in files if what == "images"})
    if len(sets) > 1:
        raise DataError(f"{path} holds several IDX data sets ({', '.join(sets)}): give the images' file of one")
    images = {"test" if part != "train" else part: file for (_, part, what), file in files.items() if what == "images"}
    if "train" not in images:
        raise DataError(f"{path} holds {images['test'].name} but no training images (train-images-idx3-ubyte[.gz])")
    x = {part: read(file, cache) for part, file in images.items()}
    label = {}
    for (_, part, what), file in files.items():
        part = "test" if part != "train" else part
        if what == "labels" and part in x:
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
    """Training and test arrays (large ones through the cache) as one source with its customary splits."""
    if test is None:
        return Source(train, label=train_label)
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise DataError(
            f"training and test data must agree: got {train.dtype} {train.shape[1:]} and {test.dtype} {test.shape[1:]}"
        )
    n = len(train)
    given = {"train": np.arange(n), "test": np.arange(n, n + len(test))}
    if n == STANDARD[0]:
        given |= {"train": np.arange(STANDARD[1]), "valid": np.arange(STANDARD[1], n)}
    label, notes = None, []
    if train_label is not None or test_label is not None:
        parts = {"train": (train, train_label), "test": (test, test_label)}
        label = np.concatenate([np.full(len(x), -1) if known is None else known for x, known in parts.values()])
        notes = [f"the {part} data have no labels" for part, (_, known) in parts.items() if known is None]
    return Source(caches.joined([train, test], cache, progress), label=label, splits=given, notes=tuple(notes))


def _files(path: Path) -> dict[tuple[str, str, str], Path]:
    found: dict[tuple[str, str, str], Path] = {}
    for file in sorted(path.iterdir(), reverse=True):  # so that a plain file wins over the same in gzip
        if match := NAME.match(file.name):
            found[match["set"], match["part"], match["what"]] = file
    return found


def _labels(path: Path, n: int) -> Array:
    label = read(path)
    if label.shape != (n,):
        raise DataError(f"{path} must hold one label for each of {n} images, got shape {label.shape}")
    return np.asarray(label)

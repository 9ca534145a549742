"""NumPy files: .npy files are memory-mapped; arrays of .npz files are mapped, unpacked into the cache, or read."""

import hashlib
import io
import lzma
import math
import re
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data import cache as caches
from vaekit.data import sparse
from vaekit.data.core import Array, Progress, listed
from vaekit.data.source import Source
from vaekit.data.splits import WORDS
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from .registry import reader, with_suffix

X = ("x", "counts", "X", "imgs", "images", "data", "arr_0")
LABEL = ("label", "y", "labels")
CONTENTS = {
    **dict.fromkeys(("", "x", "data", "image", "images", "img", "imgs", "feature", "features", "input", "inputs"), "x"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets", "class", "classes"), "label"),
}
SPLIT_NAMES = {
    name: (content, part)
    for word, content in CONTENTS.items()
    for split, part in WORDS.items()
    for end in ("", "set")
    for name in (word + split + end, split + end + word)
}
"""Content and split of arrays by their names, in lower-case letters only."""
BARE = {split + end for split in WORDS for end in ("", "set")}
"""Names of arrays that are only the name of a split: its data, or its row numbers."""
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
DSPRITES = ["colour", "shape", "scale", "orientation", "x_position", "y_position"]


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
            raise _objects(path, "the array")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.load(path, mmap_mode="r", allow_pickle=False)


@reader("npz", "a .npz file", reads=with_suffix(".npz"), files=".npz")
def source(
    path: Path,
    *,
    x_key: Annotated[str | None, Knob("name of the data's array")] = None,
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
        if x_key is not None and x_key not in store.shapes:
            raise DataError(f"x_key={x_key!r}: {path} has no such array; it has {store.listing()}")
        if x_key is None and sparse.saved(store.shapes):
            matrix, used = sparse.read(str(path), store.read)
            return _with_columns(store, matrix, used)
        parts = _parts(store)
        if x_key is None and _first(X, store) is None and ("x", "train") in parts:
            return _with_splits(store, parts, progress)
        key = x_key or _first(X, store) or (next(iter(store.shapes)) if len(store.shapes) == 1 else None)
        if key is None:
            raise DataError(
                f"{path} has no array named {' or '.join(X[:2])}; it has {store.listing()}: choose one with `x_key`"
            )
        return _with_columns(store, store.data(key), {key}, key)


def part_of(key: str) -> tuple[str, str] | None:
    """Content ("x" or "label") and split by the name of an array, such as x_train, testLabels or val_images."""
    return SPLIT_NAMES.get(_letters(key))


def _letters(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key.lower())


def _parts(store: "_Store") -> dict[tuple[str, str], str]:
    """The names of the arrays with the x or the labels of a split.

    Raises:
        DataError: two arrays have the same role.
    """
    names: dict[tuple[str, str], str] = {}
    for key, shape in store.shapes.items():
        row_numbers = len(shape) < 2 and store.dtypes[key].kind in "bui" and _letters(key) in BARE
        if (role := part_of(key)) is not None and not row_numbers:
            if role in names:
                raise DataError(
                    f"{store.path}: both {names[role]!r} and {key!r} may be the {role[1]} "
                    f"{'data' if role[0] == 'x' else 'labels'}: remove or rename one of them"
                )
            names[role] = key
    return names


class _Store:
    """The arrays of a .npz file: headers are read at once, contents when needed."""

    def __init__(self, path: Path, file: zipfile.ZipFile, cache: str | Path | None) -> None:
        self.path, self.file, self.cache = path, file, cache
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
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

    def listing(self) -> str:
        """The names and shapes of all arrays, for messages."""
        return ", ".join(f"{key} {shape}" for key, shape in self.shapes.items()) or "no arrays"

    def __contains__(self, key: object) -> bool:
        return key in self.shapes

    def read(self, key: str) -> Array:
        """An array, in memory; bytes are decoded as UTF-8."""
        if self.dtypes[key].hasobject:
            raise _objects(self.path, f"array {key!r}")
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
        passed = self._in_cache(key, info).with_suffix(".ok")
        if not passed.exists():
            with self.file.open(info) as stream:
                while stream.read(2**24):
                    pass
            with suppress(DataError), caches.writing(passed):
                pass  # if the cache cannot be written, the checksum is compared again next time

    def _in_cache(self, key: str, info: zipfile.ZipInfo) -> Path:
        stat = self.path.stat()
        identity = f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns} {key} {info.CRC}"
        return caches.folder(self.cache) / "npz" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"

    def _unpacked(self, key: str, info: zipfile.ZipInfo) -> Array:
        target = self._in_cache(key, info)
        if not target.exists():
            with caches.writing(target) as out, self.file.open(info) as stream:
                shutil.copyfileobj(stream, out, 2**20)
        return np.load(target, mmap_mode="r", allow_pickle=False)


def _with_columns(store: _Store, x: Any, used: set[str], key: str = "") -> Source:
    """A source with `x` and everything else in the file; `used` are the arrays read for x, and `key` is its name."""
    n = len(x) if x.ndim else 0
    part = (part_of(key) or ("", ""))[1]

    def take(*keys: str) -> Array | None:
        name = _first(keys, store)
        if name is None:
            return None
        used.add(name)
        return store.read(name)

    label = take(*LABEL, *(other for other in store.shapes if part and part_of(other) == ("label", part)))
    factors = take("factors", "latents_classes")
    factor_names, attribute_names = take("factor_names"), take("attribute_names")
    columns: dict[str, Array] = {}
    names: list[str] = []
    notes: list[str] = []
    if label is not None and label.shape == (n,) and label.dtype.kind == "f" and not _whole(label):
        notes.append("the labels are fractions, not classes: they are kept as the column 'y'")
        columns["y"], label = label, None
    if factors is not None:
        default = DSPRITES if "latents_classes" in used else None
        names = _spread(columns, factors, _texts(factor_names) or default, "factor", n, store.path)
    attributes = take("attributes")
    if attributes is not None:
        _spread(columns, attributes, _texts(attribute_names), "attribute", n, store.path)
    file_names = take("names")
    if file_names is not None and file_names.shape != (n,):
        notes.append(f"names has shape {file_names.shape}, expected ({n},): not used")
        file_names = None
    label_names, feature_names = take("label_names", "class_names"), take("feature_names", "genes")
    for other, shape in store.shapes.items():
        if other in used or other in columns or shape not in ((n,), (n, 1)):
            continue
        if store.dtypes[other].kind in "buifUS":
            columns[other] = _named(store.read(other).reshape(n), take(f"{other}_names"))
            used.add(other)
        elif store.dtypes[other].hasobject and label is None and CONTENTS.get(other.lower()) == "label":
            raise _objects(store.path, f"array {other!r}")
    return Source(
        x,
        label=label,
        label_names=_texts(label_names),
        columns=columns,
        names=_texts(file_names),
        feature_names=_texts(feature_names),
        factor_names=names,
        kind="counts" if key == "counts" else None,
        notes=(*notes, *_unused(store, used)),
    )


def _whole(values: Array) -> bool:
    """Whether all values that are not missing are whole numbers."""
    known = values[~np.isnan(values)]
    return bool((known == np.round(known)).all())


def hint(source: Source) -> list[str]:
    """A note on a column that may hold the labels, if no array has a name of labels."""
    names = [name for name, column in source.columns.items() if _may_be_classes(name, column)]
    if source.label is not None or not names or source.factor_names:
        return []
    return [f"no array is named {', '.join(LABEL)}: to use {names[0]!r} as the labels, give `label={names[0]!r}`"]


def _may_be_classes(name: str, column: Array) -> bool:
    """Whether a column may be labels, by its name or because it has recurring texts."""
    named = CONTENTS.get(name.lower(), "label" if name == "arr_1" else "") == "label"  # arr_1 is y of numpy.savez(x, y)
    named = named and (column.dtype.kind != "f" or _whole(column))
    recurs = column.dtype.kind == "U" and len(np.unique(column)) <= len(column) // 2
    return named or (recurs and name not in ("batch", "group"))


def _unused(store: _Store, used: set[str]) -> list[str]:
    """A note on the unused arrays, if there are any."""
    unused = [key for key in store.shapes if key not in used]
    if not unused:
        return []
    objects = [repr(key) for key in unused if store.dtypes[key].hasobject]
    remark = f" ({listed(objects)}: Python objects, which are never read; save texts with .astype(str))"
    arrays = listed([f"{key} {store.shapes[key]}" for key in unused])
    return [f"{store.path.name}: not used: {arrays}{remark if objects else ''}"]


def _named(codes: Array, names: Array | None) -> Array:
    """The names of codes 0..K-1 if the file has K names, else the codes."""
    known = _texts(names)
    if known is None or codes.dtype.kind not in "ui":
        return codes
    fit = codes.min(initial=0) >= 0 and codes.max(initial=0) < len(known)
    return np.array(known)[codes] if fit else codes


def _with_splits(store: _Store, parts: dict[tuple[str, str], str], progress: Progress | None) -> Source:
    """A source with the splits of the file and their labels."""
    x_keys = {part: parts["x", part] for part in ("train", "valid", "test") if ("x", part) in parts}
    arrays = {part: store.data(key) for part, key in x_keys.items()}
    keys = {part: parts.get(("label", part)) for part in x_keys}
    labels = {part: store.read(key) for part, key in keys.items() if key is not None}
    if labels and len(labels) < len(x_keys):
        raise DataError(f"{store.path} has labels for some splits only: give y_... for each x_..., or for none")
    for part, values in labels.items():
        if values.shape[:1] != arrays[part].shape[:1]:
            raise DataError(
                f"{store.path}: {keys[part]} must have one label for each of {len(arrays[part])} rows of "
                f"{x_keys[part]}, got shape {values.shape}"
            )
    names = _first(("label_names", "class_names"), store)
    x, rows = concatenated(arrays, str(store.path), store.cache, progress)
    return Source(
        x,
        label=np.concatenate(list(labels.values())) if labels else None,
        label_names=_texts(store.read(names)) if names else None,
        splits=rows or None,
        notes=tuple(_unused(store, {*x_keys.values(), *(key for key in (*keys.values(), names) if key is not None)})),
    )


def concatenated(
    arrays: dict[str, Array], name: str, cache: str | Path | None = None, progress: Progress | None = None
) -> tuple[Array, dict[str, NDArray[np.int64]]]:
    """The arrays of several splits as one, and the rows of each split; large arrays are joined in the cache.

    Raises:
        DataError: the rows have different shapes.
    """
    shapes = {part: array.shape[1:] for part, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{name}: train, valid and test data must have rows of one shape, got {shapes}")
    if len(arrays) == 1:
        return next(iter(arrays.values())), {}
    rows, start = {}, 0
    for part, array in arrays.items():
        rows[part] = np.arange(start, start := start + len(array))
    if any(isinstance(array, sparse.Sparse) for array in arrays.values()):
        return sparse.stacked(list(arrays.values())), rows  # type: ignore[return-value]
    return caches.joined(list(arrays.values()), cache, progress), rows


def _spread(
    columns: dict[str, Array], table: Array, names: list[str] | None, noun: str, n: int, path: Path
) -> list[str]:
    """Add the columns of `table` (N, F) to `columns`, and return their names."""
    if table.ndim != 2 or len(table) != n:
        raise DataError(f"{path}: {noun}s must have shape ({n}, number of {noun}s), got {table.shape}")
    width = table.shape[1]
    if names is None or (names is DSPRITES and width != len(DSPRITES)):
        names = [f"{noun}_{i}" for i in range(width)]
    if len(names) != width:
        raise DataError(f"{path}: {noun}s has {width} columns, but {noun}_names has {len(names)} names")
    columns.update({name: table[:, i] for i, name in enumerate(names)})
    return list(names)


def _first(keys: tuple[str, ...], store: _Store) -> str | None:
    return next((key for key in keys if key in store), None)


def _texts(values: Array | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values.reshape(-1)]


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


def _objects(path: Path, array_name: str) -> DataError:
    return DataError(
        f"{path}: {array_name} holds Python objects, which need pickle, and vaekit never uses pickle because it can "
        "run code: save numbers, or text as a string array"
    )


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

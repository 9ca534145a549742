"""Columns of vectors or images: Parquet and Arrow files, and data sets of Hugging Face."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Progress, counted, listed
from vaekit.data.paths import REMOTE
from vaekit.data.source import Source
from vaekit.data.splits import PARTS, part_named
from vaekit.errors import DataError, UnavailableError
from vaekit.utils.arguments import Knob

from . import frames
from . import table as tables
from .column_images import InColumn
from .columnar import Columnar, holds_arrays, is_array, is_picture, numbers_in
from .images import Background, PixelRange, Size, SkipBad, packed
from .registry import reader
from .stores import Key, X

ROWS = 1024
"""Rows of vectors that are read at a time."""
LABELS = (*tables.LABELS, "fine_label", "coarse_label")
"""Names, in lower case, of columns that hold labels."""


@dataclass(frozen=True)
class Reading:
    """The options of reading images, and what else a reader is given; see `images.folder`."""

    size: str | int | None
    background: str
    pixel_range: str | None
    skip_bad: bool
    to_train: bool
    cache: str | Path | None
    progress: Progress | None


@reader("vectors", "a Parquet or Arrow file of vectors or images", reads=holds_arrays)
def source(
    path: Path,
    *,
    x_key: Key = None,
    size: Size = None,
    background: Background = "white",
    pixel_range: PixelRange = None,
    skip_bad: SkipBad = False,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """A column of vectors (lists of numbers), arrays (lists of lists) or image files, with labels and further columns.

    The column is read in batches; a large one is written to the cache and mapped. A cell with the path of an image
    instead of its bytes is read if the path leads to a file below the folder of the data.

    Args:
        path: path of the file.
        x_key: name of the column, if there are several.
        size, background, pixel_range, skip_bad, to_train, cache, progress: as for a folder of images.
        label: column with the labels; else one named label, y or class.

    Raises:
        DataError: the file is damaged, or has several such columns; lists differ in length; or as for images.
    """
    reading = Reading(size, background, pixel_range, skip_bad, to_train, cache, progress)
    return of_columns(Columnar((path,)), path, x_key, label, reading)


def of_columns(
    columns: Columnar,
    path: Path,
    x_key: str | None,
    label: str | None,
    reading: Reading,
    roots: tuple[Path, ...] = (),
) -> Source:
    """The data in a column of these files; arguments and errors are as for `source`.

    Args:
        roots: folders of the images to which paths in cells may lead; the folder of the data, if empty.
    """
    schema = columns.schema
    pictures = [field.name for field in schema if is_picture(field.name, field.type)]
    arrays = [field.name for field in schema if is_array(field.type)]
    x = _chosen(pictures, arrays, x_key, path)
    names = [field.name for field in schema]
    plain = [field.name for field in schema if names.count(field.name) == 1 and _is_plain(field.type)]
    read = frames.read(columns.table(plain), str(path)).columns if plain else {}
    further: dict[str, Array] = {name: values for name, values in read.items() if values.dtype.kind != "O"}
    if any(len(values) != len(columns) for values in further.values()):
        raise DataError(f"{path} declares {len(columns):,} rows, but its columns have others: it is damaged")
    unused = [name for name in names if name != x and name not in further]
    notes = [f"columns that are not used: {listed(unused)}"] if unused else []
    target, class_names = _label(further, columns.features, label, path, reading.to_train)
    if x in pictures:
        inside = InColumn(path, columns, x, roots or (path if path.is_dir() else path.parent,))
        notes += inside.notes(reading.skip_bad)
        files = inside.names
        options = {name: getattr(reading, name) for name in ("size", "background", "pixel_range", "skip_bad")}
        found = packed(
            inside, files, **options, to_train=reading.to_train, cache=reading.cache, progress=reading.progress
        )
        kept = np.array([int(name.partition("/")[0]) for name in found.names or []], np.int64)
        found = replace(found, names=None, splits=None, label_names=None)
    else:
        found, kept = Source(_values(columns, x, path, reading)), np.arange(len(columns))
    further = {name: values[kept] for name, values in further.items()}
    codes = None
    if target == label and target is not None:  # a label that is asked for is a column
        further[target] = _named(further[target], class_names)
    elif target is not None:
        codes = further.pop(target)
    return replace(
        found,
        label=codes,
        label_names=None if codes is None else class_names,
        columns=further,
        notes=(*notes, *found.notes),
        options={name: value for name, value in found.options.items() if value is not None},
    )


def _named(codes: Array, names: list[str] | None) -> Array:
    """The names of codes, empty for -1; without names, the codes themselves."""
    return codes if names is None else np.array([*names, ""])[codes]


def _is_plain(kind: Any) -> bool:
    """Whether a column holds numbers, texts or dates, which a table may have."""
    import pyarrow as pa

    nested = pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)
    return not (nested or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))


def _chosen(pictures: list[str], arrays: list[str], asked: str | None, path: Path) -> str:
    """The column with the data.

    Raises:
        DataError: there is no such column, or several may be meant.
    """
    known = [*pictures, *arrays]
    if asked is not None and asked not in known:
        raise DataError(f"x_key={asked!r}: {path} has no such column of vectors or images; it has {listed(known)}")
    usual = next((name for name in X if name in known), None)
    found = [asked] if asked else [usual] if usual else pictures or arrays
    if not found:
        raise DataError(f"{path} has no column of vectors or images")
    if len(found) > 1:
        raise DataError(f"{path} has several columns of vectors or images ({listed(found)}): choose one with `x_key`")
    return found[0]


def _label(
    columns: dict[str, Array], features: dict[str, Any], asked: str | None, path: Path, to_train: bool
) -> tuple[str | None, list[str] | None]:
    """The column with the labels, and the names of its classes if the file has them."""
    if asked is not None and asked not in columns:
        if to_train:
            raise DataError(f"label={asked!r}: {path} has no such column; it has {listed(list(columns)) or 'none'}")
        asked = None
    by_name = {name.lower(): name for name in columns}
    usual = next((by_name[name] for name in LABELS if name in by_name), None)
    target = asked or usual
    if target is None:
        return None, None
    names = features.get(target, {}).get("names")
    whole = columns[target].dtype.kind == "i"
    if not (isinstance(names, list) and whole and all(isinstance(name, str) for name in names)):
        return target, None
    codes = columns[target]
    if len(codes) and (codes.min() < -1 or codes.max() >= len(names)):
        raise DataError(
            f"{path}: column {target!r} holds codes {codes.min()} to {codes.max()}, but has {len(names)} names of "
            "classes: it is damaged"
        )
    return target, list(names)


def _values(columns: Columnar, name: str, path: Path, reading: Reading) -> Array:
    """The arrays in a column (N, ...), mapped from the cache if they are large."""
    where, n = f"{path}: column {name!r}", len(columns)
    parts = (numbers_in(batch.column(0), where) for batch in columns.batches([name], ROWS) if batch.num_rows)
    first = next(parts, np.empty((0,)))
    size = n * first[:1].nbytes

    def checked() -> Iterator[Array]:
        yield first
        for part in parts:
            if part.shape[1:] != first.shape[1:]:
                raise DataError(f"{where} has arrays of shapes {first.shape[1:]} and {part.shape[1:]}: expected one")
            yield part

    if size < caches.LARGE:
        return np.concatenate(list(checked()))
    stats = [(str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns) for one in columns.paths]
    key = hashlib.sha256(json.dumps([stats, name]).encode()).hexdigest()[:32]
    target = caches.folder(reading.cache) / "columns" / f"{key}.npy"
    return caches.written(target, first.dtype, (n, *first.shape[1:]), checked(), reading.progress)


# --- data sets of Hugging Face ------------------------------------------------------------------------------------


def is_dataset(path: Path) -> bool:
    """Whether a path is a folder written by `save_to_disk`, or the name of a data set (hf://datasets/USER/NAME)."""
    if path.parts[:1] == (REMOTE.rstrip("/"),):
        return True
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


@reader(
    "huggingface",
    "a Hugging Face data set",
    reads=is_dataset,
    files="hf://datasets/USER/NAME or a folder written by save_to_disk",
)
def dataset(
    path: Path,
    *,
    subset: Annotated[str | None, Knob("configuration of a Hugging Face data set")] = None,
    x_key: Key = None,
    size: Size = None,
    background: Background = "white",
    pixel_range: PixelRange = None,
    skip_bad: SkipBad = False,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """A data set of Hugging Face: a column of images or vectors, or a table; its splits are kept.

    A folder that `datasets` wrote with `save_to_disk` is read without that library. The name hf://datasets/USER/NAME is
    downloaded with it, into the cache, at a branch, tag or commit if @REVISION follows; nothing else is downloaded.

    Args:
        path: the folder, or the name as a path.
        subset: configuration, for a name with several.
        x_key, size, background, pixel_range, skip_bad, label, to_train, cache, progress: as for `source`.

    Raises:
        UnavailableError: the data set cannot be downloaded.
        DataError: datasets or pyarrow is missing; the folder is damaged; or as for `source`.
    """
    roots: tuple[Path, ...] = ()
    if path.parts[:1] == (REMOTE.rstrip("/"),):
        files, roots = _downloaded(path, subset, cache)
    else:
        if subset is not None and to_train:
            raise DataError(f"`subset` applies to hf://datasets/USER/NAME, not to {path}; omit it")
        files = _saved(path)
    chosen, notes = _in_splits(files, to_train)
    paths = tuple(file for part in chosen.values() for file in part)
    if not paths:
        raise DataError(f"{path} has no rows")
    reading = Reading(size, background, pixel_range, skip_bad, to_train, cache, progress)
    columns = Columnar(paths)
    if any(is_array(field.type) or is_picture(field.name, field.type) for field in columns.schema):
        read = of_columns(columns, path, x_key, label, reading, roots)
    else:
        read = _table(columns, path, label, to_train)
    if len(chosen) > 1:
        if len(read.x) != len(columns):
            raise DataError(f"{path}: some images cannot be read, which its splits do not allow: omit `skip_bad`")
        ends = np.cumsum([sum(Columnar(tuple(part)).counts) for part in chosen.values()])
        rows = {name: np.arange(end) for name, end in zip(chosen, ends, strict=True)}
        starts = dict(zip(chosen, [0, *ends[:-1].tolist()], strict=True))
        read = replace(read, splits={name: index[starts[name] :] for name, index in rows.items()})
    given = {"subset": subset} if subset else {}
    return replace(read, notes=(*notes, *read.notes), options=read.options | given)


def _table(columns: Columnar, path: Path, label: str | None, to_train: bool) -> Source:
    """The rows of a data set without images and vectors, read like a frame."""
    features = columns.features
    read = tables.frame(columns.table(), name=str(path), label=label, to_train=to_train)
    if label is not None or read.label is None:
        return read
    target, names = _label(read.columns, features, None, path, to_train)
    return replace(read, label_names=names) if target in tables.LABEL else read


def _saved(path: Path) -> dict[str, list[Path]]:
    """The Arrow files of each split of a folder that `save_to_disk` wrote; the only split of a data set is "".

    Raises:
        DataError: a file of the folder is damaged or names files elsewhere.
    """
    splits = {"": path}
    if (path / "dataset_dict.json").is_file():
        names = _json(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and _is_plain_name(name) for name in names):
            raise DataError(f"{path / 'dataset_dict.json'} is damaged: expected a list of splits; save the data again")
        splits = {name: path / name for name in names}
    found = {}
    for split, folder in splits.items():
        state = _json(folder / "state.json")
        entries = state.get("_data_files")
        entries = entries if isinstance(entries, list) else []
        files: list[Any] = [one.get("filename") for one in entries if isinstance(one, dict)]
        if not files or not all(isinstance(file, str) and _is_plain_name(file) for file in files):
            raise DataError(f"{folder / 'state.json'} is damaged: expected the names of files; save the data again")
        found[split] = [folder / file for file in files]
    return found


def _is_plain_name(name: str) -> bool:
    """Whether a name is that of a file or folder beside the one that names it."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): save the data again with save_to_disk") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: save the data again with save_to_disk")
    return found


def _downloaded(
    path: Path, subset: str | None, cache: str | Path | None
) -> tuple[dict[str, list[Path]], tuple[Path, ...]]:
    """The Arrow files of each split of a data set by its name, and the folders into which its images are downloaded.

    Raises:
        UnavailableError: it cannot be downloaded.
        DataError: the name has another form, or datasets is missing.
    """
    whole = "/".join(path.parts[2:])
    name, _, revision = whole.partition("@")
    if path.parts[1:2] != ("datasets",) or not 1 <= len(name.split("/")) <= 2 or not all(name.split("/")):
        raise DataError(
            f"expected {REMOTE}datasets/USER/NAME or {REMOTE}datasets/USER/NAME@REVISION, got "
            f"{REMOTE}{'/'.join(path.parts[1:])}"
        )
    options = {"revision": revision} if revision else {}
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from datasets import load_dataset
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError as error:
        raise DataError(f"{REMOTE}datasets/{whole} needs datasets: pip install 'vaekit[datasets]'") from error
    folder = caches.folder(cache) / "huggingface"
    try:
        loaded = load_dataset(name, subset, cache_dir=str(folder), **options)
    except Exception as error:  # of the network, the server and the files, by several libraries
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        raise UnavailableError(
            f"{REMOTE}datasets/{whole} cannot be loaded ({why}): check the name, `subset` and the network; or save the "
            "data elsewhere with `save_to_disk` and give that folder"
        ) from error
    files = {
        str(split): [Path(file["filename"]) for file in part.cache_files] for split, part in loaded.items() if len(part)
    }
    return files, (folder, Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}")


def _in_splits(files: dict[str, list[Path]], to_train: bool) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of train, valid and test, or all files if their splits have other names; and a note on those left out.

    With `to_train=False` all rows are read.
    """
    parts: dict[str, list[Path]] = {}
    for split, paths in files.items():
        named = part_named(split) if split else None
        if named is not None and named[0] not in parts:
            parts[named[0]] = paths
    if "train" not in parts or not to_train:
        return {"": [path for paths in files.values() for path in paths]}, []
    kept = {part: parts[part] for part in PARTS if part in parts}
    outside = [split for split, paths in files.items() if paths not in kept.values()]
    return kept, [f"left out {counted(len(outside), 'split')}: {listed(outside)}"] if outside else []

"""Files of several named arrays: which of them holds the data, and what the others are."""

import hashlib
import re
from abc import ABC, abstractmethod
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
DSPRITES = ["colour", "shape", "scale", "orientation", "x_position", "y_position"]
Key = Annotated[str | None, Knob("name of the data's array")]


class Store(ABC):
    """The named arrays of a file: their shapes and types are known at once, their contents are read when needed.

    Arguments:
        path: the file.
        cache: the cache folder, if not the default.

    Attributes:
        shapes, dtypes: of the arrays by name; texts have a dtype of kind "U" or "S".
        unread: names of further arrays, which are neither numbers nor texts.
        options: arguments of `load` that reading the data chose, as in `Source`.
        notes: messages to the user about reading the data.
    """

    def __init__(self, path: Path, cache: str | Path | None) -> None:
        self.path, self.cache = path, cache
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
        self.unread: list[str] = []
        self.options: dict[str, Any] = {}
        self.notes: list[str] = []

    @abstractmethod
    def read(self, key: str) -> Array:
        """An array, in memory."""

    @abstractmethod
    def data(self, key: str) -> Array:
        """An array that may be large, mapped if it is."""

    def listing(self) -> str:
        """The names and shapes of all arrays, for messages."""
        return ", ".join(f"{key} {shape}" for key, shape in self.shapes.items()) or "no arrays"

    def __contains__(self, key: object) -> bool:
        return key in self.shapes

    def in_cache(self, folder: str, *identity: object) -> Path:
        """The path of a .npy file in a folder of the cache, for this state of the file and for `identity`."""
        stat = self.path.stat()
        text = " ".join(map(str, (self.path.resolve(), stat.st_size, stat.st_mtime_ns, *identity)))
        return caches.folder(self.cache) / folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"


def source_of(store: Store, x_key: str | None, progress: Progress | None) -> Source:
    """The data of a file: the array `x_key`, else one with a usual name, those of the splits, or the only array.

    An only array of labels is not taken, nor one beside an array with a usual name that cannot be read.

    Raises:
        DataError: there is no such array, or none of these.
    """
    if x_key is not None and x_key not in store:
        raise DataError(f"x_key={x_key!r}: {store.path} has no such array; it has {store.listing()}")
    parts = _parts(store)
    if x_key is None and _first(X, store) is None and ("x", "train") in parts:
        return _with_splits(store, parts, progress)
    key = x_key or _first(X, store)
    if key is None and (lost := next((name for name in store.unread if _content(name) == "x"), None)) is not None:
        raise DataError(
            f"{store.path}: {lost} holds neither real numbers nor texts: save it as an array of real numbers, or "
            f"choose another array with `x_key`; the file has {store.listing()}"
        )
    if key is None and len(store.shapes) == 1 and _content(only := next(iter(store.shapes))) != "label":
        key = only
    if key is None:
        raise DataError(
            f"{store.path} has no array named {' or '.join(X[:2])}; it has {store.listing()}: choose one with `x_key`"
        )
    return with_columns(store, store.data(key), {key}, key)


def part_of(key: str) -> tuple[str, str] | None:
    """Content ("x" or "label") and split by the name of an array, such as x_train, testLabels or val_images."""
    return SPLIT_NAMES.get(_letters(key))


def _content(key: str) -> str | None:
    """What an array holds by its name, "x" or "label", in any group of the file; None for other names."""
    last = key.rpartition("/")[2]
    return next((role[0] for name in (key, last) if (role := part_of(name)) is not None), CONTENTS.get(last.lower()))


def _letters(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key.lower())


def _parts(store: Store) -> dict[tuple[str, str], str]:
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


def with_columns(store: Store, x: Any, used: set[str], key: str = "") -> Source:
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
            raise holds_objects(store.path, f"array {other!r}")
    return Source(
        x,
        label=label,
        label_names=_texts(label_names),
        columns=columns,
        names=_texts(file_names),
        feature_names=_texts(feature_names),
        factor_names=names,
        kind="counts" if key == "counts" else None,
        notes=(*notes, *store.notes, *_unused(store, used)),
        options=store.options,
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


def _unused(store: Store, used: set[str]) -> list[str]:
    """Notes on the unused arrays, and on those that cannot be read, if there are any."""
    unused = [key for key in store.shapes if key not in used]
    others = [f"{store.path.name}: neither numbers nor texts, not read: {listed(store.unread)}"] if store.unread else []
    if not unused:
        return others
    objects = [repr(key) for key in unused if store.dtypes[key].hasobject]
    remark = f" ({listed(objects)}: Python objects, which are never read; save texts with .astype(str))"
    arrays = listed([f"{key} {store.shapes[key]}" for key in unused])
    return [f"{store.path.name}: not used: {arrays}{remark if objects else ''}", *others]


def _named(codes: Array, names: Array | None) -> Array:
    """The names of codes 0..K-1 if the file has K names, else the codes."""
    known = _texts(names)
    if known is None or codes.dtype.kind not in "ui":
        return codes
    fit = codes.min(initial=0) >= 0 and codes.max(initial=0) < len(known)
    return np.array(known)[codes] if fit else codes


def _with_splits(store: Store, parts: dict[tuple[str, str], str], progress: Progress | None) -> Source:
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
    used = {*x_keys.values(), *(key for key in (*keys.values(), names) if key is not None)}
    return Source(
        x,
        label=np.concatenate(list(labels.values())) if labels else None,
        label_names=_texts(store.read(names)) if names else None,
        splits=rows or None,
        options=store.options,
        notes=(*store.notes, *_unused(store, used)),
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


def _first(keys: tuple[str, ...], store: Store) -> str | None:
    return next((key for key in keys if key in store), None)


def _texts(values: Array | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values.reshape(-1)]


def holds_objects(path: Path, array_name: str) -> DataError:
    """The error for an array of Python objects."""
    return DataError(
        f"{path}: {array_name} holds Python objects, which need pickle, and vaekit never uses pickle because it can "
        "run code: save numbers, or text as a string array"
    )

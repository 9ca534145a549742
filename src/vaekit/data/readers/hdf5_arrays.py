"""HDF5 files of arrays (.h5, .hdf5), and MATLAB files (.mat) of versions 5 to 7.3."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vaekit.data.cache import joined
from vaekit.data.core import Array, Progress
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import hdf5, matlab5
from .registry import reader, with_suffix
from .stores import LABEL, Key, Store, hint, part_of, source_of
from .tenx import is_h5 as is_tenx

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file; MATLAB writes 512 bytes before them."""
NUMERIC = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"double", "single", "logical"}
"""Classes of MATLAB's arrays of numbers."""
TEXT = np.dtype("U1")
Examples = Annotated[
    Literal["first", "last"] | str | None, Knob("axis of a MATLAB array that counts the examples; else inferred")
]


class _Arrays(Store):
    """The arrays of an HDF5 file by their paths."""

    def __init__(self, path: Path, file: Any, cache: str | Path | None, progress: Progress | None) -> None:
        super().__init__(path, cache)
        self.progress = progress
        arrays = {name: found for name, found in hdf5.members(file).items() if found.shape}
        self.found = {name: found for name, found in arrays.items() if self._usable(found)}
        self.unread = [name for name in arrays if name not in self.found]
        for name, found in self.found.items():
            texts = found.dtype.hasobject or found.dtype.kind == "S" or hdf5.is_named(found)
            self.shapes[name], self.dtypes[name] = tuple(found.shape), TEXT if texts else found.dtype

    @staticmethod
    def _usable(found: Any) -> bool:
        """Whether an array holds numbers or texts."""
        import h5py

        return found.dtype.kind in "buifS" or h5py.check_string_dtype(found.dtype) is not None

    def read(self, key: str) -> Array:
        return hdf5.array(self.found[key], key)

    def data(self, key: str) -> Array:
        return hdf5.mapped(self.found[key], key, self.in_cache("hdf5", key), self.progress)


@reader(
    "hdf5",
    "an HDF5 file (.h5, .hdf5)",
    reads=lambda path: with_suffix(".h5", ".hdf5")(path) and not is_tenx(path),
    files=".h5, .hdf5",
)
def h5(
    path: Path,
    *,
    x_key: Key = None,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The data in an HDF5 file, whose arrays are read by name like those of a .npz file.

    Args:
        path: path of the file.
        x_key: path of the array in the file (group/name), if it has no usual name and is not the only one.
        cache: the cache folder, if not the default.
        progress: called while a large compressed array is copied to the cache.

    Raises:
        DataError: h5py is missing, the file is damaged, or it has no array with data.
    """
    with hdf5.opened(path) as file:
        read = source_of(_Arrays(path, file, cache, progress), x_key and x_key.strip("/"), progress)
    return replace(read, notes=(*read.notes, *hint(read))) if to_train and label is None else read


class _Matlab(Store):
    """The variables of a MATLAB file, with vectors of shape (n, 1) or (1, n) as (n,).

    MATLAB often counts the examples along the last axis, as in images (height, width, channels, examples); `data` then
    moves it to the front.
    """

    def __init__(self, path: Path, cache: str | Path | None, examples: str | None, progress: Progress | None) -> None:
        super().__init__(path, cache)
        if examples not in (None, "first", "last"):
            raise DataError(f"examples must be 'first' or 'last', got {examples!r}")
        self.examples, self.progress = examples, progress

    def _last(self, key: str) -> bool:
        """Whether the last axis of a variable counts the examples; chosen and noted if it is not given."""
        shape = self.shapes[key]
        if len(shape) < 2:
            return False
        chosen = self.examples
        if chosen is None:
            part = (part_of(key) or ("", ""))[1]
            counts = {
                size[0]
                for name, size in self.shapes.items()
                if len(size) == 1 and (name in LABEL or part_of(name) == ("label", part))
            }
            by_label = shape[-1] in counts and shape[0] not in counts
            by_shape = len(shape) == 4 and shape[2] in (1, 3) and shape[3] > 4 and shape[0] not in counts
            chosen = "last" if by_label or by_shape else "first"
            if chosen == "last":
                self.notes.append(
                    f"the last axis of {key} {shape} is read as that of the examples; if it is the first, use "
                    "`examples='first'`"
                )
        if chosen == "last":
            self.options["examples"] = "last"
        return chosen == "last"

    @staticmethod
    def flat(shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a variable, (n,) for a vector."""
        return (math.prod(shape),) if len(shape) == 2 and 1 in shape else shape


class _Matlab5(_Matlab):
    """A file of versions 5 to 7.2; a large variable is read whole once, and moved to the cache."""

    def __init__(self, path: Path, cache: str | Path | None, examples: str | None, progress: Progress | None) -> None:
        super().__init__(path, cache, examples, progress)
        found = matlab5.variables(path)
        self.found = {variable.name: variable for variable in found if variable.dtype is not None}
        self.others = [variable.name for variable in found if variable.dtype is None]
        for name, variable in self.found.items():
            assert variable.dtype is not None
            self.shapes[name], self.dtypes[name] = self.flat(variable.shape), variable.dtype

        self.unread = self.others

    def read(self, key: str) -> Array:
        return np.ascontiguousarray(matlab5.read(self.path, self.found[key]).reshape(self.shapes[key]))

    def data(self, key: str) -> Array:
        values = self.read(key)
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0)) if self._last(key) else values
        return joined([values], self.cache, self.progress) if values.dtype.kind in "uif" else values


class _Matlab7(_Matlab):
    """A file of version 7.3, which is HDF5 with the axes of each array in reverse order."""

    def __init__(
        self, path: Path, file: Any, cache: str | Path | None, examples: str | None, progress: Progress | None
    ) -> None:
        super().__init__(path, cache, examples, progress)
        self.found, self.others = {}, []
        for name, found in hdf5.members(file).items():
            kind = hdf5.attribute(found, "MATLAB_class")
            if kind in NUMERIC and found.dtype.kind in "buif" and "MATLAB_empty" not in found.attrs:
                self.found[name] = found
                self.shapes[name] = self.flat(tuple(found.shape[::-1]))
                self.dtypes[name] = np.dtype(bool) if kind == "logical" else found.dtype
            elif not name.startswith("#"):
                self.others.append(name)
        of_structs = {name.partition("/")[0] for name in self.found}  # whose fields are read
        tops = dict.fromkeys(name.partition("/")[0] for name in self.others)
        self.unread = [name for name in tops if name not in of_structs]

    def read(self, key: str) -> Array:
        values = hdf5.array(self.found[key], key).T.astype(self.dtypes[key], copy=False)
        return np.ascontiguousarray(values.reshape(self.shapes[key]))

    def data(self, key: str) -> Array:
        if len(self.shapes[key]) == 1 or self.dtypes[key].kind == "b":
            values = self.read(key)
            return np.ascontiguousarray(np.moveaxis(values, -1, 0)) if self._last(key) else values
        last = self._last(key)
        target = self.in_cache("hdf5", key, last)
        found = hdf5.mapped(self.found[key], key, target, self.progress, turned=not last)
        axes = range(found.ndim - 1, 0, -1)  # the rows of `found` are examples, with their own axes still reversed
        return found.transpose(0, *axes) if last else found


@reader("mat", "a MATLAB file (.mat)", reads=with_suffix(".mat"), files=".mat")
def mat(
    path: Path,
    *,
    x_key: Key = None,
    examples: Examples = None,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The data in a MATLAB file, whose variables are read by name like the arrays of a .npz file.

    The axes have MATLAB's order, also in files of version 7.3, which store them reversed. Cells, structs, texts and
    sparse matrices are not read.

    Args:
        path: path of the file.
        x_key: name of the variable, if it has no usual name and is not the only one.
        examples: "first" or "last": the axis that counts the examples. By default the last if only its length is that
            of the labels, or if the shape is (height, width, 1 or 3, examples); else the first.
        cache: the cache folder, if not the default.
        progress: called while a large array is copied to the cache.

    Raises:
        DataError: the file is damaged or of another format, has no variable with data, or needs h5py, which is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as opened:
        start = opened.read(520)
    if SIGNATURE in (start[:8], start[512:520]):
        with hdf5.opened(path) as file:
            read = _of_matlab(_Matlab7(path, file, cache, examples, progress), x_key)
    else:
        read = _of_matlab(_Matlab5(path, cache, examples, progress), x_key)
    return replace(read, notes=(*read.notes, *hint(read))) if to_train and label is None else read


def _of_matlab(store: _Matlab5 | _Matlab7, x_key: str | None) -> Source:
    if not store.shapes:
        others = f"; it has {', '.join(store.others[:12])}" if store.others else ""
        raise DataError(f"{store.path} has no variable that is an array of numbers{others}")
    if x_key in store.others:
        raise DataError(f"{store.path}: {x_key} is not an array of real numbers: save it as one")
    return source_of(store, x_key, store.progress)

"""`load` and `from_arrays`: whatever the data are, one way in."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vaekit.data import cache as caches
from vaekit.data import folders, idx, images, named, npz, sparse
from vaekit.data import table as tables
from vaekit.data.arrays import Source, aligned, build, several_labels, tidy
from vaekit.data.condition import named as class_names
from vaekit.data.core import Array, Column, Computed, Data, Progress, row_dtype
from vaekit.data.splits import FRACTION
from vaekit.errors import DataError

FILES = ".npz, .npy, .csv, .parquet, IDX (plain or .gz)"


def load(
    source: str | Path,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    group: str | None = None,
    x_key: str | None = None,
    kind: str | None = None,
    label: str | None = None,
    types: str | Mapping[str, str] | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    valid: float = FRACTION,
    test: float = FRACTION,
    split_seed: int = 0,
    splits: Mapping[str, ArrayLike] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Data:
    """Loads data by name (see `datasets`) or from a path; raw values are neither copied nor changed.

    Args:
        source: a name, or the path of an IDX, .npy, .npz, .csv or .parquet file, of a folder of IDX files, or of
            a folder of images. A name wins over a folder of that name: write ./mnist for the folder.
        size: "64" or "64x48" (height x width): resize images from a folder.
        background: colour behind transparent images.
        pixel_range: "LOW,HIGH": what becomes black and white of images with more than 8 bits; else 0..65535, or the
            range of all images of the folder where that would leave few levels of them.
        skip_bad: leave unreadable images out.
        table: .csv or .parquet with a column `file` that describes the images of a folder; relative to the
            working directory or the folder.
        group: column whose rows of one value stay in one split.
        x_key: name of the data's array in a .npz file.
        kind: "image", "signal", "vector" or "counts", to overrule the guess.
        label: column to take labels from.
        types: what columns of a table are, where they should not be what they look like: "age=counts,zip=categorical"
            or {"age": "counts"}, of real, binary, categorical, counts, and drop.
        schema: the columns of a table as another has them (its `Data.schema`, a run's `facts.columns`): only these are
            read, and coded by their own categories.
        missing: "mask" takes nan (an empty cell) for a value that is missing; "refuse" is an error.
        valid, test: fractions; at least one datum each. Data with splits of their own keep them.
        split_seed: of the random split.
        splits: the exact rows of train, valid and test.
        cache: folder for downloads and packed images; else `VAEKIT_CACHE`, else the platform's.
        progress: called as (what, done, total) through long work.

    Raises:
        DataError: the data cannot be found, read or used; the message says what to do.
    """
    path, asked = known_path(source), str(source)
    known = asked in named.SETS
    folder_only = {"size": size, "table": table, "skip_bad": skip_bad or None, "pixel_range": pixel_range}
    folder_only["background"] = None if background == "white" else background
    is_table = not known and path.suffix.lower() in tables.SUFFIXES
    if known or path.exists():
        _refuse(asked, "a .csv or .parquet file", {} if is_table else {"types": types or None})
        _refuse(asked, "a folder of images", {} if not known and _is_images(path) else folder_only)
        _refuse(asked, "a .npz file", {} if path.suffix == ".npz" and not known else {"x_key": x_key})
    if not known and path.exists() and _is_images(path):
        found = images.folder(
            path,
            size=size,
            background=background,
            pixel_range=pixel_range,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
        if table is not None:
            where = _table(table, path)
            found = images.described(found, tables.read(where), where, label)
    else:
        in_table = {"kind": kind, "types": types, "schema": schema, "missing": missing == "mask"}
        found = _found(asked, x_key=x_key, label=label, group=group, table=in_table, cache=cache, progress=progress)
    chosen = {
        "size": None if size is None else str(size),
        "skip_bad": skip_bad or None,
        "background": None if background == "white" else background,
        "pixel_range": pixel_range,
        "table": None if table is None else _table_to_keep(table, path),
        "group": group,
        "x_key": x_key,
        "kind": kind,
        "label": label,
        "types": (types if isinstance(types, str) else dict(types)) if types else None,
        "missing": None if missing == "refuse" else missing,
        "valid": None if valid == FRACTION else valid,
        "test": None if test == FRACTION else test,
        "split_seed": split_seed or None,
        "splits": None if splits is None else {part: np.asarray(rows).tolist() for part, rows in splits.items()},
    }
    return build(
        found,
        name=asked if known else _name(path),
        asked=asked if known else str(path.absolute()),  # a run must find its data from any folder
        kind=kind,
        label=label,
        group=group,
        valid=valid,
        test=test,
        split_seed=split_seed,
        rows=splits,
        missing=missing,
        options={name: value for name, value in chosen.items() if value is not None},
    )


def load_rows(
    source: str | Path,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    x_key: str | None = None,
    label: str | None = None,
    group: str | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Array, list[str] | None, Array | None]:
    """All rows of a source in its own order, for use with a trained model: without splits, and any number of them.

    Args:
        source, size, background, pixel_range, skip_bad, table, x_key, cache, progress: as for `load`.
        label: column to take labels from, where the data have it.
        group: column of a table that is no datum, where the data have it.
        schema: as for `load`: a table is then read by the columns and categories that a run knows. Without it, columns
            of more than two texts are refused.
        missing: with "mask", a text that is no category of its column is a missing value.

    Returns:
        (N, *row) raw rows in their `row_dtype`, mapped where they are large; the names of files or None; the (N,)
        labels or None: the names of the classes where the source names them, else as they are written there.

    Raises:
        DataError: the data cannot be found or read.
    """
    found = read_rows(
        source,
        size=size,
        background=background,
        pixel_range=pixel_range,
        skip_bad=skip_bad,
        table=table,
        x_key=x_key,
        label=label,
        group=group,
        schema=schema,
        missing=missing,
        cache=cache,
        progress=progress,
    )
    return found.x, found.names, found.label


def read_rows(
    source: str | Path,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    x_key: str | None = None,
    label: str | None = None,
    group: str | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """What `load_rows` gives, with all else that is known of the rows; arguments as there."""
    path, asked = known_path(source), str(source)
    if asked not in named.SETS and path.exists() and _is_images(path):
        found = images.folder(
            path,
            size=size,
            background=background,
            pixel_range=pixel_range,
            to_train=False,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
        if table is not None:
            where = _table(table, path)
            found = images.described(found, tables.read(where), where, label)
    else:
        in_table = {"schema": schema, "missing": missing == "mask", "strict": False}
        found = _found(asked, x_key=x_key, label=label, group=group, table=in_table, cache=cache, progress=progress)
    x = tidy(found.x, asked)
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    elif x.dtype != row_dtype(x.dtype, double=True):
        x = caches.joined([x], cache, progress)
    n, columns = len(x), dict(found.columns)
    codes, names = found.label, found.label_names
    if codes is not None and np.ndim(codes) == 2:
        given = np.asarray(codes)
        codes, names, several, _ = several_labels(given, n, names, f"{asked}: label")
        if codes is not None and given.shape[1] > 1:  # one-hot in these rows, perhaps not in others
            titles = names if names and len(names) == given.shape[1] else [f"label_{i}" for i in range(given.shape[1])]
            several = {title: given[:, i] for i, title in enumerate(titles)}
        columns |= several
    if codes is not None and names is not None and codes.dtype.kind in "iu":
        codes = class_names(codes, names)
    if label in columns:
        codes = columns[label]
    elif label not in (None, "label"):
        codes = None
    return replace(
        found,
        x=x,
        label=None if codes is None else aligned(codes, n, f"{asked}: label"),
        columns={name: aligned(values, n, f"{asked}: column {name!r}") for name, values in columns.items()},
    )


def from_arrays(
    x: Any,
    *,
    label: Any = None,
    name: str = "arrays",
    columns: Mapping[str, ArrayLike] | None = None,
    factor_names: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    kind: str | None = None,
    group: str | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    valid: Any = FRACTION,
    test: Any = FRACTION,
    split_seed: int = 0,
    splits: Mapping[str, ArrayLike] | None = None,
) -> Data:
    """Data from NumPy arrays, torch tensors or a torch Dataset, under the same rules and checks as files.

    Args:
        x: (N, ...) array or tensor; or a map-style Dataset whose items are x, (x, label) or a dict with x or
            image, and y or label.
        label: (N,) classes, numbers or text; not where `x` is a Dataset with labels.
        name: what to call the data.
        columns: what else is known of each of the N rows.
        factor_names: the columns that are generative factors.
        label_names, feature_names: names of the classes and of the columns of `x`.
        kind, group, missing, split_seed, splits: as for `load`.
        schema: what each column of `x` (N, D) is, where they are not all numbers of one kind; x then holds the codes.
        valid, test: fractions, or data of their own: as `x`, or a pair (x, label).

    Raises:
        DataError: as `load`.
    """
    parts = {"train": _arrays(x, label, name)}
    fractions = {"valid": FRACTION, "test": FRACTION}
    for part, given in (("valid", valid), ("test", test)):
        if isinstance(given, int | float):
            fractions[part] = given
        elif given is not None:
            own, codes = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            parts[part] = _arrays(own, codes, f"{name}, {part}")
    have = {part: codes is not None for part, (_, codes) in parts.items()}
    if len(set(have.values())) > 1:
        raise DataError(f"{name}: expected labels for all of {', '.join(have)} or for none, got them for some only")
    joined, given_rows = npz.concatenated({part: values for part, (values, _) in parts.items()}, name)
    codes = None
    if have["train"]:
        for part, (values, some) in parts.items():
            if np.shape(some)[:1] != values.shape[:1]:
                raise DataError(
                    f"{name}, {part}: label must have one value for each of {len(values)} rows, got {np.shape(some)}"
                )
        codes = np.concatenate([some for _, some in parts.values()])
    names = None if feature_names is None else list(feature_names)
    if schema:
        names = [column.name for column in schema]
        if joined.shape[1:] != (len(schema),):
            raise DataError(f"{name}: schema has {len(schema)} columns, x has rows of shape {joined.shape[1:]}")
    found = Source(
        joined,
        label=codes,
        label_names=None if label_names is None else list(label_names),
        columns={key: np.asarray(_numpy(column)) for key, column in (columns or {}).items()},
        feature_names=names,
        factor_names=list(factor_names),
        splits=given_rows or None,
        kind=None if not schema else "counts" if all(c.kind == "counts" for c in schema) else "vector",
        schema=tuple(schema),
    )
    if lacking := [factor for factor in factor_names if factor not in found.columns]:
        raise DataError(f"factor_names: {lacking[0]!r} is no column; columns has {', '.join(found.columns) or 'none'}")
    return build(
        found,
        name=name,
        asked="",  # a name of the user's own is nowhere to load from
        kind=kind,
        group=group,
        valid=fractions["valid"],
        test=fractions["test"],
        split_seed=split_seed,
        rows=splits,
        missing=missing,
    )


def known_path(source: str | Path) -> Path:
    """`source` as a path, which need not exist.

    Raises:
        DataError: no path can be written so, or it is a device or a pipe.
    """
    try:
        path = Path(source).expanduser()
        special = path.exists() and not (path.is_file() or path.is_dir())
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; ~somebody unknown; half a character
        raise DataError(f"{str(source)[:100]!r} cannot be a path ({error})") from None
    if special:
        raise DataError(f"{source} is a device or a pipe, expected a file or a folder: copy it to a file first")
    return path


def _is_images(path: Path) -> bool:
    return path.is_dir() and not idx.has_idx(path)


def _found(
    asked: str,
    *,
    x_key: str | None,
    label: str | None,
    group: str | None,
    table: dict[str, Any],
    cache: str | Path | None,
    progress: Progress | None,
) -> Source:
    """What a name or a path other than a folder of images holds; `table` is for the reader of tables."""
    if asked in named.SETS:
        return named.source(asked, cache=cache, progress=progress)
    check_exists(asked)
    path = known_path(asked)
    suffix = path.suffix.lower()
    if path.is_dir():
        return idx.folder(path, cache=cache, progress=progress)
    if suffix == ".npy":
        return npz.npy(path)
    if suffix == ".npz":
        return npz.source(path, x_key=x_key, cache=cache, progress=progress)
    if suffix in tables.SUFFIXES:
        return tables.source(path, label=label, group=group, **table)
    if idx.is_idx(path):
        return idx.source(path, cache=cache)
    if suffix in folders.SUFFIXES:
        raise DataError(f"{path} is a single image: give the folder of images")
    raise DataError(f"{path}: cannot tell the format from its name, expected {FILES} or a folder; convert or rename it")


def check_exists(asked: str) -> None:
    """Raises DataError for what is neither a name nor a path, with the names and what may have been meant."""
    if asked not in named.SETS and not known_path(asked).exists():
        raise _unknown(asked)


def _unknown(asked: str) -> DataError:
    close = difflib.get_close_matches(asked.lower(), named.SETS, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return DataError(
        f"{asked!r} is neither a data set nor a path that exists; {meant}names are {', '.join(named.SETS)}, and files "
        f"{FILES} or a folder of images"
    )


def _refuse(asked: str, where: str, options: Mapping[str, Any]) -> None:
    if used := [name for name, value in options.items() if value is not None]:
        raise DataError(f"{used[0]} applies to {where} only, and {asked} is none; leave it out")


def _table(table: str | Path, folder: Path) -> Path:
    given = Path(table).expanduser()
    for place in (given, folder / given):
        if place.is_file():
            return place
    raise DataError(f"table={str(table)!r}: no such file, here or in {folder}")


def _table_to_keep(table: str | Path, folder: Path) -> str:
    """How to find the table again: relative to the folder where it lies in it, so that both can move together."""
    place = _table(table, folder).absolute()
    return str(place.relative_to(folder.absolute())) if place.is_relative_to(folder.absolute()) else str(place)


def _name(path: Path) -> str:
    name = path.resolve().name
    name = name[:-3] if name.endswith(".gz") else name
    return name if path.is_dir() else (Path(name).stem or name)


def _arrays(x: Any, label: Any, name: str) -> tuple[Array, Any]:
    """x and label as arrays, from arrays, tensors or a Dataset."""
    torch = sys.modules.get("torch")  # whoever holds a tensor or a Dataset has imported it
    if torch is not None and isinstance(x, torch.utils.data.Dataset):
        x, own = _dataset(x, torch, name)
        label = own if label is None else label
    return _numpy(x), None if label is None else np.asarray(_numpy(label))


def _numpy(x: Any) -> Any:
    if sparse.is_sparse(x):
        return sparse.Sparse(x)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return x if isinstance(x, np.ndarray | Computed) else _stacked(x)
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _stacked(x: Any) -> Array:
    try:
        return np.asarray(x)
    except ValueError as error:
        raise DataError(f"rows must all have one shape ({error}); resize or pad them") from error


def _dataset(data: Any, torch: Any, name: str) -> tuple[Any, Any]:
    if isinstance(data, torch.utils.data.IterableDataset):
        raise DataError(f"{name}: an IterableDataset has no rows to split: give a map-style Dataset or arrays")
    if isinstance(data, torch.utils.data.TensorDataset):
        if len(data.tensors) > 2:
            raise DataError(f"{name}: expected a TensorDataset of x or of x and label, got {len(data.tensors)} tensors")
        return data.tensors[0], data.tensors[1] if len(data.tensors) == 2 else None
    rows, codes = [], []
    for i in range(len(data)):
        item = data[i]
        if isinstance(item, dict):
            x = next((item[key] for key in ("x", "image") if key in item), None)
            code = next((item[key] for key in ("y", "label") if key in item), None)
            if x is None:
                raise DataError(f"{name}: items must have a key x or image, got {', '.join(map(str, item))}")
        else:
            x, code = (item[0], item[1] if len(item) > 1 else None) if isinstance(item, tuple | list) else (item, None)
        rows.append(np.asarray(_numpy(x)))
        codes.append(code if code is None or isinstance(code, str) else np.asarray(_numpy(code)).item())
    if odd := next((row.shape for row in rows if row.shape != rows[0].shape), None):
        raise DataError(f"{name}: items must all have one shape, got {rows[0].shape} and {odd}; resize or pad them")
    return np.stack(rows) if rows else np.empty((0,)), None if not codes or None in codes else np.array(codes)

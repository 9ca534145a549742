"""`load` and `from_arrays`: whatever the data are, one way in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vaekit.errors import DataError

from . import cache as caches
from . import named
from .arrays import Source, aligned, build, several_labels, tidy
from .condition import named as class_names
from .core import Array, Column, Data, Progress, row_dtype
from .paths import FILES, check_exists, known_path, name_of, table_path, table_to_keep
from .readers import folders, frames, idx, image_table, images, npz, shapes
from .readers import table as tables
from .readers.memory import arrays_of, column_of
from .splits import FRACTION


def load(
    source: Any,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    group: str | None = None,
    shape: shapes.Shape | None = None,
    x_key: str | None = None,
    kind: str | None = None,
    label: str | None = None,
    types: str | Mapping[str, str] | None = None,
    drop: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    header: str | bool | None = None,
    decimal: str | None = None,
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
        source: a name, or the path of an IDX, .npy or .npz file, of a table (.csv, .tsv, .txt, .data, plain or
            compressed, or .parquet), of a folder of IDX files, or of a folder of images; or a frame of pandas or
            polars, or a table of pyarrow. A name wins over a folder of that name: write ./mnist for the folder.
        size: "64" or "64x48" (height x width): resize images from a folder.
        background: colour behind transparent images.
        pixel_range: "LOW,HIGH": what becomes black and white of images with more than 8 bits; else 0..65535, or the
            range of all images of the folder where that would leave few levels of them.
        skip_bad: leave unreadable images out.
        table: .csv or .parquet with a column `file` that describes the images of a folder; relative to the
            working directory or the folder.
        group: column whose rows of one value stay in one split.
        x_key: name of the data's array in a .npz file.
        shape: "28x28" or (28, 28): the shape of flat rows, channels last "28x28x3" or first "3x28x28", of an array or a
            table of pixels; new rows for a run may then be flat or shaped.
        kind: "image", "signal", "vector" or "counts", to overrule the guess.
        label: column to take labels from.
        types: what columns of a table are, where they should not be what they look like: "age=counts,zip=categorical"
            or {"age": "counts"}, of real, binary, categorical, counts, and drop; in the first form a name that holds
            a comma is quoted as in CSV.
        drop: columns of a table to leave out.
        delimiter: of the cells of a table, one character or tab, semicolon, pipe, comma or blank; else found out, as
            are the next two.
        header: "yes" or "no" (or a bool): whether the first line of a table holds the names of its columns.
        decimal: "point" or "comma", what separates fractions in a table.
        schema: the columns of a table as another has them (its `Data.schema`, a run's `spec.columns`): only these are
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
    in_table: dict[str, Any] = {
        "kind": kind or (None if shape is None else "image"),
        "types": types,
        "schema": schema,
        "missing": missing == "mask",
    }
    header = ("yes" if header else "no") if isinstance(header, bool) else header
    dialect = {"delimiter": delimiter, "header": header, "decimal": decimal}
    in_table |= {"drop": [drop] if isinstance(drop, str) else list(drop or ()), **dialect}
    parts: dict[str, Any] = {"valid": valid, "test": test, "split_seed": split_seed, "rows": splits}
    parts["missing"] = missing
    if frames.is_frame(source):
        of_files = {"size": size, "table": table, "x_key": x_key, "delimiter": delimiter, "header": header}
        _refuse("the frame", "a file or a folder", of_files)
        found = tables.source(source, name="the frame", label=label, group=group, **in_table)
        taken = {option: column for option, column in (("label", label), ("group", group)) if column is not None}
        return build(found, name="frame", asked="", kind=kind, label=label, group=group, **parts, options=taken)
    path, asked = known_path(source), str(source)
    known = asked in named.SETS
    folder_only = {"size": size, "table": table, "skip_bad": skip_bad or None, "pixel_range": pixel_range}
    folder_only["background"] = None if background == "white" else background
    is_table = not known and path.is_file() and tables.is_table(path)
    if known or path.exists():
        _refuse(
            asked, "a table (.csv, .parquet)", {} if is_table else {"types": types, "drop": drop or None, **dialect}
        )
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
            where = table_path(table, path)
            found = image_table.described(found, where, label)
    else:
        found = _found(asked, x_key=x_key, label=label, group=group, table=in_table, cache=cache, progress=progress)
    if label is None and not known and path.suffix == ".npz":
        found = replace(found, notes=(*found.notes, *npz.hint(found)))
    if shape is not None:
        if path.is_dir() and not known and _is_images(path):
            raise DataError(f"shape is for flat rows of numbers, and {source} is a folder of images: write size=")
        found = shapes.shaped(found, shape, asked)
    elif not known and kind is None:
        found = replace(found, notes=(*found.notes, *shapes.hint(found)))
    chosen = {
        "shape": None if shape is None else shapes.text(shape),
        "size": None if size is None else str(size),
        "skip_bad": skip_bad or None,
        "background": None if background == "white" else background,
        "pixel_range": pixel_range,
        "table": None if table is None else table_to_keep(table, path),
        "group": group,
        "x_key": x_key,
        "kind": kind,
        "label": label,
        "types": (types if isinstance(types, str) else dict(types)) if types else None,
        "drop": in_table["drop"] or None,
        **dialect,
        "missing": None if missing == "refuse" else missing,
        "valid": None if valid == FRACTION else valid,
        "test": None if test == FRACTION else test,
        "split_seed": split_seed or None,
        "splits": None if splits is None else {part: np.asarray(rows).tolist() for part, rows in splits.items()},
    }
    return build(
        found,
        name=asked if known else name_of(path),
        asked=asked if known else str(path.absolute()),  # a run must find its data from any folder
        kind=kind,
        label=label,
        group=group,
        **parts,
        options={name: value for name, value in chosen.items() if value is not None},
    )


def load_rows(
    source: Any,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    x_key: str | None = None,
    label: str | None = None,
    group: str | None = None,
    delimiter: str | None = None,
    header: str | bool | None = None,
    decimal: str | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Array, list[str] | None, Array | None]:
    """All rows of a source in its own order, for use with a trained model: without splits, and any number of them.

    Args:
        source, size, background, pixel_range, skip_bad, table, x_key, delimiter, header, decimal, cache, progress: as
            for `load`.
        label: column to take labels from, where the data have it.
        group: column of a table that is no datum, where the data have it.
        schema: as for `load`: a table is then read by the columns and categories that a run knows. Without it, columns
            of more than two texts are refused.
        missing: with "mask", a text that is no category of its column is a missing value.

    Returns:
        (N, *row) raw rows in their `row_dtype`, mapped where they are large; the names of files or None; the (N,)
        labels or None: the names of the classes where the source names them, else as they are written there. Notes on
        how they were read are in what `read_rows` gives.

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
        delimiter=delimiter,
        header=header,
        decimal=decimal,
        schema=schema,
        missing=missing,
        cache=cache,
        progress=progress,
    )
    return found.x, found.names, found.label


def read_rows(
    source: Any,
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    table: str | Path | None = None,
    x_key: str | None = None,
    label: str | None = None,
    group: str | None = None,
    delimiter: str | None = None,
    header: str | bool | None = None,
    decimal: str | None = None,
    drop: Sequence[str] = (),
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """What `load_rows` gives, as `x`, `names` and `label`, with all else that is known of the rows; arguments as there.

    Args:
        drop: columns of a table to leave out, where it has them.
        Other arguments: as for `load_rows`.

    `notes` is what the reader should tell the user: images resized, values clipped, arrays and columns not used.

    Raises:
        DataError: the data cannot be found or read.
    """
    in_table: dict[str, Any] = {"schema": schema, "missing": missing == "mask", "strict": False}
    in_table |= {"delimiter": delimiter, "header": header, "decimal": decimal, "drop": drop}
    path, asked = (Path(), "the frame") if frames.is_frame(source) else (known_path(source), str(source))
    if frames.is_frame(source):
        found = tables.source(source, name=asked, label=label, group=group, **in_table)
    elif asked not in named.SETS and path.exists() and _is_images(path):
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
            where = table_path(table, path)
            found = image_table.described(found, where, label)
    else:
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
        codes, names, several, notes = several_labels(given, n, names, f"{asked}: label")
        found = replace(found, notes=(*found.notes, *notes))
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
    shape: shapes.Shape | None = None,
    kind: str | None = None,
    group: str | None = None,
    types: str | Mapping[str, str] | None = None,
    drop: str | Sequence[str] | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    valid: Any = FRACTION,
    test: Any = FRACTION,
    split_seed: int = 0,
    splits: Mapping[str, ArrayLike] | None = None,
) -> Data:
    """Data from NumPy arrays, torch tensors, a torch Dataset or a frame, under the same rules and checks as files.

    Args:
        x: (N, ...) array or tensor; or a map-style Dataset whose items are x, (x, label) or a dict with x or
            image, and y or label; or a frame of pandas or polars, which is read as the same CSV would be.
        label: (N,) classes, numbers or text; not where `x` is a Dataset with labels. Of a frame also the name of a
            column.
        name: what to call the data.
        columns: what else is known of each of the N rows.
        factor_names: the columns that are generative factors.
        label_names, feature_names: names of the classes and of the columns of `x`.
        shape, kind, group, missing, split_seed, splits: as for `load`; types and drop too, of a frame.
        schema: what each column of `x` (N, D) is, where they are not all numbers of one kind; x then holds the codes.
        valid, test: fractions, or data of their own: as `x`, or a pair (x, label).

    Raises:
        DataError: as `load`.
    """
    framed, taken = None, {} if shape is None else {"shape": shapes.text(shape)}
    if frames.is_frame(label):  # of one column, or one-hot
        label_names = frames.names_of(label) if label_names is None and len(frames.names_of(label)) > 1 else label_names
        label = frames.only_column(label)
    if frames.is_frame(x):
        in_table = {"group": group, "kind": kind, "missing": missing == "mask"}
        dropped = [drop] if isinstance(drop, str) else list(drop or ())
        taken |= {option: column for option, column in (("label", label), ("group", group)) if isinstance(column, str)}
        framed = _of_frame(x, label, name, types=types, drop=dropped, schema=schema, **in_table)
        x, label, schema = framed.x, framed.label, framed.schema
    else:
        _refuse(name, "a frame", {"types": types, "drop": drop})
    parts = {"train": arrays_of(x, label, name)}
    fractions = {"valid": FRACTION, "test": FRACTION}
    beside = [] if framed is None else [framed.columns]
    for part, given in (("valid", valid), ("test", test)):
        if isinstance(given, int | float):
            fractions[part] = given
        elif given is not None:
            own, codes = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            if framed is not None and frames.is_frame(own):
                other = _of_frame(own, codes, f"{name}, {part}", schema=schema, missing=missing == "mask")
                own, codes = other.x, other.label
                beside.append(other.columns)
            parts[part] = arrays_of(own, codes, f"{name}, {part}")
    have = {part: codes is not None for part, (_, codes) in parts.items()}
    if len(set(have.values())) > 1:
        raise DataError(f"{name}: expected labels for all of {', '.join(have)} or for none, got them for some only")
    if len(beside) == len(parts):
        shared = [key for key in beside[0] if all(key in one for one in beside)]
        columns = {key: np.concatenate([one[key] for one in beside]) for key in shared} | dict(columns or {})
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
    if framed is not None and names is None:
        names = framed.feature_names
    if schema:
        names = [column.name for column in schema]
        if joined.shape[1:] != (len(schema),):
            raise DataError(f"{name}: schema has {len(schema)} columns, x has rows of shape {joined.shape[1:]}")
    found = Source(
        joined,
        label=codes,
        label_names=None if label_names is None else [str(name) for name in label_names],
        columns={key: column_of(column, f"{name}: column {key!r}") for key, column in (columns or {}).items()},
        feature_names=names,
        factor_names=list(factor_names),
        splits=given_rows or None,
        kind=None if not schema else "counts" if all(c.kind == "counts" for c in schema) else "vector",
        schema=tuple(schema),
        notes=() if framed is None else framed.notes,
    )
    if shape is not None:
        found = shapes.shaped(found, shape, name)
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
        options=taken,
    )


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
    if tables.is_table(path):
        return tables.source(path, label=label, group=group, **table)
    if idx.is_idx(path):
        return idx.source(path, cache=cache)
    if suffix in folders.SUFFIXES:
        raise DataError(f"{path} is a single image: give the folder of images")
    if suffix in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path} is a spreadsheet: save the sheet as CSV (UTF-8)")
    raise DataError(f"{path}: cannot tell the format from its name, expected {FILES} or a folder; convert or rename it")


def _refuse(asked: str, where: str, options: Mapping[str, Any]) -> None:
    if used := [name for name, value in options.items() if value is not None]:
        raise DataError(f"`{used[0]}` applies to {where} only, and {asked} is none; leave it out")


def _of_frame(frame: Any, label: Any, name: str, **options: Any) -> Source:
    """A frame as the same CSV would be read, with the labels of one of its columns or those given."""
    column: Any = label if label is None or isinstance(label, str) else False
    found = tables.source(frame, name=name, label=column, **options)
    return found if column is not False else replace(found, label=label)

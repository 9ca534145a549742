"""Building `Data` from the arrays of any reader, with the same rules and checks for all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

from . import splits
from .core import (
    KINDS,
    Array,
    Computed,
    Data,
    Kind,
    Split,
    blocks,
    cast,
    check_columns,
    check_numbers,
    counted,
    digest,
    layout,
    listed,
    row_dtype,
)
from .genes import taken_columns, with_genes
from .precision import LARGEST, is_bits, needs_double
from .source import Source

Missing = Literal["refuse", "mask"]
MISSING = get_args(Missing)
MOST_COUNTED = 2**24  # float32 holds every whole number up to here; integers below are counts by default
MANY_CLASSES = 10  # fewer may be too few rows of each
LARGEST_COUNT = 1e12  # limit of the count likelihoods; float32 rounds by 6e-8 of a count, far below its deviation


def in_order(source: Source, names: Sequence[str], where: str, absent: float | None = None) -> Source:
    """The source with its columns in the order of `names`; a source without distinct column names is unchanged.

    Args:
        absent: value of columns that the source lacks, at most half of them, with a note; None to refuse such a source.

    Raises:
        DataError: a column is missing, or more than half of them are.
    """
    current = source.feature_names
    if not names or current is None or len(set(current)) < len(current) or np.ndim(source.x) != 2:
        return source
    if list(names) == current:
        return source
    position = {name: i for i, name in enumerate(current)}
    lacking = [name for name in names if name not in position]
    if lacking and absent is None:
        raise DataError(f"{where} has no column {lacking[0]!r}; expected {listed(names)}")
    if 2 * len(lacking) > len(names):
        raise DataError(
            f"{where} has only {len(names) - len(lacking):,} of the {len(names):,} columns, which is too few; expected "
            f"{listed(names)}"
        )
    notes = source.notes
    if lacking:
        taken = "0" if absent == 0 else "missing"
        notes = (
            *notes,
            f"{len(lacking):,} of {len(names):,} columns are absent and taken as {taken} ({listed(lacking, 3)})",
        )
    if unused := len(current) - len(names) + len(lacking):
        verb = "is" if unused == 1 else "are"
        notes = (*notes, f"{counted(unused, 'column')} {verb} not in the model and not used")
    x = taken_columns(source.x, [position.get(name, -1) for name in names], absent)
    return replace(source, x=x, feature_names=list(names), notes=notes)


def build(
    source: Source,
    *,
    name: str,
    asked: str,
    kind: str | None = None,
    label: str | None = None,
    group: str | None = None,
    valid: float = splits.FRACTION,
    test: float = splits.FRACTION,
    split_seed: int = 0,
    rows: Mapping[str, Any] | None = None,
    missing: str = "refuse",
    genes: int | None = None,
    min_cells: int | None = None,
    options: dict[str, Any] | None = None,
    reader: str = "",
) -> Data:
    """Check a source and split it.

    Args:
        source: the result of a reader.
        name, asked: short name of the data, and the name or path that was loaded.
        kind: overrides the inferred kind.
        label: column with the labels.
        group: column whose rows of equal value stay in one split.
        valid, test, split_seed, rows, missing, genes, min_cells: as for `load` (`rows` is its `splits`).
        options, reader: recorded in the result.

    Raises:
        DataError: the data or an argument are not valid; the message names the problem.
    """
    if missing not in MISSING:
        raise DataError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")
    x = tidy(source.x, name)
    sort = kind_of(x, source.kind if source.schema else kind or source.kind)  # a schema already follows `kind`
    layout(sort, x.shape[1:])
    source, columns = _with_labels(source, len(x), name, label)
    codes, label_names = source.label, source.label_names
    groups = _groups(group, columns if codes is None else {"label": codes, **columns})
    columns, attributes = _attributes(columns, source.factor_names)
    source = replace(source, notes=(*source.notes, *_on_labels(codes, label_names)))
    if len(x) < 2:
        raise DataError(
            f"{name} holds {counted(len(x), 'row')}, expected at least 3, one for each of train, valid and test"
        )
    bits = sort != "counts" and not source.schema and is_bits(x)
    x, double, masked, notes = _values(x, sort, source, name, missing == "mask")
    if sort == "counts" and kind is None and source.kind is None:
        notes = (*notes, "whole numbers from 0 up are modelled as counts; `kind='vector'` models them as real numbers")
    if rows is None:
        parts = splits.assign(len(x), valid=valid, test=test, seed=split_seed, own=source.splits, group=groups)
        notes = (*notes, *splits.drawn(source.splits, parts))
    else:
        parts = splits.stored(rows, len(x))
    if genes is not None or min_cells:
        if sort != "counts":
            raise DataError(f"{name}: `genes` and `min_cells` choose columns of counts, but these are {sort} data")
        x, source, note = with_genes(x, source, parts["train"], genes, min_cells or 0)
        notes = (*notes, note)
    everything = Split(x, np.arange(len(x)), codes, columns, source.names, groups, double)
    return Data(
        name=name,
        source=asked,
        kind=sort,
        shape=layout(sort, x.shape[1:]).shape,
        **{part: everything.take(parts[part]) for part in splits.PARTS},
        label_names=label_names,
        feature_names=source.feature_names,
        factor_names=list(source.factor_names),
        attribute_names=attributes,
        scale=source.scale or ((0.0, 1.0) if bits else _scale(x, sort, parts["train"], double)),
        digest=digest(x),
        options=dict(options or {}) | source.options,
        schema=source.schema,
        missing=masked,
        bits=bits,
        notes=notes,
        reader=reader,
    )


def _with_labels(source: Source, n: int, name: str, asked: str | None) -> tuple[Source, dict[str, Array]]:
    """The source with its labels as class numbers, from the column `asked` or its own labels, and all its columns.

    Raises:
        DataError: there is no such column, or a column has another length.
    """
    columns = {key: aligned(column, n, f"{name}: column {key!r}") for key, column in source.columns.items()}
    names, codes, notes = source.label_names, source.label, source.notes
    if codes is not None and np.ndim(codes) == 2:
        codes, names, extra, note = several_labels(np.asarray(codes), n, names, f"{name}: label")
        columns, notes = columns | extra, (*notes, *note)
    if asked is not None:
        if asked not in columns and (asked != "label" or codes is None):
            raise _no_column("label", asked, columns)
        if asked in columns:
            codes, names = columns[asked], None
    if codes is not None:
        codes, names = labels(aligned(codes, n, f"{name}: label"), names)
    return replace(source, label=codes, label_names=names, notes=notes), columns


def _on_labels(codes: Array | None, names: Sequence[str] | None) -> list[str]:
    """A note on labels that differ between most rows, as names of rows do."""
    known = codes[codes >= 0] if codes is not None else np.empty(0)
    count = len(np.unique(known))
    if count < MANY_CLASSES or 2 * count <= len(known):
        return []
    shown = f" ({listed(names, 3)})" if names else ""
    return [f"the labels are {count:,} classes{shown} in {len(known):,} rows: are they names of rows, not classes?"]


def _groups(group: str | None, columns: Mapping[str, Array]) -> NDArray[np.int64] | None:
    """The number of each row's group (n,), from one of these columns; None without `group`.

    Raises:
        DataError: there is no such column.
    """
    if group is None:
        return None
    if group not in columns:
        raise _no_column("group", group, columns)
    return np.unique(columns[group], return_inverse=True)[1].ravel().astype(np.int64)


def _values(x: Any, kind: Kind, source: Source, name: str, masked: bool) -> tuple[Any, bool, bool, tuple[str, ...]]:
    """Check the values of all rows.

    Returns:
        x, in its `row_dtype` if it is in memory; whether float64 is kept; whether values may be missing; notes.

    Raises:
        DataError: a value is not finite, or its column cannot hold it; or all rows are equal.
    """
    notes = source.notes
    untrusted = not (isinstance(x, Computed) and x.trusted)  # checking trusted rows would compute all of them
    if untrusted:
        _check(x, kind, name, source.feature_names, masked)
    double = untrusted and needs_double(x, kind, name)
    x = x if double or is_map(x) or isinstance(x, Computed) else cast(x)
    if masked and x.dtype.kind != "f":
        if source.schema:  # later rows may have missing values even if these have none
            x = x.astype(np.float64 if double else np.float32)
        else:
            masked, notes = False, (*notes, f"no value is missing: {x.dtype} cannot hold nan")
    for start, block in blocks(x, double=double) if source.schema else ():
        check_columns(source.schema, block, name, start)
    return x, double, masked, (*notes, *(_on_missing(x, double, bool(source.schema)) if masked else ()))


def _on_missing(x: Any, double: bool, counted_before: bool) -> list[str]:
    """Notes on the number of missing values and of rows without any value."""
    missing = empty = 0
    for _, block in blocks(x, double=double):
        gaps = np.isnan(block).reshape(len(block), -1)
        missing, empty = missing + int(gaps.sum()), empty + int(gaps.all(1).sum())
    notes = [] if counted_before or not missing else [f"{missing:,} of {math.prod(x.shape):,} values are missing"]
    return notes + ([f"{counted(empty, 'row')} without any value"] if empty else [])


def tidy(x: Any, name: str) -> Any:
    """`x` as an array of numbers: memory maps are unchanged, arrays in memory are cast to their `row_dtype`.

    float64 stays float64.

    Raises:
        DataError: `x` does not hold numbers, or has no rows or no values.
    """
    if not isinstance(x, np.ndarray | Computed):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise DataError(f"{name}: rows must all have one shape ({error})") from error
    check_numbers(x, name)
    if x.ndim == 0 or not math.prod(x.shape):
        raise DataError(f"{name} holds no data: got shape {x.shape}, expected (rows, ...) with at least 3 rows")
    if isinstance(x, Computed):
        return x
    if x.dtype.kind == "b" and any(part.max() > 1 for _, part in blocks(x.view(np.uint8))):
        raise DataError(
            f"{name} is of type bool but holds bytes other than 0 and 1: the file is damaged, or was not saved from "
            "bool; save it as uint8"
        )
    if x.dtype.itemsize > 8 or (x.dtype.kind == "u" and x.dtype.itemsize == 8 and x.max() > np.iinfo(np.int64).max):
        x = x.astype(np.float64)  # float128, and integers above the maximum of int64
    x = x[:, None] if x.ndim == 1 else x
    return x if is_map(x) else cast(x, double=True)


def is_map(x: Array) -> bool:
    """Whether `x` is, or is a view of, a memory map."""
    base: Any = x
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def kind_of(x: Array, asked: str | None) -> Kind:
    """The kind `asked`, or the one inferred from the shape and dtype of `x`.

    Raises:
        DataError: the kind is unknown, or cannot be inferred from the shape.
    """
    if asked is not None:
        for kind in KINDS:
            if kind == asked:
                return kind
        raise DataError(f"kind must be one of {', '.join(KINDS)}, got {asked!r}")
    if x.ndim == 2:
        wide = x.dtype.kind in "ui" and x.dtype != np.uint8
        counts = wide and all(block.min() >= 0 and block.max() < MOST_COUNTED for _, block in blocks(x))
        counts = counts and not is_bits(x)
        return "counts" if counts else "vector"
    row = x.shape[1:]
    if len(row) == 2 or (len(row) == 3 and (row[2] in (1, 2, 3, 4) or row[0] in (1, 3))):
        return "image"
    raise DataError(
        f"cannot infer the kind of data of shape {x.shape}: expected (N, D) vectors, (N, H, W) or (N, H, W, C) images "
        "(C from 1 to 4) or (N, C, H, W) images (C 1 or 3); reshape them, or give `kind`"
    )


def aligned(column: Any, n: int, what: str) -> Array:
    """`column` as an array (n,), with booleans and integers as int64.

    Raises:
        DataError: it has another shape, or holds neither numbers nor strings.
    """
    column = np.asarray(column)
    if column.shape == (n, 1):
        column = column[:, 0]
    if column.shape != (n,):
        raise DataError(f"{what} must have one value for each of {n} rows, got shape {column.shape}")
    if column.dtype.kind not in "buifUT":
        raise DataError(f"{what} must hold numbers or text, got {column.dtype}")
    return column.astype(np.int64) if column.dtype.kind in "bui" else column


def labels(values: Array, names: list[str] | None) -> tuple[NDArray[np.int64], list[str] | None]:
    """Labels (n,) as class numbers 0..K-1, with the names of the classes or None.

    Unknown labels, -1 or the empty text, become -1. If the only values are -1 and 1, both are classes.

    Raises:
        DataError: a label is a fraction or missing, or a number without a name in `names`.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            wrong = values[~np.isfinite(values) | (values != np.round(values))][0]
            raise DataError(
                f"labels must be whole numbers or text, got {wrong:g}: write -1 for unknown labels, or choose another "
                "column with `label`"
            )
        values = values.astype(np.int64)
    if values.dtype.kind in "bui":
        values = values.astype(np.int64)
        if names is None and np.array_equal(np.unique(values), [-1, 1]):
            return (values == 1).astype(np.int64), ["-1", "1"]
        known = values[values != -1]
        if names is not None:
            if len(known) and (known.min() < 0 or known.max() >= len(names)):
                raise DataError(f"labels must lie in 0..{len(names) - 1} for {len(names)} names, got {known.max()}")
            return values, list(names)
        classes = np.unique(known)
        if np.array_equal(classes, np.arange(len(classes))):
            return values, None
        return np.where(values == -1, -1, np.searchsorted(classes, values)), [str(c) for c in classes]
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) and not classes[0]:  # the empty text sorts first
        classes, codes = classes[1:], codes - 1
    return codes.astype(np.int64), [str(c) for c in classes]


def several_labels(
    values: Array, n: int, names: list[str] | None, what: str
) -> tuple[Array | None, list[str] | None, dict[str, Array], list[str]]:
    """Labels (n, K) as classes if there is one column or they are one-hot, else as K columns of the data.

    Returns:
        Labels (n,) or None; names of the classes or None; columns by name; notes to the user.

    Raises:
        DataError: the labels have another number of rows, or are not numbers.
    """
    if len(values) != n:
        raise DataError(f"{what} must have one value for each of {n} rows, got shape {values.shape}")
    count = values.shape[1]
    if count == 1:
        return values[:, 0], names, {}, []
    if not count or values.dtype.kind not in "buif":
        raise DataError(f"{what} must hold one class for each row, got {values.dtype} of shape {values.shape}")
    one_hot = bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())
    if one_hot:
        return values.argmax(1), names, {}, [f"one-hot labels of {count} columns were read as {count} classes"]
    titles = names if names and len(names) == count else [f"label_{i}" for i in range(count)]
    columns = {title: aligned(values[:, i], n, what) for i, title in enumerate(titles)}
    return None, None, columns, [f"labels of shape {values.shape} are not one-hot: kept as columns {listed(titles)}"]


def _attributes(columns: dict[str, Array], factors: list[str]) -> tuple[dict[str, Array], list[str]]:
    """The columns, and the names of the attributes: the columns of 0 and 1, or of -1 and 1, which become 0 and 1."""
    attributes = []
    columns = dict(columns)
    for name, column in columns.items():
        if name in factors or name in ("batch", "group") or column.dtype.kind not in "if":
            continue
        values = np.unique(column)
        if np.array_equal(values, [0, 1]) or np.array_equal(values, [-1, 1]):
            columns[name] = (column == 1).astype(np.int64)
            attributes.append(name)
    return columns, attributes


def _check(x: Array, kind: Kind, name: str, feature_names: list[str] | None, masked: bool) -> None:
    """Raise DataError for values that are not finite, for counts that are not whole, and if all rows are equal.

    With `masked`, nan is a missing value, and every column of vectors needs at least one value.
    """
    first, constant = cast(np.asarray(x[:1]), double=True), True
    known = np.zeros(x.shape[1:], bool)
    for start, block in blocks(x, double=True):
        wrong, missing = np.zeros((), bool), np.zeros((), bool)
        if block.dtype.kind == "f":
            missing = np.isnan(block)
            wrong = np.isinf(block) if masked else ~np.isfinite(block)
            remedy = "drop these rows, fill in the missing values, or mask them with `missing='mask'`"
            remedy = remedy if missing.any() else "drop or correct these rows"
            if not wrong.any() and block.dtype == np.float64 and (wrong := np.abs(block) > LARGEST).any():
                remedy = f"the squares of numbers beyond {LARGEST:g} overflow: divide the data, or take logarithms"
            known |= ~missing.all(0)
        if kind == "counts" and not wrong.any():
            wrong = ~missing & ((block < 0) | (block != np.round(block)))
            remedy = "counts are whole numbers from 0 up; give raw counts, or kind='vector'"
            if not wrong.any():
                wrong = ~missing & (block > LARGEST_COUNT)
                remedy = f"counts are at most {LARGEST_COUNT:g}; count in larger units, or give kind='vector'"
        if wrong.any():
            position = np.argwhere(wrong)[0]
            row, column = start + int(position[0]), tuple(map(int, position[1:]))
            where = _column_text(column, feature_names)
            raise DataError(f"{name}: row {row}, column {where} is {block[tuple(position)]:g}; {remedy}")
        constant = constant and bool(((block == first) | (missing & np.isnan(first))).all())
    if constant:
        raise DataError(f"{name}: all {len(x)} rows are identical, so there is nothing to learn; check the file")
    if x.dtype.kind == "f" and kind in ("vector", "counts") and not known.all():
        column = tuple(map(int, np.argwhere(~known)[0]))
        raise DataError(f"{name}: column {_column_text(column, feature_names)} holds no values; drop it")


def _column_text(column: tuple[int, ...], feature_names: list[str] | None) -> str:
    if len(column) != 1:
        return str(column)
    return repr(feature_names[column[0]]) if feature_names else str(column[0])


def _scale(x: Array, kind: Kind, train: NDArray[np.int64], double: bool) -> tuple[float, float]:
    """(0, 255) for bytes, (0, 1) for bits (also bits stored as bytes), else the range of the training rows."""
    if x.dtype.kind == "b":
        return 0.0, 1.0
    if row_dtype(x.dtype) == np.uint8 and kind != "counts":
        return (0.0, 1.0) if all(block.max() <= 1 for _, block in blocks(x)) else (0.0, 255.0)
    ends = [(np.fmin.reduce(block, None), np.fmax.reduce(block, None)) for _, block in blocks(x, train, double)]
    low, high = np.fmin.reduce([low for low, _ in ends]), np.fmax.reduce([high for _, high in ends])
    return (float(low), float(high)) if low == low else (0.0, 1.0)  # nan: every value of the training rows is missing


def _no_column(option: str, asked: str, columns: Mapping[str, Any]) -> DataError:
    choices = f"choose from {', '.join(sorted(columns))}" if columns else "they have no columns"
    return DataError(f"`{option}={asked!r}`: the data have no such column; {choices}")

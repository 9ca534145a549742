"""From arrays of any origin to `Data`: one set of rules and checks for all readers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

from . import splits
from .core import (
    KINDS,
    Array,
    Column,
    Computed,
    Data,
    Kind,
    Split,
    blocks,
    cast,
    check_columns,
    counted,
    digest,
    layout,
    row_dtype,
    some,
)

Missing = Literal["refuse", "mask"]
MISSING = get_args(Missing)
MOST_COUNTED = 2**24  # up to which float32 holds every whole number: counts unless another kind is asked for
LARGEST_COUNT = 1e12  # where likelihoods of counts end; float32 rounds by 6e-8 of a count, far below its deviation
REMEDIES = {
    "c": "save real and imaginary parts as channels: np.stack([x.real, x.imag], -1)",
    "M": "save times as numbers: (x - x.min()) / np.timedelta64(1, 's')",
    "m": "save durations as numbers: x / np.timedelta64(1, 's')",
    "V": "save its fields as one array: numpy.lib.recfunctions.structured_to_unstructured(x)",
    "U": "texts are read from tables (.csv, .parquet); save numbers",
    "O": "give a frame (pandas, polars) as it is, or convert it to numbers",
    "S": "texts are read from tables (.csv, .parquet); save numbers",
}
"""What to do about arrays that hold no real numbers, by the kind of their type."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader found, before any check: arrays aligned with the rows of `x`.

    Args:
        x: (N, ...) the data.
        label: (N,) integers or strings.
        columns: whatever else is known, each (N,).
        splits: rows that the source itself fixes: train and test, or train, valid and test.
        kind, scale: known from the source; None to find out.
        options: those of `load` that the reader chose by itself, so that data are read alike again.
        Other fields: as in `Data` and `Split`.
    """

    x: Array
    label: Array | None = None
    label_names: list[str] | None = None
    columns: dict[str, Array] = field(default_factory=dict)
    names: list[str] | None = None
    feature_names: list[str] | None = None
    factor_names: list[str] = field(default_factory=list)
    splits: dict[str, NDArray[np.int64]] | None = None
    kind: str | None = None
    scale: tuple[float, float] | None = None
    schema: tuple[Column, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def in_order(source: Source, names: Sequence[str], where: str) -> Source:
    """A source whose columns have names, with those of a run in its order; without names as it is.

    Raises:
        DataError: a column is missing.
    """
    have = source.feature_names
    if not names or have is None or len(set(have)) < len(have) or np.ndim(source.x) != 2 or list(names) == have:
        return source
    if lacking := [name for name in names if name not in have]:
        raise DataError(f"{where} has no column {lacking[0]!r}; expected {some(names)}")
    place = {name: i for i, name in enumerate(have)}
    return replace(source, x=source.x[:, [place[name] for name in names]], feature_names=list(names))


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
    options: dict[str, Any] | None = None,
) -> Data:
    """Checks a source and splits it.

    Args:
        source: what was read.
        name, asked: what the data are called, and what was asked for.
        kind: overrules the guess.
        label, group: columns to take labels from, and to keep together in one split.
        valid, test, split_seed, rows, missing: as for `load` (`rows` is its `splits`).
        options: recorded in the result.

    Raises:
        DataError: whatever is wrong with the data or the choices, by name.
    """
    if missing not in MISSING:
        raise DataError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")
    x = tidy(source.x, name)
    sort = kind_of(x, source.kind if source.schema else kind or source.kind)  # the schema says what was asked for
    plan = layout(sort, x.shape[1:])
    source, columns = _with_labels(source, len(x), name, label)
    codes, label_names = source.label, source.label_names
    by = _groups(group, columns if codes is None else {"label": codes, **columns})
    columns, attributes = _attributes(columns, source.factor_names)
    if len(x) < 2:
        raise DataError(
            f"{name} holds {counted(len(x), 'row')}, expected at least 3, one for each of train, valid and test"
        )
    bits = sort != "counts" and not source.schema and is_bits(x)
    x, double, masked, notes = _values(x, sort, source, name, missing == "mask")
    if rows is None:
        parts = splits.assign(len(x), valid=valid, test=test, seed=split_seed, given=source.splits, group=by)
        notes = (*notes, *splits.drawn(source.splits, parts))
    else:
        parts = splits.stored(rows, len(x))
    everything = Split(x, np.arange(len(x)), codes, columns, source.names, by, double)
    return Data(
        name=name,
        source=asked,
        kind=sort,
        shape=plan.shape,
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
    )


def _with_labels(source: Source, n: int, name: str, asked: str | None) -> tuple[Source, dict[str, Array]]:
    """The source with its labels as class numbers, from the column asked for or its own, and all its columns.

    Raises:
        DataError: no such column, or one of another length.
    """
    columns = {key: aligned(column, n, f"{name}: column {key!r}") for key, column in source.columns.items()}
    names, codes, notes = source.label_names, source.label, source.notes
    if codes is not None and np.ndim(codes) == 2:
        codes, names, beside, note = several_labels(np.asarray(codes), n, names, f"{name}: label")
        columns, notes = columns | beside, (*notes, *note)
    if asked is not None:
        if asked not in columns and (asked != "label" or codes is None):
            raise _no_column("label", asked, columns)
        if asked in columns:
            codes, names = columns[asked], None
    if codes is not None:
        codes, names = labels(aligned(codes, n, f"{name}: label"), names)
    return replace(source, label=codes, label_names=names, notes=notes), columns


def _groups(group: str | None, columns: Mapping[str, Array]) -> NDArray[np.int64] | None:
    """The number of each row's group, from a column of these.

    Raises:
        DataError: there is no such column.
    """
    if group is None:
        return None
    if group not in columns:
        raise _no_column("group", group, columns)
    return np.unique(columns[group], return_inverse=True)[1].ravel().astype(np.int64)


def _values(x: Any, kind: Kind, source: Source, name: str, masked: bool) -> tuple[Any, bool, bool, tuple[str, ...]]:
    """Checks the values of all rows.

    Returns:
        x in its `row_dtype` where it lies in memory; whether float64 is kept; whether values may be missing; notes.

    Raises:
        DataError: a value that no model can learn from, or that its column cannot hold.
    """
    notes = source.notes
    untrusted = not (isinstance(x, Computed) and x.trusted)  # to look at all of the others would be to compute them
    if untrusted:
        _check(x, kind, name, source.feature_names, masked)
    double = untrusted and needs_double(x, kind, name)
    x = x if double or is_map(x) or isinstance(x, Computed) else cast(x)
    if masked and x.dtype.kind != "f":
        if source.schema:  # rows of another table may lack what all of these have
            x = x.astype(np.float64 if double else np.float32)
        else:
            masked, notes = False, (*notes, f"no value can be missing: {x.dtype} has no nan")
    for start, block in blocks(x, double=double) if source.schema else ():
        check_columns(source.schema, block, name, start)
    return x, double, masked, notes


def tidy(x: Any, name: str) -> Any:
    """`x` as an array of numbers: maps are left alone, arrays in memory take their `row_dtype`, float64 as it is.

    Raises:
        DataError: not numbers, no rows, or rows without a single value.
    """
    if not isinstance(x, np.ndarray | Computed):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise DataError(f"{name}: rows must all have one shape ({error})") from error
    if x.dtype.kind not in "buif":
        raise DataError(
            f"{name} must hold real numbers (uint8, integers, float32 or float64), got {x.dtype}; "
            f"{REMEDIES.get(x.dtype.kind, 'convert it first')}"
        )
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
        x = x.astype(np.float64)  # float128, and what no int64 holds
    x = x[:, None] if x.ndim == 1 else x
    return x if is_map(x) else cast(x, double=True)


SAMPLED = 20_000  # rows looked at to tell whether float32 will do
BLURRED = 2.0**-17  # of an element's deviation: the rounding to float32 that is too much
LEAST, LARGEST = 1e-150, 1e150  # between them squares are float64 numbers


def is_bits(x: Any) -> bool:
    """Whether every value is 0 or 1, or nan."""
    if isinstance(x, Computed) and x.trusted:
        return False
    return all(bool(((block == 0) | (block == 1) | (block != block)).all()) for _, block in blocks(x, double=True))


def needs_double(x: Any, kind: Kind, name: str) -> bool:
    """Whether float32 would blur what tells rows apart: time stamps, whose digits before the last all agree.

    It would where rounding to it moves some element by more than 2^-17 of the deviation over the rows, of an image by
    more than that of its elements on average. Counts are whole, and small enough.

    Raises:
        DataError: an element differs from row to row by less than float64 can square.
    """
    if kind == "counts" or not (x.dtype.kind in "fiu" and x.dtype.itemsize >= 4) or x.dtype == np.float32:
        return False
    rows = np.linspace(0, len(x) - 1, min(len(x), SAMPLED)).astype(np.int64)
    first = x[:1].astype(np.float64)[0]
    first = np.where(np.isnan(first), 0, first)
    n, total, squares, moved = (np.zeros(first.shape) for _ in range(4))
    least, most = np.full(first.shape, np.inf), np.full(first.shape, -np.inf)
    for _, block in blocks(x, rows, double=True):
        values = block.astype(np.float64)
        with np.errstate(over="ignore"):
            rounded = np.abs(values - values.astype(np.float32))
        apart = values - first
        n += (~np.isnan(values)).sum(0)
        total, squares = total + np.nansum(apart, 0), squares + np.nansum(apart**2, 0)
        moved, least = np.fmax(moved, np.fmax.reduce(rounded)), np.fmin(least, np.fmin.reduce(values))
        most = np.fmax(most, np.fmax.reduce(values))
    n = np.maximum(n, 1)
    deviation = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    if kind in ("image", "signal"):
        deviation, moved = np.sqrt((deviation**2).mean()), moved.max()
        least, most = least.min(), most.max()
    if ((deviation < LEAST) & (most > least) & (most - least < LEAST)).any():
        raise DataError(f"{name}: some element differs from row to row by less than {LEAST:g}: multiply the data first")
    return bool((moved > BLURRED * np.where(deviation > 0, deviation, 1)).any())


def is_map(x: Array) -> bool:
    """Whether the values lie in a file rather than in memory."""
    base: Any = x
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def kind_of(x: Array, asked: str | None) -> Kind:
    """The kind asked for, or the one that the shape and type of `x` speak for.

    Raises:
        DataError: an unknown kind, or a shape that is none.
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
        f"cannot tell what data of shape {x.shape} are: expected (N, D) vectors, (N, H, W) or (N, H, W, C) images "
        "(C from 1 to 4) or (N, C, H, W) images (C 1 or 3); reshape them, or say kind="
    )


def aligned(column: Any, n: int, what: str) -> Array:
    """`column` as an array with one value per row.

    Raises:
        DataError: another shape, or neither numbers nor strings.
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
    """Labels as class numbers 0..K-1 (-1, unknown, stays; an empty text is unknown), with the names of the classes.

    Of -1 and 1 alone, both are classes.

    Raises:
        DataError: fractions or missing values, or numbers without a name among `names`.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            odd = values[~np.isfinite(values) | (values != np.round(values))][0]
            raise DataError(
                f"labels must be whole numbers or text, got {odd:g}: write -1 where one is unknown, or name another "
                "column with label="
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
    if len(classes) and not classes[0]:  # an empty text, the first in any order: an unknown label
        classes, codes = classes[1:], codes - 1
    return codes.astype(np.int64), [str(c) for c in classes]


def several_labels(
    values: Array, n: int, names: list[str] | None, what: str
) -> tuple[Array | None, list[str] | None, dict[str, Array], list[str]]:
    """Labels (n, K): one column, or one-hot, as classes; anything else as K columns of the data.

    Returns:
        Labels (n,) and names of the classes, or None; columns by name; what to tell the user.

    Raises:
        DataError: another number of rows, or no numbers.
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
    return None, None, columns, [f"labels of shape {values.shape} are no classes: kept as columns {some(titles)}"]


def _attributes(columns: dict[str, Array], factors: list[str]) -> tuple[dict[str, Array], list[str]]:
    """The columns of exactly two values, 0 and 1 (or -1 and 1, which become 0 and 1), are attributes."""
    found = []
    columns = dict(columns)
    for name, column in columns.items():
        if name in factors or name in ("batch", "group") or column.dtype.kind not in "if":
            continue
        values = np.unique(column)
        if np.array_equal(values, [0, 1]) or np.array_equal(values, [-1, 1]):
            columns[name] = (column == 1).astype(np.int64)
            found.append(name)
    return columns, found


def _check(x: Array, kind: Kind, name: str, feature_names: list[str] | None, masked: bool) -> None:
    """Refuses what no model can learn from: values that are not finite, counts that are none, one row repeated.

    Where `masked`, nan is a missing value; then something must be known of every column of vectors.
    """
    first, constant = cast(np.asarray(x[:1]), double=True), True
    known = np.zeros(x.shape[1:], bool)
    for start, block in blocks(x, double=True):
        wrong, missing = np.zeros((), bool), np.zeros((), bool)
        if block.dtype.kind == "f":
            missing = np.isnan(block)
            wrong = np.isinf(block) if masked else ~np.isfinite(block)
            remedy = "drop such rows, fill the missing values in, or have them left out of account: `missing='mask'`"
            remedy = remedy if missing.any() else "drop such rows, or mend them"
            if not wrong.any() and block.dtype == np.float64 and (wrong := np.abs(block) > LARGEST).any():
                remedy = f"numbers beyond {LARGEST:g} have no square: divide the data, or take logarithms"
            known |= ~missing.all(0)
        if kind == "counts" and not wrong.any():
            wrong = ~missing & ((block < 0) | (block != np.round(block)))
            remedy = "counts are whole numbers from 0 up; give raw counts, or kind='vector'"
            if not wrong.any():
                wrong = ~missing & (block > LARGEST_COUNT)
                remedy = f"counts are at most {LARGEST_COUNT:g}; count in larger units, or give kind='vector'"
        if wrong.any():
            place = np.argwhere(wrong)[0]
            row, column = start + int(place[0]), tuple(map(int, place[1:]))
            where = _place(column, feature_names)
            raise DataError(f"{name}: row {row}, column {where} is {block[tuple(place)]:g}; {remedy}")
        constant = constant and bool(((block == first) | (missing & np.isnan(first))).all())
    if constant:
        raise DataError(f"{name}: all {len(x)} data are identical, so there is nothing to learn; check the file")
    if x.dtype.kind == "f" and kind in ("vector", "counts") and not known.all():
        column = tuple(map(int, np.argwhere(~known)[0]))
        raise DataError(f"{name}: column {_place(column, feature_names)} holds no value at all; drop it")


def _place(column: tuple[int, ...], feature_names: list[str] | None) -> str:
    if len(column) != 1:
        return str(column)
    return repr(feature_names[column[0]]) if feature_names else str(column[0])


def _scale(x: Array, kind: Kind, train: NDArray[np.int64], double: bool) -> tuple[float, float]:
    """(0, 255) for bytes, (0, 1) for bits (also bits kept in bytes), otherwise what the training rows show."""
    if x.dtype.kind == "b":
        return 0.0, 1.0
    if row_dtype(x.dtype) == np.uint8 and kind != "counts":
        return (0.0, 1.0) if all(block.max() <= 1 for _, block in blocks(x)) else (0.0, 255.0)
    ends = [(np.fmin.reduce(block, None), np.fmax.reduce(block, None)) for _, block in blocks(x, train, double)]
    low, high = np.fmin.reduce([low for low, _ in ends]), np.fmax.reduce([high for _, high in ends])
    return (float(low), float(high)) if low == low else (0.0, 1.0)  # nan: the training rows lack every value


def _no_column(option: str, asked: str, columns: Mapping[str, Any]) -> DataError:
    there = f"it has {', '.join(sorted(columns))}" if columns else "it has none"
    return DataError(f"{option}={asked!r}: the data have no such column; {there}")

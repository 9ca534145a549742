"""Tables: what each column is, and its cells as numbers. Of files, of frames, or beside the images in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaekit.data.arrays import Source
from vaekit.data.core import Array, Column, counted, some
from vaekit.errors import DataError

from . import delimited, frames
from .cells import Decimal, Table, missing_words
from .coding import code, texts_of
from .infer import check_short, chosen_types, indices, infer, on_columns, on_counts, on_missing, on_names

SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat", ".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz")
LABEL = ("label", "y", "class")


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name: a known suffix, or one followed by that of a compressed file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def is_parquet(path: Path) -> bool:
    """Whether a file is in the format of Parquet, by its first bytes or its name."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() in (".parquet", ".pq")


def read(path: Path, **options: Any) -> Table:
    """The columns of a file; options as for `delimited.read`, which reads all but Parquet.

    Raises:
        DataError: no table, damaged, without rows, or with nested columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if is_parquet(path):
        kept = {name: options[name] for name in ("texts", "drop", "only") if name in options}
        table = frames.read(frames.parquet(path), str(path), **kept)
    else:
        table = delimited.read(path, **options)
    if not table.names or (table.columns and not len(next(iter(table.columns.values())))):
        raise DataError(f"{path} holds no rows: expected a header and one line for each datum")
    return table


def source(
    given: Any,
    *,
    name: str = "",
    label: str | Literal[False] | None = None,
    group: str | None = None,
    kind: str | None = None,
    types: str | Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    delimiter: str | None = None,
    header: str | bool | None = None,
    decimal: str | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    strict: bool = True,
) -> Source:
    """A table whose columns are the data; labels from `label`, or a column named label, y or class.

    What each column is, is inferred: numbers are real, but 0 and 1 alone are two-valued; two texts are two-valued,
    texts that recur categorical, both coded by their place in the alphabet. Many columns of whole numbers from 0 up,
    a good part of them 0, make the table one of counts. A `y` of fractions is taken as data. An empty cell is a
    missing value, nan, and so is NA, ? and the like.

    Args:
        given: path of the file, or a frame.
        name: of a frame, for messages.
        label, group: columns that are no data; False for no label at all.
        kind: of the whole: "counts" makes every column counts, another leaves none of them so.
        types: what columns are that are not to be inferred, "NAME=KIND,..." or by name: real, binary, categorical,
            counts, or drop.
        drop: columns to leave out.
        delimiter, header, decimal: as for `load`.
        schema: the very columns to read, coded by their own categories; other columns are left out.
        missing: with a schema: whether a text that is no category is a missing value rather than an error.
        strict: whether a label, group or column to drop that the table lacks is an error; if not, a table read
            without a schema may not hold categories either, since nobody knows their codes.

    Raises:
        DataError: a column is missing, or does not hold what it should; texts too many to be categories.
    """
    where = str(given) if isinstance(given, str | Path) else name
    chosen = chosen_types(types)
    named = [column.name for column in schema]
    beside = {name for name in (label, group) if name}
    options: dict[str, Any] = {
        "texts": [column.name for column in schema if column.categories],
        "drop": [*drop, *(name for name, as_kind in chosen.items() if as_kind == "drop")],
        "decimal": decimal,
    }
    if frames.is_frame(given):
        table = frames.read(given, where, **options)
        if not table.columns or not len(next(iter(table.columns.values()))):
            raise DataError(f"{where} holds no rows to learn from")
    else:
        header = {True: "yes", False: "no"}.get(header, header) if isinstance(header, bool) else header
        settled = {*beside, *(name for name, as_kind in chosen.items() if as_kind in ("categorical", "binary"))}
        numbers = {column.name for column in schema if not column.categories}

        def heard(name: str) -> bool:
            return name not in settled if not schema else name in numbers

        table = read(Path(given), **options, delimiter=delimiter, header=header, expected=named, heard=heard)
    chosen = {real: kind for name, kind in chosen.items() for real in ([name] if name else table.unnamed or [name])}
    known = {*table.names, *([""] if table.nameless else [])}
    for option, asked in (("drop", drop if strict else ()), ("types", [*chosen])):
        if unknown := [name for name in asked if name not in known]:
            raise DataError(f"{option}: {where} has no column {unknown[0]!r}; it has {some(list(table.names))}")
    if not strict:
        label = label if label is False or label in table.columns else None
        group = group if group in table.columns else None
    for option, column in (("label", label), ("group", group)):
        if isinstance(column, str) and column not in table.columns:
            raise DataError(f"{option}={column!r}: {where} has no such column; it has {some(list(table.columns))}")
    return _source(table, where, label, group, kind, chosen, tuple(schema), missing, strict)


def _source(
    table: Table,
    where: str,
    label: str | Literal[False] | None,
    group: str | None,
    kind: str | None,
    chosen: Mapping[str, str],
    schema: tuple[Column, ...],
    missing: bool,
    strict: bool,
) -> Source:
    columns, notes, given = table.columns, list(table.notes), bool(schema)
    decimal: Decimal = table.options.get("decimal", "point")
    target = label or None
    if label is None:
        free = set(columns) - {column.name for column in schema}
        target = next((name for name in LABEL if name in free and _codes(columns[name])), None)
    beside = {name: columns[name] for name in (target, group) if name is not None}
    for name, values in beside.items():
        check_short(name, values, where)
    if target is not None:
        beside[target], unknown = classes(columns[target])
        if unknown:
            notes.append(f"{unknown:,} of {counted(len(columns[target]), 'label')} in column {target!r} are missing")
    if schema:  # of new rows, whatever else is known of them
        free = set(columns) - {column.name for column in schema}
        beside = {
            name: values for name, values in columns.items() if name in free and values.dtype.kind != "O"
        } | beside
    else:
        data = {name: values for name, values in columns.items() if name not in beside}
        left_out = dict(indices({name: data[name] for name in table.unnamed if name in data and name not in chosen}))
        data = {name: values for name, values in data.items() if name not in left_out}
        schema = infer(data, where, types=chosen, kind=kind, texts=strict, decimal=decimal)
        notes += [*left_out.values(), *on_counts(schema, data, kind, chosen)]
        notes += on_names(schema, data)
    names = [column.name for column in schema]
    if lacking := [name for name in names if name not in columns]:
        raise DataError(f"{where} has no column {lacking[0]!r}; expected {some(names)}")
    coded = [code(column, columns[column.name], where, missing, decimal) for column in schema]
    if kind not in ("image", "signal"):
        notes += [
            *([] if given else on_columns(schema, coded)),
            *on_missing(schema, coded, columns, table.words, decimal),
        ]
    else:
        schema = ()  # the columns are places of one thing
    counts = bool(schema) and all(column.kind == "counts" for column in schema)
    return Source(
        np.stack(coded, axis=1),
        label=None if target is None else beside[target],
        columns=beside,
        feature_names=names,
        kind="counts" if counts else "vector",
        schema=schema,
        notes=tuple(notes),
        options=table.options,
    )


def classes(values: Array) -> tuple[Array, int]:
    """A column of labels with -1, or an empty text, where one is missing, and how many are; -1 beside 1 is a class."""
    if values.dtype.kind == "U":
        gaps = np.isin(values, [*missing_words(np.unique(values).tolist())])
        return np.where(gaps, "", values), int(gaps.sum())
    gaps = np.isnan(values)
    if np.unique(values[~gaps]).tolist() in ([-1, 1], [1]):  # with -1 for what is missing, 1 alone would look like both
        return texts_of(values), int(gaps.sum())
    whole = gaps.any() and (values[~gaps] == np.round(values[~gaps])).all()
    return (np.where(gaps, -1, values).astype(np.int64) if whole else values), int(gaps.sum())


def _codes(values: Array) -> bool:
    if values.dtype.kind != "f":
        return True
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool((present == np.round(present)).all())

"""Tables: what each column is, and its cells as numbers. Of files, of frames, or beside the images in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vaekit.data.arrays import Source
from vaekit.data.core import Array, Column, counted, some
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import delimited, frames
from .cells import Decimal, Table, missing_words
from .coding import code, texts_of
from .dialect import Header
from .infer import check_short, chosen_types, indices, infer, on_columns, on_counts, on_missing, on_names
from .registry import reader

SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat", ".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz")
LABEL = ("label", "y", "class")

Types = Annotated[
    str | Mapping[str, str] | None,
    Knob(
        "what columns are, instead of what is inferred: NAME=KIND,... of real, binary, categorical, counts, drop; a "
        "name that holds a comma is quoted as in CSV"
    ),
]
Drop = Annotated[list[str] | str | Sequence[str] | None, Knob("a column to leave out; may be given several times")]
DecimalSign = Annotated[Decimal | str | None, Knob("what separates the fraction of a number; else inferred")]


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


@reader(
    "table",
    "a table (.csv, .parquet)",
    reads=lambda path: is_table(path) and not path.is_dir(),
    files=".csv, .tsv, .txt, .data (plain or .gz), .parquet",
)
def source(
    path: Path,
    *,
    types: Types = None,
    drop: Drop = None,
    delimiter: Annotated[
        str | None,
        Knob("what separates cells: a character, tab, semicolon, pipe, comma or blank; else inferred"),
    ] = None,
    header: Annotated[
        Header | str | bool | None, Knob("whether the first line holds the names of the columns; else inferred")
    ] = None,
    decimal: DecimalSign = None,
    label: str | Literal[False] | None = None,
    group: str | None = None,
    kind: str | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    to_train: bool = True,
) -> Source:
    """A table whose columns are the data; labels from `label`, or a column named label, y or class.

    What each column is, is inferred: numbers are real, but 0 and 1 alone are two-valued; two texts are two-valued,
    texts that recur categorical, both coded by their place in the alphabet. Many columns of whole numbers from 0 up,
    a good part of them 0, make the table one of counts. A `y` of fractions is taken as data. An empty cell is a
    missing value, nan, and so is NA, ? and the like.

    Args:
        path: of the file.
        types: by name, or as one text: "age=counts,zip=categorical".
        drop, delimiter, header, decimal: as their options say.
        label, group: columns that are no data; False for no label at all.
        kind: of the whole: "counts" makes every column counts, another leaves none of them so.
        schema: the very columns to read, coded by their own categories; other columns are left out.
        missing: with a schema: whether a text that is no category is a missing value rather than an error.
        to_train: whether a label, group or column to drop that the table lacks is an error; if not, a table read
            without a schema may not hold categories either, since nobody knows their codes.

    Raises:
        DataError: a column is missing, or does not hold what it should; texts too many to be categories.
    """
    chosen, dropped = chosen_types(types), _dropped(drop)
    first_line = ("yes" if header else "no") if isinstance(header, bool) else header
    settled = {label, group, *(name for name, as_kind in chosen.items() if as_kind in ("categorical", "binary"))}
    numbers = {column.name for column in schema if not column.categories}

    def heard(name: str) -> bool:
        return name not in settled if not schema else name in numbers

    table = read(
        path,
        **_cells(schema, chosen, dropped, decimal),
        delimiter=delimiter,
        header=first_line,
        expected=[column.name for column in schema],
        heard=heard,
    )
    found = _checked(table, str(path), label, group, kind, chosen, dropped, tuple(schema), missing, to_train)
    given = {**_as_options(types, dropped), "delimiter": delimiter, "header": first_line, "decimal": decimal}
    return replace(found, options={name: value for name, value in given.items() if value} | found.options)


@reader("frame", "a frame (pandas, polars, pyarrow)")
def frame(
    x: Any,
    *,
    types: Types = None,
    drop: Drop = None,
    decimal: DecimalSign = None,
    name: str = "the frame",
    label: str | Literal[False] | None = None,
    group: str | None = None,
    kind: str | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    to_train: bool = True,
) -> Source:
    """A frame, read as the same table in a CSV file would be; arguments and errors as for `source`."""
    chosen, dropped = chosen_types(types), _dropped(drop)
    table = frames.read(x, name, **_cells(schema, chosen, dropped, decimal))
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise DataError(f"{name} holds no rows to learn from")
    found = _checked(table, name, label, group, kind, chosen, dropped, tuple(schema), missing, to_train)
    return replace(found, options=_as_options(types, dropped) | found.options)


def _dropped(drop: str | Sequence[str] | None) -> list[str]:
    return [drop] if isinstance(drop, str) else list(drop or ())


def _cells(
    schema: Sequence[Column], chosen: Mapping[str, str], dropped: Sequence[str], decimal: str | None
) -> dict[str, Any]:
    """How to read the cells of a file or a frame: the columns that are texts, those left out, the decimal sign."""
    return {
        "texts": [column.name for column in schema if column.categories],
        "drop": [*dropped, *(name for name, as_kind in chosen.items() if as_kind == "drop")],
        "decimal": decimal,
    }


def _as_options(types: str | Mapping[str, str] | None, dropped: list[str]) -> dict[str, Any]:
    """The options as a run keeps them."""
    return {
        **({"types": types if isinstance(types, str) else dict(types)} if types else {}),
        **({"drop": dropped} if dropped else {}),
    }


def _checked(
    table: Table,
    where: str,
    label: str | Literal[False] | None,
    group: str | None,
    kind: str | None,
    chosen: Mapping[str, str],
    dropped: Sequence[str],
    schema: tuple[Column, ...],
    missing: bool,
    to_train: bool,
) -> Source:
    """The source of a table, once the columns that the options name are known to be there."""
    chosen = {real: kind for name, kind in chosen.items() for real in ([name] if name else table.unnamed or [name])}
    known = {*table.names, *([""] if table.nameless else [])}
    for option, asked in (("drop", dropped if to_train else ()), ("types", [*chosen])):
        if unknown := [name for name in asked if name not in known]:
            raise DataError(f"{option}: {where} has no column {unknown[0]!r}; it has {some(list(table.names))}")
    if not to_train:
        label = label if label is False or label in table.columns else None
        group = group if group in table.columns else None
    for option, column in (("label", label), ("group", group)):
        if isinstance(column, str) and column not in table.columns:
            raise DataError(f"{option}={column!r}: {where} has no such column; it has {some(list(table.columns))}")
    return _source(table, where, label, group, kind, chosen, schema, missing, to_train)


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

"""Tables in files and frames: the kind of each column, and its cells as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Column, counted, listed
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import columnar, delimited, frames, spreadsheet
from .cells import Decimal, Table, missing_words
from .coding import code, texts_of
from .dialect import Header
from .infer import check_short, chosen_types, indices, infer, on_columns, on_counts, on_missing, on_names
from .registry import reader

SUFFIXES = (
    ".csv",
    ".tsv",
    ".tab",
    ".psv",
    ".txt",
    ".data",
    ".dat",
    *columnar.PARQUET,
    *columnar.ARROW,
    *spreadsheet.SUFFIXES,
)
PACKED = (".gz", ".bz2", ".xz")
LABEL = ("label", "y", "class")
LABELS = ("label", "labels", "y", "class", "classes", "target", "targets")
"""Names, in lower case, of columns that may hold labels."""

Types = Annotated[
    str | Mapping[str, str] | None,
    Knob(
        "kinds of columns that are inferred wrongly: NAME=KIND,... with real, binary, categorical, counts, drop or the "
        "format of dates (%d/%m/%Y); a name with a comma is quoted as in CSV"
    ),
]
Drop = Annotated[list[str] | str | Sequence[str] | None, Knob("a column to leave out; may be given several times")]
DecimalSign = Annotated[Decimal | str | None, Knob("decimal sign of numbers; else inferred")]
FirstLine = Annotated[
    Header | str | bool | None, Knob("whether the first line holds the names of the columns; else inferred")
]
LabelOf = str | Literal[False] | None


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its suffix; a suffix of compression may follow."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not columnar.holds_arrays(path)


def is_sheet(path: Path) -> bool:
    """Whether a file is a workbook, by its suffix."""
    return path.suffix.lower() in spreadsheet.SUFFIXES


def typed(path: Path, sheet: str | None = None, header: str | None = None, expected: Sequence[str] = ()) -> Any:
    """The table in a file whose cells have types (Parquet, Arrow, a spreadsheet), as a frame; None for a file of text.

    Raises:
        DataError: the file is damaged, a package is missing, or as for `spreadsheet.read`.
    """
    if is_sheet(path):
        return spreadsheet.read(path, sheet, header, expected)
    return columnar.Columnar((path,)).table() if columnar.is_columnar(path) else None


def read(path: Path, *, sheet: str | None = None, cache: str | Path | None = None, **options: Any) -> Table:
    """The columns of a table in a file.

    Args:
        path: path of the file.
        sheet: name of the sheet of a spreadsheet.
        cache: folder for a temporary file with the numbers of a large file, if not the default.
        options: as for `delimited.read`.

    Raises:
        DataError: the file is missing, damaged or not a table, or has no rows or nested columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    kept = {name: options[name] for name in ("texts", "drop") if name in options}
    if is_sheet(path):
        found = spreadsheet.read(path, sheet, options.get("header"), options.get("expected", ()))
        table = frames.read(found, str(path), decimal=options.get("decimal"), **kept)
    elif columnar.is_columnar(path):
        table = columnar.table_of(path, cache=cache, **kept)
    else:
        table = delimited.read(path, **options)
    if not table.names or (table.columns and not len(next(iter(table.columns.values())))):
        raise DataError(f"{path} holds no rows: expected a header and one line per row")
    return table


class Asked(NamedTuple):
    """The options of one call of the table reader, and the entries of `registry.CONTEXT` that it uses."""

    label: LabelOf
    group: str | None
    kind: str | None
    chosen: Mapping[str, str]
    dropped: Sequence[str]
    schema: tuple[Column, ...]
    missing: bool
    to_train: bool
    cache: str | Path | None = None


@reader(
    "table",
    "a table (.csv, .parquet, .xlsx)",
    reads=lambda path: is_table(path) and not path.is_dir(),
    files=".csv, .tsv, .txt, .data (plain or .gz), .parquet, .feather, .xlsx",
)
def source(
    path: Path,
    *,
    types: Types = None,
    drop: Drop = None,
    delimiter: Annotated[
        str | None,
        Knob("separator of cells: a character, tab, semicolon, pipe, comma or blank; else inferred"),
    ] = None,
    header: FirstLine = None,
    decimal: DecimalSign = None,
    sheet: Annotated[str | None, Knob("name of the sheet of a spreadsheet; by default the first")] = None,
    label: LabelOf = None,
    group: str | None = None,
    kind: str | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    to_train: bool = True,
    cache: str | Path | None = None,
) -> Source:
    """A table whose columns are the data, with labels from `label` or a column named label, y or class.

    The kinds of the columns are inferred. Numbers are real, but a column of 0 and 1 is binary. A column with two
    distinct texts is binary, and one with recurring texts categorical; both are coded in alphabetical order. A table
    with many columns of whole numbers from 0 up, many of them 0, holds counts. A column `y` of fractions is data, not
    a label. An empty cell is a missing value (nan), and so are texts such as NA and ?.

    Args:
        path: path of the file.
        types: kinds of columns by name, or as one text: "age=counts,zip=categorical".
        drop, delimiter, header, decimal, sheet: see the help of these options.
        label, group: columns that are not data; False for no label.
        kind: kind of the table: "counts" makes every column counts, any other kind makes none of them counts.
        schema: the columns to read, whose categories keep their codes; other columns are left out.
        missing: with a schema, whether a text that is not a category is a missing value instead of an error.
        to_train: whether a missing label, group or column to drop is an error. If not, a table without a schema must
            not have categorical columns, because the codes of their categories would be unknown.
        cache: folder for the rows of a large table, if not the default.

    Raises:
        DataError: a column is missing, holds values of another kind, or has too many texts for categories.
    """
    chosen, dropped = chosen_types(types), _dropped(drop)
    if sheet is not None and to_train and not is_sheet(path):
        raise DataError(f"`sheet` applies to a spreadsheet (.xlsx), not to {path}; omit it")
    as_text = {name for name, kind in chosen.items() if kind in ("categorical", "binary") or kind.startswith("%")}
    not_numeric = {label, group, *as_text}
    in_schema = {column.name for column in schema if not column.categories and not column.format}

    def numeric(name: str) -> bool:
        return name in in_schema if schema else name not in not_numeric

    table = read(
        path,
        **_cells(schema, chosen, dropped, decimal),
        delimiter=delimiter,
        header=first_line(header),
        expected=[column.name for column in schema],
        numeric=numeric,
        sheet=sheet,
        cache=cache,
    )
    asked = Asked(label, group, kind, chosen, dropped, tuple(schema), missing, to_train, cache)
    checked = _checked(table, str(path), asked)
    options = {**_as_options(types, dropped), "delimiter": delimiter, "header": first_line(header), "decimal": decimal}
    options |= {"sheet": sheet}
    return replace(checked, options={name: value for name, value in options.items() if value} | checked.options)


@reader("frame", "a frame (pandas, polars, pyarrow)")
def frame(
    x: Any,
    *,
    types: Types = None,
    drop: Drop = None,
    decimal: DecimalSign = None,
    name: str = "the frame",
    label: LabelOf = None,
    group: str | None = None,
    kind: str | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    to_train: bool = True,
) -> Source:
    """A frame, read like the same CSV; arguments and errors as for `source`."""
    chosen, dropped = chosen_types(types), _dropped(drop)
    table = frames.read(x, name, **_cells(schema, chosen, dropped, decimal))
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise DataError(f"{name} holds no rows to learn from")
    if to_train and (index := frames.index_names(x)):
        note = f"the index ({listed(index)}) is not used; `reset_index()` makes it a column"
        table = replace(table, notes=(note, *table.notes))
    checked = _checked(table, name, Asked(label, group, kind, chosen, dropped, tuple(schema), missing, to_train))
    return replace(checked, options=_as_options(types, dropped) | checked.options)


def first_line(header: str | bool | None) -> str | None:
    """The option `header` as "yes", "no" or None."""
    return ("yes" if header else "no") if isinstance(header, bool) else header


def _dropped(drop: str | Sequence[str] | None) -> list[str]:
    return [drop] if isinstance(drop, str) else list(drop or ())


def _cells(
    schema: Sequence[Column], chosen: Mapping[str, str], dropped: Sequence[str], decimal: str | None
) -> dict[str, Any]:
    """Arguments of the readers of cells: columns to keep as text, columns to leave out, and the decimal sign."""
    return {
        "texts": [
            *(column.name for column in schema if column.categories or column.format),
            *(name for name, as_kind in chosen.items() if as_kind.startswith("%")),
        ],
        "drop": [*dropped, *(name for name, as_kind in chosen.items() if as_kind == "drop")],
        "decimal": decimal,
    }


def _as_options(types: str | Mapping[str, str] | None, dropped: list[str]) -> dict[str, Any]:
    """`types` and `drop` as `Data.options` records them."""
    return {
        **({"types": types if isinstance(types, str) else dict(types)} if types else {}),
        **({"drop": dropped} if dropped else {}),
    }


def _checked(table: Table, where: str, asked: Asked) -> Source:
    """The source of a table, after a check that the columns that the options name exist."""
    unnamed = table.unnamed
    chosen = {real: kind for name, kind in asked.chosen.items() for real in ([name] if name else unnamed or [name])}
    known = {*table.names, *([""] if table.nameless else [])}
    for option, names in (("drop", asked.dropped if asked.to_train else ()), ("types", [*chosen])):
        if unknown := [name for name in names if name not in known]:
            raise DataError(f"{option}: {where} has no column {unknown[0]!r}; it has {listed(list(table.names))}")
    label, group = asked.label, asked.group
    if not asked.to_train:
        label = label if label is False or label in table.columns else None
        group = group if group in table.columns else None
    for option, column in (("label", label), ("group", group)):
        if isinstance(column, str) and column not in table.columns:
            raise DataError(f"{option}={column!r}: {where} has no such column; it has {listed(list(table.columns))}")
    return _source(table, where, asked._replace(label=label, group=group, chosen=chosen))


def _source(table: Table, where: str, asked: Asked) -> Source:
    label, group, kind, chosen, _, schema, missing, to_train, cache = asked
    columns, notes, known_schema = table.columns, list(table.notes), bool(schema)
    decimal: Decimal = table.options.get("decimal", "point")
    target = label or None
    if label is None:
        free = set(columns) - {column.name for column in schema}
        target = next((name for name in LABEL if name in free and _codes(columns[name])), None)
    extra = {name: columns[name] for name in (target, group) if name is not None}
    for name, values in extra.items():
        check_short(name, values, where)
    if target is not None:
        extra[target], unknown = classes(columns[target])
        if unknown:
            notes.append(f"{unknown:,} of {counted(len(columns[target]), 'label')} in column {target!r} are missing")
    if schema:  # new rows keep all their other columns
        free = set(columns) - {column.name for column in schema}
        extra = {name: values for name, values in columns.items() if name in free and values.dtype.kind != "O"} | extra
    else:
        data = {name: values for name, values in columns.items() if name not in extra}
        left_out = dict(indices({name: data[name] for name in table.unnamed if name in data and name not in chosen}))
        data = {name: values for name, values in data.items() if name not in left_out}
        schema = infer(data, where, types=chosen, kind=kind, texts=to_train, decimal=decimal)
        notes += [*left_out.values(), *on_counts(schema, data, kind, chosen)]
        notes += on_names(schema, data)
        if label is None and target is None and to_train:
            notes += [
                f"if column {name!r} holds the labels, give `label={name!r}`"
                for name in data
                if name.strip().lower() in LABELS and _codes(data[name]) and name not in chosen
            ]
    names = [column.name for column in schema]
    if lacking := [name for name in names if name not in columns]:
        raise DataError(f"{where} has no column {lacking[0]!r}; expected {listed(names)}")
    coded = [code(column, columns[column.name], where, missing, decimal) for column in schema]
    if kind not in ("image", "signal"):
        notes += [
            *([] if known_schema else on_columns(schema, coded)),
            *on_missing(schema, coded, columns, table.words, decimal),
        ]
    else:
        schema = ()  # the columns are pixels or samples of a signal
    counts = bool(schema) and all(column.kind == "counts" for column in schema)
    return Source(
        caches.stacked(coded, cache),
        label=None if target is None else extra[target],
        columns=extra,
        feature_names=names,
        kind="counts" if counts else "vector",
        schema=schema,
        notes=tuple(notes),
        options=table.options,
    )


def classes(values: Array) -> tuple[Array, int]:
    """A column of labels (N,) with missing ones as -1 or "", and their number; -1 is a class if the other is 1."""
    if values.dtype.kind == "U":
        missing = np.isin(values, [*missing_words(np.unique(values).tolist())])
        return np.where(missing, "", values), int(missing.sum())
    missing = np.isnan(values)
    if np.unique(values[~missing]).tolist() in ([-1, 1], [1]):  # as text, because -1 would stand for missing labels
        return texts_of(values), int(missing.sum())
    whole = missing.any() and (values[~missing] == np.round(values[~missing])).all()
    return (np.where(missing, -1, values).astype(np.int64) if whole else values), int(missing.sum())


def _codes(values: Array) -> bool:
    """Whether a column can be labels: texts or whole numbers."""
    if values.dtype.kind != "f":
        return True
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool((present == np.round(present)).all())

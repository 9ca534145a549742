"""Tables: .csv and .parquet, as data of their own or as what is known of the images in a folder."""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vaekit.data.arrays import Source
from vaekit.data.core import Array, Column, ColumnKind, some
from vaekit.errors import DataError

SUFFIXES = (".csv", ".parquet")
LABEL = ("label", "y", "class")
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""Cells (in lower case) that are missing values among numbers; among texts only the empty one is."""
MOST_CATEGORIES, ROWS_A_CATEGORY = 256, 3
"""Text is categorical up to so many different values, each there so often on average; else it is names or prose."""
LONG = 1000
"""Characters from which a cell is prose: neither a number nor the name of anything."""
Table = dict[str, Array]


def read(path: Path, texts: Collection[str] = ()) -> Table:
    """The columns of a table, each as int64, float64 (missing values are nan) or text; those named `texts` as text.

    Raises:
        DataError: neither .csv nor .parquet, damaged, without header or rows, or with nested columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    table = _parquet(path, texts) if path.suffix.lower() == ".parquet" else _csv(path, texts)
    if not table or not len(next(iter(table.values()))):
        raise DataError(f"{path} holds no rows: expected a header and one line for each datum")
    return table


def source(
    path: Path,
    *,
    label: str | None = None,
    group: str | None = None,
    kind: str | None = None,
    types: str | Mapping[str, str] | None = None,
    schema: Sequence[Column] = (),
    missing: bool = False,
    strict: bool = True,
) -> Source:
    """A table whose columns are the data; labels from `label`, or a column named label, y or class.

    What each column is, is inferred: numbers are real, but 0 and 1 alone are two-valued; two texts are two-valued,
    texts that recur categorical, both coded by their place in the alphabet. Whole numbers from 0 up in every column
    make the table one of counts. A `y` of fractions is taken as data. An empty cell is a missing value, nan.

    Args:
        path: of the .csv or .parquet file.
        label, group: columns that are no data.
        kind: of the whole: "counts" makes every column counts, another leaves none of them so.
        types: what columns are that are not to be inferred, "NAME=KIND,..." or by name: real, binary, categorical,
            counts, or drop.
        schema: the very columns to read, coded by their own categories; other columns are left out.
        missing: with a schema: whether a text that is no category is a missing value rather than an error.
        strict: whether a label or group that the table lacks is an error; if not, a table read without a schema may
            not hold categories either, since nobody knows their codes.

    Raises:
        DataError: a column is missing, or does not hold what it should; texts too many to be categories.
    """
    table, told = read(path, [column.name for column in schema if column.categories]), bool(schema)
    if not strict:
        label, group = (name if name in table else None for name in (label, group))
    for option, column in (("label", label), ("group", group)):
        if column is not None and column not in table:
            raise DataError(f"{option}={column!r}: {path} has no such column; it has {some(list(table))}")
    target = label or next((name for name in LABEL if name in table and _codes(table[name])), None)
    if schema and label is None and target in {column.name for column in schema}:
        target = None
    beside = {name: table[name] for name in (target, group) if name is not None}
    for name, values in beside.items():
        _check_short(name, values, path)
    if schema:  # of new rows, whatever else is known of them
        known = {column.name for column in schema}
        beside = {name: values for name, values in table.items() if name not in known and values.dtype.kind != "O"}
    else:
        data = {name: values for name, values in table.items() if name not in beside}
        schema = infer(data, path, types=types, kind=kind, texts=strict)
    names = [column.name for column in schema]
    if lacking := [name for name in names if name not in table]:
        raise DataError(f"{path} has no column {lacking[0]!r}; expected {some(names)}")
    coded = [code(column, table[column.name], path, missing) for column in schema]
    if kind in ("image", "signal"):
        schema, notes = (), []  # the columns are places of one thing
    else:
        notes = list(_notes(() if told else schema, coded))
    return Source(
        np.stack(coded, axis=1),
        label=None if target is None else table[target],
        columns=beside,
        feature_names=names,
        kind="counts" if all(column.kind == "counts" for column in schema) else "vector",
        schema=tuple(schema),
        notes=tuple(notes),
    )


def infer(
    table: Table,
    path: Path,
    *,
    types: str | Mapping[str, str] | None = None,
    kind: str | None = None,
    texts: bool = True,
) -> tuple[Column, ...]:
    """What each column of a table is; arguments as for `source`, `texts` whether there may be categories.

    Raises:
        DataError: as `source`.
    """
    chosen = chosen_types(types)
    if unknown := [name for name in chosen if name not in table]:
        raise DataError(f"types: {path} has no column {unknown[0]!r} to learn from; it has {some(list(table))}")
    table = {name: values for name, values in table.items() if chosen.get(name) != "drop"}
    if not table:
        raise DataError(f"{path} has no numeric column to learn from, nor one of categories, beside label and group")
    free = [values for name, values in table.items() if name not in chosen]
    counts = kind == "counts" or (
        kind is None and len(free) == len(table) and all(map(_whole, free)) and not all(map(_bits, free))
    )
    if counts:
        chosen = dict.fromkeys(table, "counts") | chosen
    found, odd = [], []
    for name, values in table.items():
        as_kind = chosen.get(name) or _kind(values, texts)
        if as_kind is None:
            odd.append(name)
        else:
            found.append(_column(name, values, as_kind, path))
    if odd:
        values = table[odd[0]]
        different, n = len(_alphabet(values)), int((values != "").sum())
        raise DataError(
            f"{path}: column{'s' * (len(odd) > 1)} {some(odd)} hold{'s' * (len(odd) == 1)} text, expected numbers or "
            f"categories that recur, got {different} different text{'s' * (different != 1)} in {n} rows: drop them "
            f"(types={odd[0]}=drop), say that they are categories ({odd[0]}=categorical), or name one with label= or "
            "group="
        )
    return tuple(found)


def chosen_types(types: str | Mapping[str, str] | None) -> dict[str, str]:
    """The kinds that a user gives columns, by name, from "NAME=KIND,..." or a mapping.

    Raises:
        DataError: not of that form, or no such kind.
    """
    kinds = (*get_args(ColumnKind), "drop")
    if isinstance(types, str):
        given = [(name, kind) for name, _, kind in (word.rpartition("=") for word in types.split(",") if types)]
    else:
        given = list((types or {}).items())
    found = {}
    for name, kind in given:
        if kind.strip() not in kinds or not name.strip():
            raise DataError(
                f"types: expected NAME=KIND with KIND one of {', '.join(kinds)}, got {name and name + '='}{kind}"
            )
        found[name.strip()] = kind.strip()
    return found


def code(column: Column, values: Array, path: Path, missing: bool = False) -> Array:
    """The cells of a column as its numbers, int64, or float64 where some are nan.

    Raises:
        DataError: text where numbers are expected, or a text that is no category unless it counts as `missing`.
    """
    if not column.categories:
        if values.dtype.kind not in "if":
            bad = int(np.argmax([not _is_number(value) and value.lower() not in MISSING for value in values]))
            raise DataError(
                f"{path}: row {bad}, column {column.name!r} is {str(values[bad])!r}, expected {column.allowed}"
            )
        return values
    texts = _texts(values)
    place = {category: i for i, category in enumerate(column.categories)}
    unique, inverse = np.unique(texts, return_inverse=True)
    found = {text: place.get(text, place.get(_plain(text))) for text in unique.tolist()}
    if unknown := [text for text, at in found.items() if at is None and text.lower() not in MISSING and not missing]:
        row = int(np.argmax(texts == unknown[0]))
        raise DataError(
            f"{path}: row {row}, column {column.name!r} is {unknown[0]!r}, expected one of {some(column.categories)}"
        )
    codes = np.array([np.nan if at is None else at for at in found.values()], np.float64)[inverse.reshape(-1)]
    return codes if np.isnan(codes).any() else codes.astype(np.int64)


def write(path: Path, columns: Sequence[Column], x: Array) -> None:
    """Rows (N, D) as a .csv file: categories by name, counts and 0/1 rounded, missing values as empty cells."""
    cells = [_cells(column, x[:, j]) for j, column in enumerate(columns)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[column.name for column in columns], *zip(*cells, strict=True)])


def _cells(column: Column, values: Array) -> list[str]:
    if column.categories:
        top = len(column.categories) - 1
        return ["" if np.isnan(v) else column.categories[min(max(round(v), 0), top)] for v in values.tolist()]
    whole = column.kind in ("binary", "counts")
    return ["" if np.isnan(v) else str(round(v)) if whole else str(v) for v in values]  # of the dtype's own digits


def _kind(values: Array, texts: bool) -> str | None:
    """What a column is that nobody said anything about; None for text that is nothing."""
    if values.dtype.kind in "if":
        return "binary" if _bits(values) else "real"
    if values.dtype.kind == "O":
        return None
    different, n = len(_alphabet(values)), int((values != "").sum())
    if different == 2:
        return "binary"
    return "categorical" if texts and 2 < different <= min(MOST_CATEGORIES, n // ROWS_A_CATEGORY) else None


def _column(name: str, values: Array, kind: str, path: Path) -> Column:
    number = values.dtype.kind in "if"
    if kind in ("real", "counts"):
        column = Column(name, "counts" if kind == "counts" else "real", **_seen(values))
        code(column, values, path)  # refuses text
        if kind == "counts" and column.outside(values).any():
            row = int(column.outside(values).argmax())
            raise DataError(f"{path}: row {row}, column {name!r} is {values[row]:g}, expected {column.allowed}")
        return column
    _check_short(name, values, path)
    if kind == "binary" and number and _bits(values):
        return Column(name, "binary")
    categories = _alphabet(values)
    if kind == "binary" and len(categories) != 2:
        raise DataError(f"types: column {name!r} of {path} has {len(categories)} different values, a binary one has 2")
    if not categories:
        raise DataError(f"{path}: column {name!r} is empty; drop it (types={name}=drop)")
    return Column(name, "binary" if kind == "binary" else "categorical", tuple(categories))


def _seen(values: Array) -> dict[str, Any]:
    """Whether the numbers of a column are whole, and the lowest and highest of them."""
    present = values[np.isfinite(values)] if values.dtype.kind in "if" else values[:0]
    if not len(present):
        return {}
    return {
        "integer": bool((present == np.round(present)).all()),
        "low": float(present.min()),
        "high": float(present.max()),
    }


def _check_short(name: str, values: Array, path: Path) -> None:
    """Refuses prose where names are expected."""
    if values.dtype.kind == "O":
        longest = max(map(len, values))
        raise DataError(f"{path}: column {name!r} has a text of {longest:,} characters, expected short names")


def _alphabet(values: Array) -> list[str]:
    """The different values of a column in their order, as text; missing ones are none."""
    if values.dtype.kind in "if":
        return _texts(np.unique(values[~np.isnan(values)])).tolist()
    return [text for text in np.unique(values).tolist() if text]


def _texts(values: Array) -> Array:
    """Cells as the texts that name categories: 3, 3.0 and "3" are one; missing ones are empty."""
    if values.dtype.kind in "iu":
        return values.astype(str)
    if values.dtype.kind != "f":
        return values
    return np.array(["" if v != v else str(int(v)) if float(v).is_integer() else repr(v) for v in values.tolist()], str)


def _plain(text: str) -> str:
    """A number written in any way, as `_texts` writes it; other text as it is."""
    return str(_texts(np.array([float(text)]))[0]) if _is_number(text) else text


def _bits(values: Array) -> bool:
    """Whether the values are 0 and 1, both there."""
    return values.dtype.kind in "if" and np.array_equal(np.unique(values[~np.isnan(values)]), [0, 1])


def _whole(values: Array) -> bool:
    """Whether a column was written as whole numbers from 0 up: as int64, or as float64 for the missing ones' sake."""
    if values.dtype.kind not in "if" or (values.dtype.kind == "f" and not np.isnan(values).any()):
        return False
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool(((present >= 0) & (present == np.round(present))).all())


def _notes(schema: Sequence[Column], coded: Sequence[Array]) -> Iterator[str]:
    """What the reader should know: which columns are not real, and how many values are missing."""
    if any(column.kind != "real" for column in schema):
        names = {kind: [c for c in schema if c.kind == kind] for kind in get_args(ColumnKind)}
        told = {
            kind: [f"{c.name} ({some(c.categories, 4)})" if c.categories else c.name for c in columns]
            for kind, columns in names.items()
        }
        yield "columns: " + "; ".join(f"{kind} {some(columns, 8)}" for kind, columns in told.items() if columns)
    holes = [int(np.isnan(values).sum()) for values in coded]
    if sum(holes):
        yield f"{sum(holes):,} of {sum(map(len, coded)):,} values are missing, in {sum(map(bool, holes))} columns"


def _codes(values: Array) -> bool:
    return values.dtype.kind != "f" or bool((values == np.round(values)).all())


def _csv(path: Path, texts: Collection[str]) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip() for name in next(rows, [])]
            lines = []
            for row in rows:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{path}, line {rows.line_num}: expected {len(header)} values, as in the header, got {len(row)}"
                    )
                if row:
                    lines.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    if header and all(_is_number(name) for name in header):
        raise DataError(f"{path} has no header: its first line is all numbers; add a line with the columns' names")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path} has two columns named {twice!r}: give each a name of its own")
    columns = zip(header, zip(*lines, strict=True), strict=True) if lines else ()
    return {name: _stripped(values) if name in texts else _typed(values) for name, values in columns}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _stripped(values: Sequence[str]) -> Array:
    """Cells without blanks around them; as objects where one is long, since all cells of a text array are as wide."""
    cells = [value.strip() for value in values]
    return np.array(cells, object if max(map(len, cells), default=0) > LONG else None)


def _typed(values: Sequence[str]) -> Array:
    """Whole numbers where all are, else numbers (missing ones are nan) where all are, else text."""
    text = _stripped(values)
    if text.dtype.kind == "O":
        return text
    try:
        return text.astype(np.int64)
    except (ValueError, OverflowError):
        pass  # not all whole numbers: the next type is tried
    filled = np.where(np.isin(np.char.lower(text), MISSING), "nan", text)
    try:
        return filled.astype(np.float64)
    except ValueError:
        return text


def _parquet(path: Path, texts: Collection[str]) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"reading {path} needs pyarrow: pip install 'vaekit[parquet]', or save the table as CSV"
        ) from error
    try:
        table = pq.read_table(path)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}): damaged, or another format") from error
    columns: Table = {}
    for name, column in zip(names, table.columns, strict=True):
        kind: Any = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_nested(kind):
            raise DataError(
                f"{path}: column {name!r} is nested ({kind}): save arrays as .npz, tables of plain columns as Parquet"
            )
        values = column.to_numpy()
        if values.dtype.kind in "bu":
            values = values.astype(np.int64)
        elif values.dtype.kind == "O" and (pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
            values = np.array([np.nan if value is None else float(value) for value in values])
        elif values.dtype.kind not in "if":
            values = _stripped(["" if value is None else str(value) for value in values])
        columns[name] = _texts(values) if name in texts else values
    return columns

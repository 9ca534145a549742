"""Tables: .csv and .parquet, as data of their own or as what is known of the images in a folder."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.arrays import Source
from vaekit.data.core import Array
from vaekit.errors import DataError

LABEL = ("label", "y", "class")
Table = dict[str, Array]


def read(path: Path) -> Table:
    """The columns of a table, each as int64, float64 (missing values are nan) or text.

    Raises:
        DataError: neither .csv nor .parquet, damaged, without header or rows, or with nested columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not table or not len(next(iter(table.values()))):
        raise DataError(f"{path} holds no rows: expected a header and one line for each datum")
    return table


def source(path: Path, *, label: str | None = None, group: str | None = None, strict: bool = True) -> Source:
    """A table whose numeric columns are the data; labels from `label`, or a column named label, y or class.

    A column of two texts becomes 0 and 1 in the order of the alphabet. A `y` of fractions is taken as data.
    Where not `strict`, columns that are named but missing are passed over.

    Raises:
        DataError: a named column is missing, or columns of text that are neither label nor group nor two-valued.
    """
    table = read(path)
    if not strict:
        label, group = (name if name in table else None for name in (label, group))
    for option, column in (("label", label), ("group", group)):
        if column is not None and column not in table:
            raise DataError(f"{option}={column!r}: {path} has no such column; it has {_some(list(table))}")
    target = label or next((name for name in LABEL if name in table and _codes(table[name])), None)
    columns = {name: table[name] for name in {target, group} if name is not None}
    features: Table = {}
    text = []
    for name, values in table.items():
        if name in columns:
            continue
        if values.dtype.kind in "if":
            features[name] = values
        elif len(two := np.unique(values)) == 2:
            features[name] = (values == two[1]).astype(np.int64)
        else:
            text.append(name)
    if text:
        raise DataError(
            f"{path}: column{'s' * (len(text) > 1)} {_some(text)} hold{'s' * (len(text) == 1)} text, expected numbers: "
            "drop them, code them as numbers, or name one with label= or group="
        )
    if not features:
        raise DataError(f"{path} has no numeric column to learn from; it has {_some(list(table))}")
    return Source(
        np.stack(list(features.values()), axis=1),
        label=None if target is None else table[target],
        columns=columns,
        feature_names=list(features),
    )


def _codes(values: Array) -> bool:
    return values.dtype.kind != "f" or bool((values == np.round(values)).all())


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _csv(path: Path) -> Table:
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
    return (
        {name: _typed(list(values)) for name, values in zip(header, zip(*lines, strict=True), strict=True)}
        if lines
        else {}
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(values: list[str]) -> Array:
    """Whole numbers where all are, else numbers (empty ones are nan) where all are, else text."""
    text = np.array([value.strip() for value in values])
    try:
        return text.astype(np.int64)
    except (ValueError, OverflowError):
        pass  # not all whole numbers: the next type is tried
    filled = np.where(text == "", "nan", text)
    try:
        return filled.astype(np.float64)
    except ValueError:
        return text


def _parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"reading {path} needs pyarrow: pip install 'vaekit[parquet]', or save the table as CSV"
        ) from error
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}): damaged, or another format") from error
    columns: Table = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind: Any = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_nested(kind):
            raise DataError(
                f"{path}: column {name!r} is nested ({kind}): save arrays as .npz, tables of plain columns as Parquet"
            )
        values = column.to_numpy()
        if values.dtype.kind == "b":
            values = values.astype(np.int64)
        elif values.dtype.kind == "O" and (pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
            values = np.array([np.nan if value is None else float(value) for value in values])
        elif values.dtype.kind not in "iuf":
            values = np.array(["" if value is None else str(value) for value in values])
        columns[name] = values
    return columns

"""The rows of a model as columns of a table, and the cells of a table as text."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .beside import Columns, as_texts
from .core import Array, Column
from .readers import dates, delimited, frames
from .readers.dialect import Dialect
from .readers.table import typed as typed_of

Texts = dict[str, list[str]]
"""The cells of a table by column, as text."""


def texts(path: Path, without: Collection[str] = (), **dialect: Any) -> tuple[Texts, Dialect]:
    """The cells of a table in a file as text, by column in their order, and the dialect of the file.

    Args:
        path: path of the file.
        without: columns to leave out.
        dialect: delimiter, header, decimal, numeric and expected, as for `delimited.read`, and sheet.

    Raises:
        DataError: the file is not a table, or is damaged.
    """
    sheet = dialect.pop("sheet", None)
    frame = typed_of(path, sheet, dialect.get("header"), dialect.get("expected", ()))
    if frame is not None:
        return frames.texts(frame, str(path), without), Dialect(",", ())
    return delimited.texts(path, without=without, **dialect)


def typed(columns: Sequence[Column], x: Array) -> Columns:
    """Rows (N, D) as columns by name: categories and dates as text, whole numbers as integers."""
    return {column.name: _typed(column, x[:, j]) for j, column in enumerate(columns)}


def _typed(column: Column, values: Array) -> Any:
    if column.categories:
        top = len(column.categories) - 1
        return ["" if v != v else column.categories[min(max(round(v), 0), top)] for v in values.tolist()]
    if column.format:
        return dates.written(values, column.format)
    if column.integer or column.kind in ("binary", "counts"):
        return [None if v != v else round(v) for v in values.tolist()]
    return values


def write_texts(path: Path, columns: Mapping[str, Sequence[str]], delimiter: str = ",") -> None:
    """Write columns of text as a file with a header; a blank as `delimiter` is replaced by a comma."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter="," if delimiter == " " else delimiter, lineterminator="\n")
        out.writerows([[*columns], *zip(*columns.values(), strict=True)])


def shown(column: Column, values: Array, decimal: str = "point") -> list[str]:
    """The numbers of a column as texts, with as many digits as their dtype needs."""
    cells, is_text = as_texts(_typed(column, values)), column.categories or column.format
    return [cell.replace(".", ",") for cell in cells] if decimal == "comma" and not is_text else cells

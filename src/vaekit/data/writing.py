"""Writing tables: the rows of a model, or columns of text, as a .csv file."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .core import Array, Column
from .readers import dates, delimited, frames
from .readers.dialect import Dialect
from .readers.table import is_parquet

Texts = dict[str, list[str]]
"""The cells of a table by column, as text."""


def texts(path: Path, without: Collection[str] = (), **dialect: Any) -> tuple[Texts, Dialect]:
    """The cells of a table in a file as text, by column in their order, and the dialect of the file.

    Args:
        path: path of the file.
        without: columns to leave out.
        dialect: delimiter, header, decimal, numeric and expected, as for `delimited.read`.

    Raises:
        DataError: the file is not a table, or is damaged.
    """
    if is_parquet(path):
        return frames.texts(frames.parquet(path), str(path), without), Dialect(",", ())
    return delimited.texts(path, without=without, **dialect)


def write(path: Path, columns: Sequence[Column], x: Array, beside: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write rows (N, D) as a .csv file, followed by the columns of text `beside`.

    Categories are written by name, dates in their format, columns of whole numbers as whole numbers, and missing values
    as empty cells.
    """
    written = {column.name: shown(column, x[:, j]) for j, column in enumerate(columns)}
    write_texts(path, {**written, **(beside or {})})


def write_texts(path: Path, columns: Mapping[str, Sequence[str]], delimiter: str = ",") -> None:
    """Write columns of text as a file with a header; a blank as `delimiter` is replaced by a comma."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter="," if delimiter == " " else delimiter, lineterminator="\n")
        out.writerows([[*columns], *zip(*columns.values(), strict=True)])


def shown(column: Column, values: Array, decimal: str = "point") -> list[str]:
    """The numbers of a column as texts, with as many digits as their dtype needs."""
    if column.categories:
        top = len(column.categories) - 1
        return ["" if v != v else column.categories[min(max(round(v), 0), top)] for v in values.tolist()]
    if column.format:
        return dates.written(values, column.format)
    whole = column.integer or column.kind in ("binary", "counts")
    cells = ["" if v != v else str(round(v)) if whole else str(v) for v in values]
    return [cell.replace(".", ",") for cell in cells] if decimal == "comma" else cells

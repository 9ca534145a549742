"""Tables as they are written: rows of a model as a .csv file, and a file again with some of its cells replaced."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .core import Array, Column
from .readers import delimited, frames
from .readers.dialect import Dialect
from .readers.table import is_parquet

Texts = dict[str, list[str]]
"""The cells of a table by column, as they are written."""


def texts(path: Path, without: Collection[str] = (), **dialect: Any) -> tuple[Texts, Dialect]:
    """The cells of a file as they are written, by column in its order, and its dialect.

    Args:
        without: columns to leave out.
        dialect: delimiter, header, decimal, heard and expected, as for `delimited.read`.
    """
    if is_parquet(path):
        return frames.texts(frames.parquet(path), str(path), without), Dialect(",", ())
    return delimited.texts(path, without=without, **dialect)


def write(path: Path, columns: Sequence[Column], x: Array, beside: Mapping[str, Sequence[str]] | None = None) -> None:
    """Rows (N, D) as a .csv file, and what stands beside them as columns of text after these.

    Categories are written by name, whole-number columns as whole numbers, missing values as empty cells.
    """
    written = {column.name: shown(column, x[:, j]) for j, column in enumerate(columns)}
    write_texts(path, {**written, **(beside or {})})


def write_texts(path: Path, columns: Mapping[str, Sequence[str]], delimiter: str = ",") -> None:
    """Columns of text as a file with a header; columns of blanks are separated by commas."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter="," if delimiter == " " else delimiter, lineterminator="\n")
        out.writerows([[*columns], *zip(*columns.values(), strict=True)])


def shown(column: Column, values: Array, decimal: str = "point") -> list[str]:
    """The numbers of a column as cells, in the digits of their own type."""
    if column.categories:
        top = len(column.categories) - 1
        return ["" if v != v else column.categories[min(max(round(v), 0), top)] for v in values.tolist()]
    whole = column.integer or column.kind in ("binary", "counts")
    cells = ["" if v != v else str(round(v)) if whole else str(v) for v in values]
    return [cell.replace(".", ",") for cell in cells] if decimal == "comma" else cells

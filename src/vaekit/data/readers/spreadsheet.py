"""Sheets of Excel workbooks (.xlsx), read like the same CSV."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, time
from pathlib import Path
from typing import Any

from vaekit.data.core import listed
from vaekit.errors import DataError

from . import frames, zip_directory
from .dialect import generated, names_in

SUFFIXES = (".xlsx", ".xlsm")

MOST_ROWS = 2**20
"""Rows of a sheet at most, as in Excel."""
RATIO, SMALL = 200, 2**26
"""A part of the workbook may be 200 times as large as its compressed bytes, or this many bytes."""
SAMPLED = 1000
"""Rows by which the header is recognised."""
DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ArithmeticError, RecursionError),
    *(OSError, EOFError, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError),
)
"""Exceptions of openpyxl, zipfile and the XML parser for damaged files."""
ABSENT = "#N/A"
"""The error value that stands for a missing value."""


def read(path: Path, sheet: str | None, header: str | None, expected: Sequence[str] = ()) -> frames.Sheet:
    """A sheet of a workbook.

    Cells of formulas have the values that were stored with them. Cells that are formatted as dates are dates. Rows and
    columns without any value are skipped.

    Args:
        path: path of the file.
        sheet: name of the sheet; None for the first that is not hidden.
        header: "yes" or "no": whether the first row holds the names of the columns; None to infer it.
        expected: names of columns that the header has.

    Raises:
        DataError: openpyxl is missing; the file is damaged; there is no such sheet; or a cell holds an error or a
            formula without a value.
    """
    name, others, rows = _rows(path, sheet)
    read = _table(rows, f"{path} (sheet {name!r})", header, expected)
    if sheet is not None or not others:
        return read
    note = f"the sheet {name!r} is read, not {listed(others, 4)}: choose one with `sheet`"
    return replace(read, notes=(note, *read.notes))


@contextmanager
def _opened(path: Path, values: bool = True) -> Iterator[Any]:
    """A workbook, open for reading; with `values`, formulas are replaced by their values.

    Raises:
        DataError: openpyxl is missing, or the file is damaged.
    """
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise DataError(
            f"reading {path} needs openpyxl: pip install 'vaekit[excel]', or save the sheet as CSV (UTF-8)"
        ) from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as parts:
            zip_directory.check(path, parts)
            for part in parts.infolist():
                if part.file_size > max(SMALL, RATIO * part.compress_size):
                    raise DataError(
                        f"{path}: {part.filename} would be {part.file_size:,} bytes unpacked from "
                        f"{part.compress_size:,}, which is more than a workbook needs: save the sheet as CSV (UTF-8)"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts that openpyxl does not read, such as rules for input
            book = load_workbook(path, read_only=True, data_only=values, keep_links=False)
            try:
                yield book
            finally:
                book.close()
    except DataError:
        raise
    except (*DAMAGE, InvalidFileException, MemoryError) as error:
        why = f"{type(error).__name__}: {error}"[:200]
        raise DataError(
            f"{path} cannot be read as .xlsx ({why}): damaged, protected by a password, or another format; save the "
            "sheet as CSV (UTF-8)"
        ) from error


def _rows(path: Path, asked: str | None) -> tuple[str, list[str], list[list[Any]]]:
    """The name of the sheet, those of the other ones, and the values of the cells of its rows that are not empty.

    Raises:
        DataError: there is no such sheet, or a cell holds an error or a formula without a value.
    """
    rows, empty = [], []
    with _opened(path) as book:
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        if not sheets or (asked is not None and asked not in sheets):
            raise DataError(f"sheet={asked!r}: {path} has no such sheet; it has {listed(list(sheets)) or 'none'}")
        visible = (title for title, one in sheets.items() if one.sheet_state == "visible")
        name = asked or next(visible, next(iter(sheets)))
        for number, cells in _numbered(sheets[name], path):
            values = []
            for column, cell in enumerate(cells, 1):
                value = cell.value
                if cell.data_type == "e" and value != ABSENT:
                    raise DataError(
                        f"{path} (sheet {name!r}): cell {_cell(number, column)} holds the error {value}: correct it, "
                        "or empty the cell if the value is missing"
                    )
                empty += [(number, column)] if value is None else []
                values.append(value)
            if any(value is not None for value in values):
                rows.append(values)
    if empty:
        _check_formulas(path, name, empty)
    return name, [title for title in sheets if title != name], rows


def _numbered(sheet: Any, path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a sheet with their numbers; the size that the sheet declares is not trusted."""
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(), 1):
        if number > MOST_ROWS:
            raise DataError(f"{path} (sheet {sheet.title!r}) has more than {MOST_ROWS:,} rows: save it as CSV (UTF-8)")
        yield number, cells


def _cell(row: int, column: int) -> str:
    """The name of a cell, such as B7."""
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


def _check_formulas(path: Path, name: str, empty: list[tuple[int, int]]) -> None:
    """Raise DataError if one of these cells without a value holds a formula."""
    places = set(empty)
    with _opened(path, values=False) as book:
        for number, cells in _numbered(book[name], path):
            for column, cell in enumerate(cells, 1):
                if (number, column) in places and cell.value is not None:
                    raise DataError(
                        f"{path} (sheet {name!r}): cell {_cell(number, column)} holds a formula whose value is not "
                        "stored: open the file in a spreadsheet program and save it there"
                    )


def _table(rows: list[list[Any]], where: str, header: str | None, expected: Sequence[str]) -> frames.Sheet:
    """The rows below the header by column, without columns that are empty."""
    width = max((i + 1 for row in rows for i, value in enumerate(row) if value is not None), default=0)
    rows = [[*row[:width], *[None] * (width - len(row))] for row in rows]
    kept = [j for j in range(width) if any(row[j] is not None for row in rows)]
    rows = [[row[j] for j in kept] for row in rows]
    if not rows:
        raise DataError(f"{where} holds no rows: expected a header and one row per example")
    texts = [[frames.text(value, where) for value in row] for row in rows[:SAMPLED]]
    titled = [cell for cell in texts[0] if cell]
    if header is None and 2 * len(titled) < len(texts[0]):
        raise DataError(
            f"{where}: the first row ({listed(titled, 4)}) has cells in {len(titled)} of {len(texts[0])} columns: "
            "delete the rows above the names of the columns, or give `header='no'`"
        )
    names, notes = names_in(texts, (), ",", header, expected)
    body = rows if names is None else rows[1:]
    titles, known = list(names or [""] * len(kept)), set(names or ())
    made = [j for j, title in enumerate(titles) if not title]
    for j in made:
        titles[j] = generated(j, known)
        known.add(titles[j])
    unnamed = tuple(titles[j] for j in made) if names is not None else ()
    columns = [_dated([row[j] for row in body]) for j in range(len(kept))]
    return frames.Sheet(titles, columns, unnamed, tuple(notes))


def _dated(cells: list[Any]) -> list[Any]:
    """The cells of a column, with dates instead of times if all times of day are midnight."""
    times = [cell for cell in cells if isinstance(cell, datetime)]
    if times and all(cell.time() == time(0) for cell in times):
        return [cell.date() if isinstance(cell, datetime) else cell for cell in cells]
    return cells

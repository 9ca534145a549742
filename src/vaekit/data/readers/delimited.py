"""Tables of delimited text (.csv, .tsv, .txt, .data, compressed or not), read in blocks of rows."""

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vaekit.data.core import Array, counted
from vaekit.errors import DataError

from .cells import Cells, Table, as_text, is_missing, is_number, joined, number
from .dialect import Dialect, find, split, two_conventions
from .encoding import Text

BLOCK_CELLS, BLOCK_ROWS = 200_000, 64
"""About so many cells are read at a time, but at least so many rows."""
_FAULTS = {
    "unexpected end of data": 'a quote (") opens a value and is never closed: close or delete it',
    "field larger": f'a value has more than {csv.field_size_limit():,} characters: shorten it, or close its quote (")',
    "expected after": 'a value goes on after its closing quote: write a quote within a value twice ("")',
}


def read(
    path: Path,
    *,
    delimiter: str | None = None,
    header: str | None = None,
    decimal: str | None = None,
    texts: Collection[str] = (),
    drop: Collection[str] = (),
    heard: Callable[[str], bool] = lambda name: True,
    expected: Sequence[str] = (),
) -> Table:
    """The columns of a file of delimited text.

    Args:
        path: of the file.
        delimiter, header, decimal: as for `load`; None to find them out. Where names are expected, `decimal` is what
            decides where the file does not.
        texts: columns to keep as text.
        drop: columns not to read.
        heard: whether a column of this name says something about the decimal sign.
        expected: names that tell a header from data.

    Raises:
        DataError: the file is no table, or is damaged; the message names the line.
    """
    text = Text.of(path)
    try:
        dialect = find(text, delimiter=delimiter, header=header, decimal=decimal, expected=expected, heard=heard)
        left_out = set(drop) | (set(dialect.unnamed) if "" in drop else set())
        taken = [name for name in dialect.names if name not in left_out]
        reading = _Reading(text, dialect, taken, texts)
        columns = reading.columns()
        free = {name: columns[name] for name in taken if name not in texts and heard(name)}
        if (decimal is None or expected) and (found := _otherwise(free, dialect)):
            plain = _a_fraction(free) if dialect.certain or dialect.decimal == "point" else None
            if plain is not None:
                raise two_conventions(text, *((found, plain) if dialect.decimal == "point" else (plain, found)))
            dialect = dialect.with_decimal("comma" if dialect.decimal == "point" else "point", *found, not expected)
            reading = _Reading(text, dialect, taken, texts)
            columns = reading.columns()
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read as {text.encoding} ({error}): save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    return Table(
        columns,
        names=dialect.names,
        unnamed=tuple(name for name in dialect.unnamed if name in columns),
        nameless=bool(dialect.unnamed),
        words=frozenset(word for cells in reading.cells.values() for word in cells.words),
        notes=(*text.notes, *dialect.notes, *reading.notes()),
        options={"decimal": "comma"} if dialect.decimal == "comma" else {},
    )


def texts(
    path: Path,
    *,
    delimiter: str | None = None,
    header: str | None = None,
    decimal: str | None = None,
    without: Collection[str] = (),
    heard: Callable[[str], bool] = lambda name: True,
    expected: Sequence[str] = (),
) -> tuple[dict[str, list[str]], Dialect]:
    """The cells of a file as they are written, by column in its order, and its dialect; arguments as for `read`.

    Args:
        without: columns to leave out.
    """
    text = Text.of(path)
    dialect = find(text, delimiter=delimiter, header=header, decimal=decimal, expected=expected, heard=heard)
    taken = [name for name in dialect.names if name not in without]
    found = _Reading(text, dialect, taken, ()).written()
    free = {name: as_text(found[name]) for name in taken if heard(name)}
    if (decimal is None or expected) and (late := _otherwise(free, dialect)):
        dialect = dialect.with_decimal("comma" if dialect.decimal == "point" else "point", *late, not expected)
    try:
        padded = _Reading(text, dialect, taken, (), padded=True).written()
    except DataError:  # blanks before a quote
        return found, dialect
    same = all([a.strip() for a in padded[name]] == [b.strip() for b in cells] for name, cells in found.items())
    return padded if same else found, dialect


def _otherwise(columns: dict[str, Array], dialect: Dialect) -> tuple[str, str] | None:
    """The first column of text that the other decimal sign makes numbers, and a cell of it."""
    other = "comma" if dialect.decimal == "point" else "point"
    for name, values in columns.items():
        if values.dtype.kind != "U":
            continue
        present = (cell for cell in values.tolist() if not is_missing(cell))
        example = None
        for cell in present:
            if number(cell, other) is None:  # type: ignore[arg-type]
                break
            example = cell if example is None and number(cell, dialect.decimal) is None else example
        else:
            if example is not None:
                return name, example
    return None


def _a_fraction(columns: dict[str, Array]) -> tuple[str, str] | None:
    """The first column of numbers that are not all whole, and one of them."""
    for name, values in columns.items():
        if values.dtype.kind == "f" and len(odd := values[np.isfinite(values) & (values != np.round(values))]):
            return name, f"{odd[0]:g}"
    return None


@dataclass
class _Reading:
    """One reading of a file: the named columns, as numbers where all their cells are.

    Args:
        text, dialect: of the file.
        taken: the columns to read.
        texts: those to keep as text.
        padded: whether cells keep the blanks before them.

    Attributes:
        cells: the readers of numbers, by column.
        comments, blank: how many lines were skipped.
        long_rows: lines where rows of several lines begin.
        named: the columns that hold text.
    """

    text: Text
    dialect: Dialect
    taken: Sequence[str]
    texts: Collection[str]
    cells: dict[str, Cells] = field(default_factory=dict)
    comments: int = 0
    blank: int = 0
    long_rows: list[int] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    padded: bool = False

    def written(self) -> dict[str, list[str]]:
        """The cells as they are written."""
        found: dict[str, list[str]] = {name: [] for name in self.taken}
        for block in self.blocks():
            for name, cells in block.items():
                found[name] += cells
        return found

    def columns(self) -> dict[str, Array]:
        """A second pass gets the texts of columns in which text appears after the first block."""
        self.comments = self.dialect.comments
        self.cells = {name: Cells(self.dialect.decimal) for name in self.taken}
        parts: dict[str, list[Array]] = {name: [] for name in self.taken}
        texts, late = {name for name in self.taken if name in self.texts}, set[str]()
        for block in self.blocks():
            for name, values in block.items():
                if name in late:
                    continue
                found = None if name in texts else self.cells[name].numbers(values)
                if found is None and name not in texts and parts[name]:
                    late.add(name)
                    continue
                if found is None:
                    texts.add(name)
                    found = as_text(values)
                parts[name].append(found)
        if late:
            self.comments, self.blank = self.dialect.comments, 0
            self.long_rows.clear()
            for name in late:
                parts[name].clear()
            for block in self.blocks():
                for name in late:
                    parts[name].append(as_text(block[name]))
        self.named = texts | late
        return {name: joined(found) if found else np.empty(0) for name, found in parts.items()}

    def blocks(self) -> Iterator[dict[str, tuple[str, ...]]]:
        """The cells of the columns to read, some rows at a time.

        Raises:
            DataError: a row of another length, or quotes that do not pair.
        """
        names, width = self.dialect.names, len(self.dialect.names)
        place = {name: j for j, name in enumerate(names)}
        places = [(place[name], name) for name in self.taken]
        rows: list[list[str]] = []
        most = max(BLOCK_ROWS, BLOCK_CELLS // max(1, width))
        for row in self.rows(width):
            rows.append(row)
            if len(rows) == most:
                columns = list(zip(*rows, strict=True))
                yield {name: columns[j] for j, name in places}
                rows = []
        if rows:
            columns = list(zip(*rows, strict=True))
            yield {name: columns[j] for j, name in places}

    def rows(self, width: int) -> Iterator[list[str]]:
        skip = last = self.dialect.skip
        with self.text.open() as file:
            for _ in range(skip):
                file.readline()
            reader = split(file, self.dialect.delimiter, padded=self.padded)
            blank = 0
            try:
                for row in reader:
                    line, last = last + 1, skip + reader.line_num  # type: ignore[attr-defined]
                    if len(row) != width or (width == 1 and row[0].startswith("#")):
                        if not row:
                            blank += 1
                            continue
                        if row[0].startswith("#"):
                            self.comments += 1
                            continue
                        raise self._of_other_length(row, line, last, width)
                    if last > line:
                        self._check_lines(row, line, last)
                        self.long_rows.append(line)
                    self.blank, blank = self.blank + blank, 0
                    yield row
            except csv.Error as error:
                why = next((words for fault, words in _FAULTS.items() if fault in str(error)), str(error))
                raise DataError(f"{self.text.path}, line {last + 1}: {why}") from error

    def _of_other_length(self, row: list[str], line: int, last: int, width: int) -> DataError:
        where = f"line {line}" if last == line else f'lines {line} to {last}, which a quote (") joins'
        hint = ""
        if width == 1 and self.dialect.delimiter == "," and all(map(is_number, row)):
            hint = "; where the comma is the decimal sign, write `delimiter=';'`"
        elif width == 1:
            hint = "; where lines stand above the header, delete them"
        return DataError(
            f"{self.text.path}, {where}: expected {counted(width, 'value')}, as in the header, got {len(row)}{hint}"
        )

    def _check_lines(self, row: list[str], line: int, last: int) -> None:
        """Refuses a value that has taken in whole rows because a quote is missing or one too many."""
        numeric = [is_number(cell) for cell in row]
        for within in (part for cell in row for part in cell.splitlines()[1:]):
            cells = next(split([within], self.dialect.delimiter, strict=False), [])
            if len(cells) == len(row) > 1 and any(n and is_number(c) for n, c in zip(numeric, cells, strict=True)):
                raise DataError(
                    f'{self.text.path}, line {line}: a quote (") opens a value that ends in line {last} only and holds '
                    "what looks like rows of the table: close or delete it"
                )

    def notes(self) -> Iterator[str]:
        """What was read otherwise than it is written."""
        if self.comments:
            yield f"skipped {counted(self.comments, 'line')} beginning with #"
        if self.blank and len(self.dialect.names) == 1:
            yield f"skipped {counted(self.blank, 'blank line')} between the values"
        if n := len(self.long_rows):
            yield f"a value of several lines in {counted(n, 'row')}, the first in line {self.long_rows[0]}"
        noted = " ".join(self.dialect.notes)
        unusual = [
            (name, *cells.read_as)
            for name, cells in self.cells.items()
            if cells.read_as and f"in column {name!r}" not in noted
        ]
        for name, text, value in unusual[:3]:
            yield f"column {name!r}: {text!r} is read as the number {value:g}"
        if len(unusual) > 3:
            yield f"numbers in {counted(len(unusual) - 3, 'more column')} are written so"
        for name, cells in self.cells.items():
            if cells.padded and name not in self.named:
                yield f"column {name!r}: numbers lose the zeros before them ({cells.padded})"

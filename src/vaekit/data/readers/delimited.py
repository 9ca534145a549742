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
from .encoding import DAMAGE, Text

BLOCK_CELLS, BLOCK_ROWS = 200_000, 64
"""Approximate number of cells per block, and minimum number of rows per block."""
_FAULTS = {
    "unexpected end of data": 'a quote (") opens a value and is not closed: close or delete it',
    "field larger": f'a value has more than {csv.field_size_limit():,} characters: shorten it, or close its quote (")',
    "expected after": 'a value continues after its closing quote: double a quote inside a value ("")',
}


def read(
    path: Path,
    *,
    delimiter: str | None = None,
    header: str | None = None,
    decimal: str | None = None,
    texts: Collection[str] = (),
    drop: Collection[str] = (),
    numeric: Callable[[str], bool] = lambda name: True,
    expected: Sequence[str] = (),
) -> Table:
    """The columns of a file of delimited text.

    Args:
        path: path of the file.
        delimiter, header, decimal: as for `load`; None to infer them. If `expected` is given, `decimal` is only used
            if the decimal sign cannot be inferred from the file.
        texts: columns to keep as text.
        drop: columns to skip.
        numeric: whether the column with this name may hold numbers, so that its cells can show the decimal sign.
        expected: names of columns, to distinguish a header from data.

    Raises:
        DataError: the file is not a table, or is damaged; the message names the line.
    """
    text = Text.of(path)
    try:
        dialect = find(text, delimiter=delimiter, header=header, decimal=decimal, expected=expected, numeric=numeric)
        left_out = set(drop) | (set(dialect.unnamed) if "" in drop else set())
        wanted = [name for name in dialect.names if name not in left_out]
        reading = _Reading(text, dialect, wanted, texts)
        columns = reading.columns()
        free = {name: columns[name] for name in wanted if name not in texts and numeric(name)}
        if (decimal is None or expected) and (other := _with_other_sign(free, dialect)):
            plain = _a_fraction(free) if dialect.certain or dialect.decimal == "point" else None
            if plain is not None:
                raise two_conventions(text, *((other, plain) if dialect.decimal == "point" else (plain, other)))
            dialect = dialect.with_decimal("comma" if dialect.decimal == "point" else "point", *other, not expected)
            reading = _Reading(text, dialect, wanted, texts)
            columns = reading.columns()
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read as {text.encoding} ({error}): save it as CSV in UTF-8") from error
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason})") from error
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
    numeric: Callable[[str], bool] = lambda name: True,
    expected: Sequence[str] = (),
) -> tuple[dict[str, list[str]], Dialect]:
    """The cells of a file as text, by column in their order, and the dialect of the file.

    Args:
        without: columns to leave out.
        Other arguments: as for `read`.

    Raises:
        DataError: as for `read`.
    """
    text = Text.of(path)
    dialect = find(text, delimiter=delimiter, header=header, decimal=decimal, expected=expected, numeric=numeric)
    wanted = [name for name in dialect.names if name not in without]
    stripped = _Reading(text, dialect, wanted, ()).written()
    free = {name: as_text(stripped[name]) for name in wanted if numeric(name)}
    if (decimal is None or expected) and (late := _with_other_sign(free, dialect)):
        dialect = dialect.with_decimal("comma" if dialect.decimal == "point" else "point", *late, not expected)
    try:
        padded = _Reading(text, dialect, wanted, (), padded=True).written()
    except DataError:  # there are blanks before a quote
        return stripped, dialect
    same = all([a.strip() for a in padded[name]] == [b.strip() for b in cells] for name, cells in stripped.items())
    return padded if same else stripped, dialect


def _with_other_sign(columns: dict[str, Array], dialect: Dialect) -> tuple[str, str] | None:
    """The first column of text that is a column of numbers with the other decimal sign, and one of its cells."""
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
    """The first column with numbers that are not whole, and one of these."""
    for name, values in columns.items():
        if values.dtype.kind == "f" and len(fractions := values[np.isfinite(values) & (values != np.round(values))]):
            return name, f"{fractions[0]:g}"
    return None


@dataclass
class _Reading:
    """Reads columns of a file. A column becomes numeric if all its cells are numbers.

    Args:
        text, dialect: the text and the dialect of the file.
        wanted: the columns to read.
        texts: those of them to keep as text.
        padded: whether cells keep their leading blanks.

    Attributes:
        cells: the parsers of numbers, by column.
        comments, blank: numbers of comments and blank lines that were skipped.
        long_rows: the first lines of rows that span several lines.
        named: the columns of text.
    """

    text: Text
    dialect: Dialect
    wanted: Sequence[str]
    texts: Collection[str]
    cells: dict[str, Cells] = field(default_factory=dict)
    comments: int = 0
    blank: int = 0
    long_rows: list[int] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    padded: bool = False

    def written(self) -> dict[str, list[str]]:
        """The cells of the columns as text."""
        texts: dict[str, list[str]] = {name: [] for name in self.wanted}
        for block in self.blocks():
            for name, cells in block.items():
                texts[name] += cells
        return texts

    def columns(self) -> dict[str, Array]:
        """The columns as arrays (N,); a second pass reads columns whose first text appears after the first block."""
        self.comments = self.dialect.comments
        self.cells = {name: Cells(self.dialect.decimal) for name in self.wanted}
        parts: dict[str, list[Array]] = {name: [] for name in self.wanted}
        texts, late = {name for name in self.wanted if name in self.texts}, set[str]()
        for block in self.blocks():
            for name, values in block.items():
                if name in late:
                    continue
                part = None if name in texts else self.cells[name].numbers(values)
                if part is None and name not in texts and parts[name]:
                    late.add(name)
                    continue
                if part is None:
                    texts.add(name)
                    part = as_text(values)
                parts[name].append(part)
        if late:
            self.comments, self.blank = self.dialect.comments, 0
            self.long_rows.clear()
            for name in late:
                parts[name].clear()
            for block in self.blocks():
                for name in late:
                    parts[name].append(as_text(block[name]))
        self.named = texts | late
        return {name: joined(blocks) if blocks else np.empty(0) for name, blocks in parts.items()}

    def blocks(self) -> Iterator[dict[str, tuple[str, ...]]]:
        """The cells of the columns to read, in blocks of rows.

        Raises:
            DataError: a row has another number of cells, or a quote is not closed.
        """
        names, width = self.dialect.names, len(self.dialect.names)
        position = {name: j for j, name in enumerate(names)}
        positions = [(position[name], name) for name in self.wanted]
        rows: list[list[str]] = []
        most = max(BLOCK_ROWS, BLOCK_CELLS // max(1, width))
        for row in self.rows(width):
            rows.append(row)
            if len(rows) == most:
                columns = list(zip(*rows, strict=True))
                yield {name: columns[j] for j, name in positions}
                rows = []
        if rows:
            columns = list(zip(*rows, strict=True))
            yield {name: columns[j] for j, name in positions}

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
        first = line == self.dialect.skip + 1
        if width == 1 and self.dialect.delimiter == "," and all(map(is_number, row)):
            hint = "; if the comma is the decimal sign, use `delimiter=';'`"
        elif first and len(row) == width + 1 > 2:
            hint = "; if the first value of each row is its name, give that column a name in the header"
        elif first or width == 1:
            hint = "; if there are lines above the header, delete them"
        return DataError(
            f"{self.text.path}, {where}: expected {counted(width, 'value')}, as in the header, got {len(row)}{hint}"
        )

    def _check_lines(self, row: list[str], line: int, last: int) -> None:
        """Raise DataError for a value that contains whole rows, because a quote is missing or superfluous."""
        numeric = [is_number(cell) for cell in row]
        for within in (part for cell in row for part in cell.splitlines()[1:]):
            cells = next(split([within], self.dialect.delimiter, strict=False), [])
            if len(cells) == len(row) > 1 and any(n and is_number(c) for n, c in zip(numeric, cells, strict=True)):
                raise DataError(
                    f'{self.text.path}, line {line}: a quote (") opens a value that ends in line {last} and seems to '
                    "contain rows of the table: close or delete the quote"
                )

    def notes(self) -> Iterator[str]:
        """Messages to the user about lines that were skipped and unusual notations."""
        if self.comments:
            yield f"skipped {counted(self.comments, 'line')} starting with #"
        if self.blank and len(self.dialect.names) == 1:
            yield f"skipped {counted(self.blank, 'blank line')} between the values"
        if n := len(self.long_rows):
            yield f"{counted(n, 'row')} with a value of several lines, the first in line {self.long_rows[0]}"
        dialect_notes = " ".join(self.dialect.notes)
        unusual = [
            (name, *cells.read_as)
            for name, cells in self.cells.items()
            if cells.read_as and f"in column {name!r}" not in dialect_notes
        ]
        for name, text, value in unusual[:3]:
            yield f"column {name!r}: {text!r} is read as the number {value:g}"
        if len(unusual) > 3:
            yield f"{counted(len(unusual) - 3, 'more column')} with numbers in such notations"
        for name, cells in self.cells.items():
            if name not in self.named:
                yield from cells.mixed(name)
            if cells.padded and name not in self.named:
                yield f"column {name!r}: numbers lose their leading zeros ({cells.padded})"

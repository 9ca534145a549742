"""The dialect of delimited text: its delimiter, decimal sign and header, inferred from the first lines."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from vaekit.data.core import listed
from vaekit.errors import DataError

from .cells import Decimal, is_missing, number
from .encoding import Text

Header = Literal["yes", "no"]
DELIMITERS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "blank": " "}
"""Delimiters by name, in the order of preference if several fit equally well."""
HEADERS, DECIMALS = get_args(Header), get_args(Decimal)
SAMPLE_LINES, SAMPLE_CHARS, SAMPLED, COMPARED = 1000, 2**20, 200, 100
INDEX = re.compile(r"Unnamed: [0-9]+")
"""The name that pandas gives to an unnamed column, such as the index in a table that it wrote."""
_MADE = re.compile(r"column[0-9]+_*")
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How to read a file of delimited text.

    Args:
        delimiter: one character; a blank stands for any number of blanks and tabs.
        names: names of the columns.
        skip: number of lines before the first row of data.
        decimal: the decimal sign.
        certain: whether the decimal sign was given, or no other fits.
        unnamed: generated names of columns that have none in the header.
        comments: number of comments skipped before the first row.
        notes: messages to the user about these choices.
    """

    delimiter: str
    names: tuple[str, ...]
    skip: int = 0
    decimal: Decimal = "point"
    certain: bool = False
    unnamed: tuple[str, ...] = ()
    comments: int = 0
    notes: tuple[str, ...] = ()

    def with_decimal(self, decimal: Decimal, column: str, cell: str, ask: bool) -> "Dialect":
        """This dialect with another decimal sign, which a cell shows; with `ask`, the note names the alternative."""
        hint = "; `decimal='point'` reads such cells as text" if ask else ""
        notes = (*self.notes, *([comma_note(column, cell) + hint] if decimal == "comma" else []))
        return replace(self, decimal=decimal, certain=True, notes=notes)


def split(lines: Iterable[str], delimiter: str, strict: bool = True, padded: bool = False) -> Iterator[list[str]]:
    """The cells of lines by the quoting rules of CSV, as a csv.reader, which counts lines."""
    if delimiter == " ":
        lines = (line.replace("\t", " ").rstrip(" \r\n") + "\n" for line in lines)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=not padded, strict=strict)


def find(
    text: Text,
    *,
    delimiter: str | None,
    header: str | None,
    decimal: str | None,
    expected: Sequence[str] = (),
    numeric: Callable[[str], bool] = lambda name: True,
) -> Dialect:
    """The dialect of a file; arguments as for `delimited.read`.

    Raises:
        DataError: an argument is not valid, or two columns have the same name.
    """
    chosen = _delimiter(delimiter)
    for name, value, allowed in (("header", header, HEADERS), ("decimal", decimal, DECIMALS)):
        if value not in (None, *allowed):
            raise DataError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    lines, whole = _sample(text)
    skip, comments = 0, []
    if lines and (declared := _SEP.fullmatch(lines[0])):  # a line such as sep=; declares the delimiter for Excel
        chosen, skip = chosen or declared[1], 1
    while skip < len(lines) and (lines[skip].startswith("#") or not lines[skip].strip()):
        comments += [lines[skip]] if lines[skip].startswith("#") else []
        skip += 1
    body = lines[skip:]
    chosen = chosen or _likeliest(body)
    rows, ends = _rows(body, chosen)
    if not rows:
        return Dialect(chosen, ())
    if not whole and len(rows) > 2:
        rows.pop()  # the last row may be incomplete
    names, notes = names_in(rows, comments, chosen, header, expected)
    has_header = names is not None
    if names is None:  # the first row is data
        names = ["" for _ in rows[0]]
    elif names is rows[0]:
        rows, skip = rows[1:], skip + ends[0]
    names, width_notes = _fitted(names, rows, chosen)
    unlabelled = [j for j, name in enumerate(names) if not name and "" not in expected]
    known = set(names)
    for j in unlabelled:
        names[j] = generated(j, known)
    if twice := next((name for name, times in Counter(names).items() if times > 1), None):
        raise DataError(f"{text.path} has two columns named {twice!r}: rename one of them")
    nameless = {names[j] for j in unlabelled}
    unnamed = tuple(name for name in names if has_header and (name in nameless or INDEX.fullmatch(name)))
    notes = [*notes, *width_notes]
    dialect = Dialect(chosen, tuple(names), skip, unnamed=unnamed, comments=len(comments), notes=tuple(notes))
    if comments and notes and "comment" in notes[0]:
        dialect = replace(dialect, comments=len(comments) - 1)
    chosen_decimal: Decimal | None = None if decimal is None else "comma" if decimal == "comma" else "point"
    if chosen_decimal and not expected:
        return replace(dialect, decimal=chosen_decimal, certain=True)
    return _with_decimal(text, dialect, rows[:SAMPLED], numeric, chosen_decimal, not expected)


def _delimiter(given: str | None) -> str | None:
    """A delimiter, given as itself or by its name."""
    if given is None:
        return None
    character = {"\\t": "\t", "space": " "}.get(given, DELIMITERS.get(given, given))
    if len(character) != 1 or character.isalnum() or character in '"\r\n':
        raise DataError(f"delimiter must be one character or one of {', '.join(DELIMITERS)}, got {given!r}")
    return character


def _sample(text: Text) -> tuple[list[str], bool]:
    """The first lines, and whether they are the whole file."""
    lines, chars = [], 0
    with text.open() as file:
        for line in file:
            lines.append(line)
            chars += len(line)
            if len(lines) >= SAMPLE_LINES or (chars > SAMPLE_CHARS and len(lines) > 20):
                return lines, False
    return lines, True


def _rows(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[int]]:
    """The stripped cells of the rows, without blank lines and comments, and the line where each row ends."""
    rows: list[list[str]] = []
    ends: list[int] = []
    reader = split(lines, delimiter, strict=False)
    with suppress(csv.Error):  # reading the file raises the error
        for row in reader:
            if row and not (rows and row[0].startswith("#") and (len(row) != len(rows[0]) or len(row) == 1)):
                rows.append([cell.strip().removeprefix("\ufeff") for cell in row])
                ends.append(reader.line_num)  # type: ignore[attr-defined]
    return rows, ends


def _numeric(cell: str) -> bool:
    return number(cell, "point") is not None or number(cell, "comma") is not None


def _likeliest(lines: Sequence[str]) -> str:
    """The delimiter that gives most rows the same number of cells; among equals, the one with the most numbers."""
    best, best_rank = ",", (0.5, float("inf"))
    for delimiter in DELIMITERS.values():
        rows, _ = _rows(lines, delimiter)
        width, times = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        if width == 1:
            continue
        sample = [row[:COMPARED] for row in rows[1 : COMPARED // 2] if len(row) == width] or rows[:1]
        numeric = [sum(map(_numeric, column)) / len(sample) for column in zip(*sample, strict=True)]
        if delimiter == " " and (1.0 not in numeric or times < 0.9 * len(rows)):
            continue  # the text is prose
        rank = (times / len(rows), sum(numeric) / len(numeric))
        if rank > best_rank:
            best, best_rank = delimiter, rank
    return best


def names_in(
    rows: list[list[str]], comments: Sequence[str], delimiter: str, header: str | None, expected: Sequence[str]
) -> tuple[list[str] | None, list[str]]:
    """The names of the columns, or None, and notes.

    The names are the first row itself, or come from a comment.
    """
    first, rest = rows[0], rows[1:]
    if header == "yes":
        return first, []
    if comments and header is None:
        for line in (comments[-1], comments[-1].lstrip("# ")):
            in_comment = [cell.strip() for cell in next(iter(split([line], delimiter, strict=False)), [])]
            if expected and set(expected) <= set(in_comment):
                return in_comment, []
        distinct = len(set(in_comment)) == len(in_comment) == len(first)
        if distinct and not any(map(_numeric, in_comment)) and all(_numeric(c) or is_missing(c) for c in first):
            return in_comment, [f"the names of the columns come from the comment {comments[-1].strip()!r}"]
    if expected and header is None:
        if set(expected) <= set(first):
            return first, []
        if all(_MADE.fullmatch(name) for name in expected):
            return None, []
    generated = "the columns are named column1, column2, ..."
    if header == "no":
        return None, [f"the table has no header: {generated}"]
    has_header, note = _header(first, [row for row in rest if len(row) == len(first)])
    if has_header:
        return first, [note] if note else []
    return None, [
        f"the first line ({listed(first, 4)}) is data, not a header: {generated}; `header='yes'` reads it as names"
    ]


def _header(first: list[str], rest: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row holds names, and a note if this is uncertain."""
    if not rest:
        return not all(_numeric(cell) for cell in first), ""
    columns = list(zip(*rest[:COMPARED], strict=True))
    known = [all(_numeric(c) or is_missing(c) for c in column) and any(map(_numeric, column)) for column in columns]
    if any(numeric and not (_numeric(c) or is_missing(c)) for c, numeric in zip(first, known, strict=True)):
        return True, ""
    if len(set(first)) < len(first) or any(
        c in column for c, column, numeric in zip(first, columns, known, strict=True) if not numeric and c
    ):
        return False, ""
    heads = [number(c) for c, numeric in zip(first, known, strict=True) if numeric and not is_missing(c)]
    if not heads:  # an empty cell above an index is not a missing number
        return not any(c and numeric for c, numeric in zip(first, known, strict=True)), ""
    if _counts_up(heads) and not all(_by_one([number(c) for c in row]) for row in rest[:COMPARED]):
        return True, (
            f"the first line ({listed(first, 4)}) is read as the names of the columns; `header='no'` reads it as data"
        )
    return False, ""


def _counts_up(values: Sequence[float | None]) -> bool:
    """Whether numbers increase by one each, and start at 0 or 1 or are at least three."""
    return _by_one(values) and (len(values) > 2 or values[0] in (0, 1))


def _by_one(values: Sequence[float | None]) -> bool:
    return len(values) > 1 and all(a is not None and b is not None and b - a == 1 for a, b in pairwise(values))


def _fitted(names: list[str], rows: list[list[str]], delimiter: str) -> tuple[list[str], list[str]]:
    """The names, extended by one if every row has one more cell: an empty last cell, or a first cell with row names."""
    if len(names) < 2 or not rows or any(len(row) != len(names) + 1 for row in rows):
        return names, []
    if not any(row[-1] for row in rows):
        return [*names, ""], []
    first = [row[0] for row in rows]
    if len(set(first)) == len(first) and (not any(map(_numeric, first)) or _counts_up([number(c) for c in first])):
        return ["", *names], [
            f"every row has one cell more than the {len(names)} names of the first line: the first cell is read as the "
            "name of the row"
        ]
    return names, []


def generated(j: int, names: Collection[str]) -> str:
    """A new name for column j."""
    name = f"column{j + 1}"
    while name in names:
        name += "_"
    return name


def _with_decimal(
    text: Text,
    dialect: Dialect,
    rows: list[list[str]],
    numeric: Callable[[str], bool],
    usual: Decimal | None,
    ask: bool,
) -> Dialect:
    """The dialect with the decimal sign that its columns of numbers show; other columns are ignored.

    If no column shows it, the sign is `usual`, except that comma-delimited text without a comma in a cell has points.
    """
    commas = any("," in cell for row in rows for cell in row)
    usual = "point" if dialect.delimiter == "," and not commas else usual
    if not commas and dialect.delimiter != ";" and usual != "comma":
        return dialect
    evidence: dict[str, tuple[str, str]] = {}  # "comma", "point" or "either": the first such column and a cell of it
    for name, cells in zip(dialect.names, zip(*rows, strict=False), strict=False):
        present = [cell for cell in cells if not is_missing(cell)]
        if not numeric(name) or not any("," in cell or "." in cell for cell in present):
            continue
        comma, point = ([number(cell, decimal) for cell in present] for decimal in ("comma", "point"))
        unlike = next((cell for cell, a, b in zip(present, comma, point, strict=True) if a != b), None)
        if unlike is None or (None in comma and None in point):
            continue
        which = "point" if None in comma else "comma" if None in point else "either"
        if which != "either":
            unlike = next(c for c, v in zip(present, comma if which == "point" else point, strict=True) if v is None)
        evidence.setdefault(which, (name, unlike))
    if "comma" in evidence and "point" in evidence:
        raise two_conventions(text, evidence["comma"], evidence["point"])
    if "comma" in evidence:
        return dialect.with_decimal("comma", *evidence["comma"], ask)
    if "point" in evidence:
        return replace(dialect, certain=True)
    if "either" not in evidence:
        return replace(dialect, decimal=usual or "point")
    name, cell = evidence["either"]
    chosen: Decimal = usual or ("comma" if "," in cell and dialect.delimiter == ";" else "point")
    other: Decimal = "point" if chosen == "comma" else "comma"
    note = f"{cell!r} in column {name!r} is read as {number(cell, chosen):g}"
    note += f"; `decimal={other!r}` reads it as {number(cell, other):g}" if ask else ""
    return replace(dialect, decimal=chosen, notes=(*dialect.notes, note))


def two_conventions(text: Text, comma: tuple[str, str], point: tuple[str, str]) -> DataError:
    """The error for a table with decimal commas and decimal points; (column, cell) of each."""
    return DataError(
        f"{text.path}: {comma[1]!r} in column {comma[0]!r} has a decimal comma and {point[1]!r} in column {point[0]!r} "
        f"a decimal point: use one decimal sign, drop a column (`drop=[{comma[0]!r}]`), declare it categorical with "
        "`types`, or choose the decimal sign with `decimal='comma'` or `decimal='point'`"
    )


def comma_note(column: str, cell: str) -> str:
    """The note that the decimal sign is a comma, with a cell as an example."""
    return f"numbers have a decimal comma: {cell!r} in column {column!r} is read as {number(cell, 'comma'):g}"

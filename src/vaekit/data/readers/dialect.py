"""The dialect of delimited text: what separates cells and fractions, where the names are. Found in its first lines."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from vaekit.data.core import some
from vaekit.errors import DataError

from .cells import Decimal, is_missing, number
from .encoding import Text

Header = Literal["yes", "no"]
DELIMITERS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "blank": " "}
"""In the order in which they are preferred where several divide all lines alike."""
HEADERS, DECIMALS = get_args(Header), get_args(Decimal)
SAMPLE_LINES, SAMPLE_CHARS, SAMPLED, COMPARED = 1000, 2**20, 200, 100
INDEX = re.compile(r"Unnamed: [0-9]+")
"""What pandas calls the index of rows when it reads a table that it wrote."""
_MADE = re.compile(r"column[0-9]+_*")
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How to read a file of delimited text.

    Args:
        delimiter: one character; a blank stands for any number of blanks and tabs.
        names: of the columns.
        skip: lines before the first row of data.
        decimal: what separates the fraction.
        certain: whether the decimal sign was given, or can only be this one.
        unnamed: those of the names that stand where the header has none.
        comments: how many lines before the first row were skipped.
        notes: what the user should know of these choices.
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
        """The same but for the decimal sign, for which a cell speaks; `ask` says how to have it otherwise."""
        hint = "; `decimal='point'` would take such cells for text" if ask else ""
        notes = (*self.notes, *([comma_note(column, cell) + hint] if decimal == "comma" else []))
        return replace(self, decimal=decimal, certain=True, notes=notes)


def split(lines: Iterable[str], delimiter: str, strict: bool = True, padded: bool = False) -> Iterator[list[str]]:
    """The cells of lines, by the quoting rules of CSV; a csv.reader, which knows its line number."""
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
    heard: Callable[[str], bool] = lambda name: True,
) -> Dialect:
    """The dialect of a file; arguments as for `delimited.read`.

    Raises:
        DataError: an argument is none of its values, or the columns cannot be told apart.
    """
    chosen = _delimiter(delimiter)
    for name, value, allowed in (("header", header, HEADERS), ("decimal", decimal, DECIMALS)):
        if value not in (None, *allowed):
            raise DataError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    lines, whole = _sample(text)
    skip, comments = 0, []
    if lines and (said := _SEP.fullmatch(lines[0])):  # Excel's own way to name it
        chosen, skip = chosen or said[1], 1
    while skip < len(lines) and (lines[skip].startswith("#") or not lines[skip].strip()):
        comments += [lines[skip]] if lines[skip].startswith("#") else []
        skip += 1
    body = lines[skip:]
    chosen = chosen or _likeliest(body)
    rows, ends = _rows(body, chosen)
    if not rows:
        return Dialect(chosen, ())
    if not whole and len(rows) > 2:
        rows.pop()  # which may be cut off
    names, notes = _names(rows, comments, chosen, header, expected)
    has_header = names is not None
    if names is None:  # the first row is data
        names = ["" for _ in rows[0]]
    elif names is rows[0]:
        rows, skip = rows[1:], skip + ends[0]
    names, more = _fitted(names, rows, chosen)
    made = [j for j, name in enumerate(names) if not name and "" not in expected]
    given = set(names)
    for j in made:
        names[j] = _made(j, given)
    if twice := next((name for name, times in Counter(names).items() if times > 1), None):
        raise DataError(f"{text.path} has two columns named {twice!r}: give each a name of its own")
    nameless = {names[j] for j in made}
    unnamed = tuple(name for name in names if has_header and (name in nameless or INDEX.fullmatch(name)))
    found = Dialect(chosen, tuple(names), skip, unnamed=unnamed, comments=len(comments), notes=(*notes, *more))
    if comments and notes and "comment" in notes[0]:
        found = replace(found, comments=len(comments) - 1)
    chosen_decimal: Decimal | None = None if decimal is None else "comma" if decimal == "comma" else "point"
    if chosen_decimal and not expected:
        return replace(found, decimal=chosen_decimal, certain=True)
    return _with_decimal(text, found, rows[:SAMPLED], heard, chosen_decimal, not expected)


def _delimiter(given: str | None) -> str | None:
    """One character, from itself or its name."""
    if given is None:
        return None
    found = {"\\t": "\t", "space": " "}.get(given, DELIMITERS.get(given, given))
    if len(found) != 1 or found.isalnum() or found in '"\r\n':
        raise DataError(f"delimiter must be one character or one of {', '.join(DELIMITERS)}, got {given!r}")
    return found


def _sample(text: Text) -> tuple[list[str], bool]:
    """The first lines, and whether they are all."""
    lines, chars = [], 0
    with text.open() as file:
        for line in file:
            lines.append(line)
            chars += len(line)
            if len(lines) >= SAMPLE_LINES or (chars > SAMPLE_CHARS and len(lines) > 20):
                return lines, False
    return lines, True


def _rows(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[int]]:
    """The stripped cells of the rows, and the line where each ends; blank lines and comments left out."""
    rows: list[list[str]] = []
    ends: list[int] = []
    reader = split(lines, delimiter, strict=False)
    with suppress(csv.Error):  # the reading proper tells what is wrong
        for row in reader:
            if row and not (rows and row[0].startswith("#") and (len(row) != len(rows[0]) or len(row) == 1)):
                rows.append([cell.strip() for cell in row])
                ends.append(reader.line_num)  # type: ignore[attr-defined]
    return rows, ends


def _numeric(cell: str) -> bool:
    return number(cell, "point") is not None or number(cell, "comma") is not None


def _likeliest(lines: Sequence[str]) -> str:
    """What divides all lines into equally many cells, then what makes most of these numbers."""
    best, best_rank = ",", (0.5, float("inf"))
    for delimiter in DELIMITERS.values():
        rows, _ = _rows(lines, delimiter)
        width, times = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        if width == 1:
            continue
        some = [row[:COMPARED] for row in rows[1 : COMPARED // 2] if len(row) == width] or rows[:1]
        numeric = [sum(map(_numeric, column)) / len(some) for column in zip(*some, strict=True)]
        if delimiter == " " and (1.0 not in numeric or times < 0.9 * len(rows)):
            continue  # prose
        rank = (times / len(rows), sum(numeric) / len(numeric))
        if rank > best_rank:
            best, best_rank = delimiter, rank
    return best


def _names(
    rows: list[list[str]], comments: Sequence[str], delimiter: str, header: str | None, expected: Sequence[str]
) -> tuple[list[str] | None, list[str]]:
    """The names of the columns, which are the first row itself or from a comment; None where there are none."""
    first, rest = rows[0], rows[1:]
    if header == "yes":
        return first, []
    if comments and header is None:
        for said in (comments[-1], comments[-1].lstrip("# ")):
            named = next(iter(split([said], delimiter, strict=False)), [])
            named = [cell.strip() for cell in named]
            if expected and set(expected) <= set(named):
                return named, []
        distinct = len(set(named)) == len(named) == len(first)
        if distinct and not any(map(_numeric, named)) and all(_numeric(c) or is_missing(c) for c in first):
            return named, [f"the names of the columns are those of the comment {comments[-1].strip()!r}"]
    if expected and header is None:
        if set(expected) <= set(first):
            return first, []
        if all(_MADE.fullmatch(name) for name in expected):
            return None, []
    how, note = (False, "") if header == "no" else _header(first, [row for row in rest if len(row) == len(first)])
    if how:
        return first, [note] if note else []
    note = (
        "there is no header" if header == "no" else f"the first line ({some(first, 4)}) is data, so there is no header"
    )
    note += ": the columns are named column1, column2, ..."
    return None, [note if header == "no" else f"{note}; `header='yes'` takes it for names"]


def _header(first: list[str], rest: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row holds names, and a note where that is a guess."""
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
    if not heads:  # an empty cell above an index is no missing number
        return not any(c and numeric for c, numeric in zip(first, known, strict=True)), ""
    if _counts_up(heads) and not all(_by_one([number(c) for c in row]) for row in rest[:COMPARED]):
        return True, (
            f"the first line ({some(first, 4)}) is taken for the names of the columns; `header='no'` takes it for data"
        )
    return False, ""


def _counts_up(values: Sequence[float | None]) -> bool:
    """Whether numbers go up by one each: from 0 or 1, or at least three of them."""
    return _by_one(values) and (len(values) > 2 or values[0] in (0, 1))


def _by_one(values: Sequence[float | None]) -> bool:
    return len(values) > 1 and all(a is not None and b is not None and b - a == 1 for a, b in pairwise(values))


def _fitted(names: list[str], rows: list[list[str]], delimiter: str) -> tuple[list[str], list[str]]:
    """The names, with one more where every row has a cell more: of an empty last cell, or of the names of rows."""
    if len(names) < 2 or not rows or any(len(row) != len(names) + 1 for row in rows):
        return names, []
    if not any(row[-1] for row in rows):
        return [*names, ""], []
    first = [row[0] for row in rows]
    if len(set(first)) == len(first) and (not any(map(_numeric, first)) or _counts_up([number(c) for c in first])):
        return ["", *names], [
            f"every row has one cell more than the {len(names)} names of the first line: the first cell is taken for "
            "the name of its row"
        ]
    return names, []


def _made(j: int, names: Collection[str]) -> str:
    """A name for column j."""
    name = f"column{j + 1}"
    while name in names:
        name += "_"
    return name


def _with_decimal(
    text: Text, found: Dialect, rows: list[list[str]], heard: Callable[[str], bool], usual: Decimal | None, ask: bool
) -> Dialect:
    """The dialect with the decimal sign for which its columns speak; a column that is not all numbers says nothing.

    Where none speaks, it is the `usual` one; but not a comma in a file without any whose cells commas separate.
    """
    commas = any("," in cell for row in rows for cell in row)
    usual = "point" if found.delimiter == "," and not commas else usual
    if not commas and found.delimiter != ";" and usual != "comma":
        return found
    speaks: dict[str, tuple[str, str]] = {}  # comma, point or either, and the first column and cell that do
    for name, cells in zip(found.names, zip(*rows, strict=False), strict=False):
        present = [cell for cell in cells if not is_missing(cell)]
        if not heard(name) or not any("," in cell or "." in cell for cell in present):
            continue
        comma, point = ([number(cell, decimal) for cell in present] for decimal in ("comma", "point"))
        unlike = next((cell for cell, a, b in zip(present, comma, point, strict=True) if a != b), None)
        if unlike is None or (None in comma and None in point):
            continue
        which = "point" if None in comma else "comma" if None in point else "either"
        if which != "either":
            unlike = next(c for c, v in zip(present, comma if which == "point" else point, strict=True) if v is None)
        speaks.setdefault(which, (name, unlike))
    if "comma" in speaks and "point" in speaks:
        raise two_conventions(text, speaks["comma"], speaks["point"])
    if "comma" in speaks:
        return found.with_decimal("comma", *speaks["comma"], ask)
    if "point" in speaks:
        return replace(found, certain=True)
    if "either" not in speaks:
        return replace(found, decimal=usual or "point")
    name, cell = speaks["either"]
    chosen: Decimal = usual or ("comma" if "," in cell and found.delimiter == ";" else "point")
    other: Decimal = "point" if chosen == "comma" else "comma"
    note = f"{cell!r} in column {name!r} is read as {number(cell, chosen):g}"
    note += f"; `decimal={other!r}` reads it as {number(cell, other):g}" if ask else ""
    return replace(found, decimal=chosen, notes=(*found.notes, note))


def two_conventions(text: Text, comma: tuple[str, str], point: tuple[str, str]) -> DataError:
    """The error of a table of decimal commas and decimal points; (column, cell) of each."""
    return DataError(
        f"{text.path}: {comma[1]!r} in column {comma[0]!r} has a decimal comma and {point[1]!r} in column {point[0]!r} "
        f"a decimal point: write all numbers alike, drop a column (`drop=[{comma[0]!r}]`) or "
        "say that it holds categories, or say which are numbers: "
        "`decimal='comma'` or `decimal='point'`"
    )


def comma_note(column: str, cell: str) -> str:
    return f"numbers have a decimal comma: {cell!r} in column {column!r} is read as {number(cell, 'comma'):g}"

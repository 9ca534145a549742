"""What the texts in the cells of a table say: numbers in several notations, missing values, dates."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vaekit.data.core import Array

Decimal = Literal["point", "comma"]

MISSING = frozenset(
    ("", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "none", "?", "-", "--", ".")
)
"""Texts, in lower case, that stand for a missing value; see `missing_words` for the exceptions among texts."""
LONG = 1000
"""Characters from which a cell is prose: neither a number nor the name of anything."""
LARGE = 2**31
"""Bytes that a text array may take."""
CURRENCIES = "$€£¥₹₽₩"
CODES = ("USD", "EUR", "GBP", "CHF", "JPY")
MINUS = "\u2212"
_SPACES = "\u00a0\u202f\u2009"

_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_BODY = {
    "point": re.compile(
        r"[+-]?(?:[1-9][0-9]{0,2}(?P<by>[, '’])[0-9]{3}(?:(?P=by)[0-9]{3})*(?:\.[0-9]*)?"
        rf"|(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT})"
    ),
    "comma": re.compile(
        r"[+-]?(?:[1-9][0-9]{0,2}(?P<by>[. '’])[0-9]{3}(?:(?P=by)[0-9]{3})*(?:,[0-9]*)?"
        rf"|(?:[0-9]+,?[0-9]*|,[0-9]+){_EXPONENT})"
    ),
}
_AFFIX = re.compile(
    rf"([+-]?)\s*(?:[{CURRENCIES}]|{'|'.join(CODES)})?\s*([+-]?[0-9.,].*?)\s*(?:[{CURRENCIES}%]|{'|'.join(CODES)})?"
)
_NAMED = {"inf": np.inf, "+inf": np.inf, "-inf": -np.inf, "infinity": np.inf, "-infinity": -np.inf}
_PADDED = re.compile(r"\n\s*[+-]?0[0-9]+\s*(?=\n|$)")

_CLOCK = (
    r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[AaPp]\.?[Mm]\.?)?(?: ?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?"
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"(?:(?:[0-9]{{4}}([-/.])[0-9]{{1,2}}(?:\1[0-9]{{1,2}})?|[0-9]{{1,2}}([-/.])[0-9]{{1,2}}\2(?:[0-9]{{4}}|[0-9]{{2}})"
    rf"|[0-9]{{1,2}}[- .]+{_MONTH}[- ,]+[0-9]{{2,4}}|{_MONTH} [0-9]{{1,2}},? [0-9]{{4}})(?:[T ,]+{_CLOCK})?"
    rf"|{_CLOCK}|-?[0-9]+ days?.*)",
    re.IGNORECASE,
)


def number(text: str, decimal: Decimal = "point") -> float | None:
    """The number that a cell says, or None: digits in groups of three, a currency or a percent sign may be in it.

    Only ASCII digits make numbers, and no underscores: 1_2 is a name.
    """
    text = text.strip().replace(MINUS, "-")
    if not text.isascii():
        for space in _SPACES:
            text = text.replace(space, " ")
    found = _BODY[decimal].fullmatch(text)
    if found is None:
        affixed = _AFFIX.fullmatch(text)
        if affixed is None or (affixed[1] and affixed[2][0] in "+-"):
            return _NAMED.get(text.lower())
        text = affixed[1] + affixed[2]
        if (found := _BODY[decimal].fullmatch(text)) is None:
            return None
    if by := found["by"]:
        text = text.replace(by, "")
    return float(text if decimal == "point" else text.replace(",", "."))


def is_number(text: str) -> bool:
    return number(text) is not None


def is_missing(text: str) -> bool:
    """Whether a cell of a column of numbers is a missing value."""
    return text.strip().lower() in MISSING


def missing_words(texts: Collection[str]) -> set[str]:
    """Those of the different texts of a column that stand for a missing value.

    "none" names a category more often than not; "-" and "." do where "+" is another.
    """
    signs = {"-", "--", "."} if "+" in texts else set()
    return {text for text in texts if is_missing(text) and text.strip().lower() not in {"none", *signs}}


def are_dates(texts: Iterable[str]) -> bool:
    """Whether all texts are dates, times or spans of days."""
    return all(_DATE.fullmatch(text.strip()) for text in texts)


@dataclass(frozen=True)
class Table:
    """The columns of a table, each as int64, float64 (missing values are nan) or text.

    Args:
        columns: (N,) each, by name.
        names: of all columns that there are, also of those not read.
        unnamed: the columns, of those read, whose names stand where the header has none.
        nameless: whether there are such, read or not.
        words: how missing numbers were written.
        notes: what the user should know of the reading.
        options: what was decided about the file and must hold for others like it, as arguments of `load`.
    """

    columns: dict[str, Array]
    names: tuple[str, ...]
    unnamed: tuple[str, ...] = ()
    nameless: bool = False
    words: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Cells:
    """The reader of one column's cells, some at a time: numbers as long as all are, and what is worth a note.

    Args:
        decimal: what separates the fraction.

    Attributes:
        words: the texts that stood for missing values.
        read_as: a number that was not written plainly, and how it was read.
        padded: a number written with leading zeros.
    """

    decimal: Decimal = "point"
    words: set[str] = field(default_factory=set)
    read_as: tuple[str, float] | None = None
    padded: str | None = None

    def numbers(self, cells: Sequence[str]) -> Array | None:
        """Cells as int64 where all are whole numbers, else as float64 with nan where they are missing.

        None where some are neither, or where all have one length and some begin with zeros: those are names.
        """
        joined = "\n" + "\n".join(cells)
        if "\n0" in joined and (padded := _PADDED.search(joined)):
            self.padded = padded[0].strip()
            if len({len(cell.strip()) for cell in cells if not is_missing(cell)}) == 1:
                return None
        plain, simple = cells, _is_simple(joined)
        if self.decimal == "comma":
            simple = simple and "." not in joined
            plain = joined[1:].replace(",", ".").split("\n")
            simple = simple and len(plain) == len(cells)
        if simple:
            for read, dtype in ((int, np.int64), (float, np.float64)):
                try:
                    return np.fromiter(map(read, plain), dtype, len(cells))
                except (ValueError, OverflowError):
                    pass  # not all are whole, or not all are numbers
        return self._one_by_one(cells)

    def _one_by_one(self, cells: Sequence[str]) -> Array | None:
        to_point = str.maketrans(",.", ".,") if self.decimal == "comma" else {}  # a point then makes `float` fail
        found = np.empty(len(cells))
        for i, cell in enumerate(cells):
            try:
                if not _is_simple(cell):
                    raise ValueError(cell)
                found[i] = float(cell.translate(to_point))
            except ValueError:
                value = number(cell, self.decimal)
                if value is None:
                    if not is_missing(cell):
                        return None
                    self.words.add(cell.strip())
                    value = np.nan
                elif self.read_as is None:
                    self.read_as = cell.strip(), value
                found[i] = value
        return found


def as_text(cells: Sequence[str]) -> Array:
    """Cells without blanks around them; as objects where one is long, since all cells of a text array are as wide."""
    texts = [cell.strip() for cell in cells]
    longest = max(map(len, texts), default=0)
    return np.array(texts, object if longest > LONG else str)


def joined(parts: Sequence[Array]) -> Array:
    """The parts of one column; text as objects where an array of text would be large."""
    if parts[0].dtype.kind in "UO":
        widest = max(part.dtype.itemsize if part.dtype.kind == "U" else LARGE for part in parts)
        if widest * sum(map(len, parts)) > LARGE:
            parts = [part.astype(object) for part in parts]
    return np.concatenate(parts)


def _is_simple(text: str) -> bool:
    """Whether `float` and `int` take no more than what is meant: they also take 1_2 and the digits of all scripts."""
    return text.isascii() and "_" not in text

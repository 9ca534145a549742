"""Parsing the cells of a table: numbers in several notations, missing values, dates."""

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
"""Texts, in lower case, that stand for a missing value; `missing_words` makes exceptions in columns of text."""
LONG = 1000
"""Maximum number of characters of a number or of the name of a category; a longer cell is prose."""
LARGE = 2**31
"""Maximum size of a text array in bytes."""
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
_SIGN = re.compile(rf"[{CURRENCIES}%]|{'|'.join(CODES)}")
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
    """The number in a cell, or None; digits may be grouped by three, and a currency or percent sign is ignored.

    Digits must be ASCII, and underscores are not allowed: 1_2 is a name.
    """
    text = text.strip().replace(MINUS, "-")
    if not text.isascii():
        for space in _SPACES:
            text = text.replace(space, " ")
    match = _BODY[decimal].fullmatch(text)
    if match is None:
        affixed = _AFFIX.fullmatch(text)
        if affixed is None or (affixed[1] and affixed[2][0] in "+-"):
            return _NAMED.get(text.lower())
        text = affixed[1] + affixed[2]
        if (match := _BODY[decimal].fullmatch(text)) is None:
            return None
    if separator := match["by"]:
        text = text.replace(separator, "")
    return float(text if decimal == "point" else text.replace(",", "."))


def is_number(text: str) -> bool:
    """Whether a cell is a number with a decimal point."""
    return number(text) is not None


def is_missing(text: str) -> bool:
    """Whether a cell of a column of numbers is a missing value."""
    return text.strip().lower() in MISSING


def missing_words(texts: Collection[str]) -> set[str]:
    """The distinct texts of a column that stand for a missing value.

    "none" is usually the name of a category; so are "-" and "." if "+" is another.
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
        names: names of all columns, including those that were not read.
        unnamed: those columns read that have no name in the header; their names are generated.
        nameless: whether any column, read or not, has no name in the header.
        words: texts that stood for missing numbers.
        notes: messages to the user about the reading.
        options: inferred arguments of `load` that must also hold for similar files.
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
    """Parses the cells of one column, in blocks, as numbers, and records unusual notations for the notes.

    Args:
        decimal: the decimal sign.

    Attributes:
        words: texts that stood for missing values.
        read_as: the first number in an unusual notation, as text and as number.
        padded: a number with leading zeros, as text.
        signs: currencies and percent signs of the numbers; "" for numbers without one.
    """

    decimal: Decimal = "point"
    words: set[str] = field(default_factory=set)
    read_as: tuple[str, float] | None = None
    padded: str | None = None
    signs: set[str] = field(default_factory=set)

    def numbers(self, cells: Sequence[str]) -> Array | None:
        """Cells as int64 if all are whole numbers, else as float64 with nan for missing values.

        None if a cell is neither a number nor missing, or if all have equal length and some start with zeros, because
        such cells are names.
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
                    values = np.fromiter(map(read, plain), dtype, len(cells))
                    self.signs.add("")
                    return values
                except (ValueError, OverflowError):
                    pass  # some are not whole, or not numbers
        return self._one_by_one(cells)

    def _one_by_one(self, cells: Sequence[str]) -> Array | None:
        to_point = str.maketrans(",.", ".,") if self.decimal == "comma" else {}  # `float` then fails on a point
        values = np.empty(len(cells))
        for i, cell in enumerate(cells):
            try:
                if not _is_simple(cell):
                    raise ValueError(cell)
                values[i] = float(cell.translate(to_point))
                if values[i] == values[i]:
                    self.signs.add("")
            except ValueError:
                value = number(cell, self.decimal)
                if value is None:
                    if not is_missing(cell):
                        return None
                    self.words.add(cell.strip())
                    value = np.nan
                else:
                    self.signs.add(sign[0] if (sign := _SIGN.search(cell)) else "")
                if value == value and self.read_as is None:
                    self.read_as = cell.strip(), value
                values[i] = value
        return values

    def mixed(self, name: str) -> list[str]:
        """A note if the numbers of the column `name` have several signs, because the signs are ignored."""
        if len(self.signs) < 2:
            return []
        shown = " and ".join(sorted(self.signs - {""}) + ["no sign"] * ("" in self.signs))
        return [f"column {name!r}: numbers with {shown} are mixed, and the signs are ignored; convert them to one unit"]


def as_text(cells: Sequence[str]) -> Array:
    """Stripped cells as an array of text, or of objects if one is long, because a text array has cells of one width."""
    texts = [cell.strip() for cell in cells]
    longest = max(map(len, texts), default=0)
    return np.array(texts, object if longest > LONG else str)


def joined(parts: Sequence[Array]) -> Array:
    """The parts of one column, concatenated; text becomes an array of objects if a text array would be too large."""
    if parts[0].dtype.kind in "UO":
        widest = max(part.dtype.itemsize if part.dtype.kind == "U" else LARGE for part in parts)
        if widest * sum(map(len, parts)) > LARGE:
            parts = [part.astype(object) for part in parts]
    return np.concatenate(parts)


def _is_simple(text: str) -> bool:
    """Whether `float` and `int` can parse the text safely: they also accept 1_2 and the digits of other scripts."""
    return text.isascii() and "_" not in text

"""The cells of a column of a table as numbers: codes of categories, or parsed numbers."""

from typing import Any

import numpy as np

from vaekit.data.core import Array, Column, listed
from vaekit.errors import DataError

from . import dates
from .cells import Decimal, is_missing, missing_words, number


def code(column: Column, values: Array, where: Any, missing: bool = False, decimal: Decimal = "point") -> Array:
    """The cells of a column as numbers (N,): int64, or float64 if some are nan.

    Args:
        column: the column.
        values: (N,) numbers or texts.
        where: the file, for messages.
        missing: whether a text that is not a category is a missing value, instead of an error.
        decimal: decimal sign in texts.

    Raises:
        DataError: a text is neither a number nor a category, as the column requires.
    """
    if column.format:
        return _as_dates(column, values, where)
    if not column.categories:
        return values if values.dtype.kind in "if" else _as_numbers(column, values, where, decimal)
    texts = texts_of(values)
    codes = {category: i for i, category in enumerate(column.categories)}
    unique, inverse = np.unique(texts, return_inverse=True)
    if {category.lower() for category in column.categories} == {"false", "true"}:
        truth = {category.lower(): i for category, i in codes.items()}
        codes |= {text: truth[text.lower()] for text in unique.tolist() if text.lower() in truth and text not in codes}
        codes |= {"0": truth["false"], "1": truth["true"]}
    code_of = {text: codes.get(text, codes.get(_plain(text, decimal))) for text in unique.tolist()}
    if unknown := [text for text, i in code_of.items() if i is None and not is_missing(text) and not missing]:
        row = int(np.argmax(texts == unknown[0]))
        raise DataError(
            f"{where}: row {row}, column {column.name!r} is {unknown[0]!r}, expected one of {listed(column.categories)}"
        )
    numbers = np.array([np.nan if i is None else i for i in code_of.values()], np.float64)[inverse.reshape(-1)]
    return numbers if np.isnan(numbers).any() else numbers.astype(np.int64)


def _as_dates(column: Column, values: Array, where: Any) -> Array:
    """Dates, parsed as numbers; a column of numbers holds them already."""
    if values.dtype.kind in "if":
        return values
    texts = values.tolist()
    found = dates.numbers(texts, column.format)
    for row, (text, value) in enumerate(zip(texts, found, strict=True)):
        if value is None and not is_missing(text):
            raise DataError(
                f"{where}: row {row}, column {column.name!r} is {text[:40]!r}, expected a date written {column.format}"
            )
    return np.array([np.nan if value is None else value for value in found])


def _as_numbers(column: Column, values: Array, where: Any, decimal: Decimal) -> Array:
    """Texts, parsed as numbers; in a binary column, true and false are 1 and 0."""
    number_of = {text: number(text, decimal) for text in np.unique(values).tolist()}
    if column.kind == "binary":
        number_of |= {text: float(text.lower() == "true") for text in number_of if text.lower() in ("true", "false")}
    bad = next((text for text, value in number_of.items() if value is None and not is_missing(text)), None)
    if bad is not None:
        row = int(np.argmax(values == bad))
        raise DataError(f"{where}: row {row}, column {column.name!r} is {bad!r}, expected {column.allowed}")
    numbers = np.array([np.nan if (value := number_of[text]) is None else value for text in values.tolist()])
    whole = not np.isnan(numbers).any() and bool((numbers == np.round(numbers)).all())
    return numbers.astype(np.int64) if whole and np.abs(numbers).max() < 2**63 else numbers


def alphabet(values: Array, every: bool = False) -> list[str]:
    """The distinct values of a column as text, sorted, without missing values; with `every`, only "" is missing."""
    if values.dtype.kind in "if":
        return texts_of(np.unique(values[~np.isnan(values)])).tolist()
    texts = np.unique(values).tolist()
    gaps = {""} if every else missing_words(texts)
    return [text for text in texts if text not in gaps]


def texts_of(values: Array) -> Array:
    """Cells as names of categories (N,): 3, 3.0 and "3" have the same name; missing values become ""."""
    if values.dtype.kind in "iu":
        return values.astype(str)
    if values.dtype.kind != "f":
        return values
    return np.array(["" if v != v else str(int(v)) if float(v).is_integer() else repr(v) for v in values.tolist()], str)


def _plain(text: str, decimal: Decimal) -> str:
    """A number in any notation as `texts_of` writes it; other text is unchanged."""
    value = number(text, decimal)
    return text if value is None else str(texts_of(np.array([value]))[0])

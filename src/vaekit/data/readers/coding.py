"""The cells of a column of a table as numbers: codes of categories, or the numbers that texts say."""

from typing import Any

import numpy as np

from vaekit.data.core import Array, Column, some
from vaekit.errors import DataError

from .cells import Decimal, is_missing, missing_words, number


def code(column: Column, values: Array, where: Any, missing: bool = False, decimal: Decimal = "point") -> Array:
    """The cells of a column as its numbers, int64, or float64 where some are nan; `decimal` is that of texts.

    Raises:
        DataError: text where numbers are expected, or a text that is no category unless it counts as `missing`.
    """
    if not column.categories:
        return values if values.dtype.kind in "if" else _as_numbers(column, values, where, decimal)
    texts = texts_of(values)
    place = {category: i for i, category in enumerate(column.categories)}
    unique, inverse = np.unique(texts, return_inverse=True)
    if {category.lower() for category in column.categories} == {"false", "true"}:
        said = {category.lower(): i for category, i in place.items()}
        place |= {text: said[text.lower()] for text in unique.tolist() if text.lower() in said and text not in place}
        place |= {"0": said["false"], "1": said["true"]}
    found = {text: place.get(text, place.get(_plain(text, decimal))) for text in unique.tolist()}
    if unknown := [text for text, at in found.items() if at is None and not is_missing(text) and not missing]:
        row = int(np.argmax(texts == unknown[0]))
        raise DataError(
            f"{where}: row {row}, column {column.name!r} is {unknown[0]!r}, expected one of {some(column.categories)}"
        )
    codes = np.array([np.nan if at is None else at for at in found.values()], np.float64)[inverse.reshape(-1)]
    return codes if np.isnan(codes).any() else codes.astype(np.int64)


def _as_numbers(column: Column, values: Array, where: Any, decimal: Decimal) -> Array:
    """Texts as the numbers that they say; true and false of a two-valued column as 1 and 0."""
    said = {text: number(text, decimal) for text in np.unique(values).tolist()}
    if column.kind == "binary":
        said |= {text: float(text.lower() == "true") for text in said if text.lower() in ("true", "false")}
    bad = next((text for text, value in said.items() if value is None and not is_missing(text)), None)
    if bad is not None:
        row = int(np.argmax(values == bad))
        raise DataError(f"{where}: row {row}, column {column.name!r} is {bad!r}, expected {column.allowed}")
    found = np.array([np.nan if (value := said[text]) is None else value for text in values.tolist()])
    whole = not np.isnan(found).any() and bool((found == np.round(found)).all())
    return found.astype(np.int64) if whole and np.abs(found).max() < 2**63 else found


def alphabet(values: Array, every: bool = False) -> list[str]:
    """The different values of a column in their order, as text; missing ones are none, with `every` only empty ones."""
    if values.dtype.kind in "if":
        return texts_of(np.unique(values[~np.isnan(values)])).tolist()
    texts = np.unique(values).tolist()
    gaps = {""} if every else missing_words(texts)
    return [text for text in texts if text not in gaps]


def texts_of(values: Array) -> Array:
    """Cells as the texts that name categories: 3, 3.0 and "3" are one; missing ones are empty."""
    if values.dtype.kind in "iu":
        return values.astype(str)
    if values.dtype.kind != "f":
        return values
    return np.array(["" if v != v else str(int(v)) if float(v).is_integer() else repr(v) for v in values.tolist()], str)


def _plain(text: str, decimal: Decimal) -> str:
    """A number written in any way, as `texts_of` writes it; other text as it is."""
    value = number(text, decimal)
    return text if value is None else str(texts_of(np.array([value]))[0])

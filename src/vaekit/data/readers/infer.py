"""Inference of the kinds of the columns of a table, and the notes about it."""

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from vaekit.data.core import Array, Column, ColumnKind, counted, listed
from vaekit.errors import DataError

from . import dates
from .cells import Decimal, are_dates, is_missing, is_number
from .coding import alphabet, code

MOST_CATEGORIES, ROWS_PER_CATEGORY = 10_000, 3
"""Text is categorical with at most so many distinct values that occur so often on average; else names or prose."""
MANY_CATEGORIES, RARE = 256, 5
"""Columns with more categories get a note, which counts the rarer ones."""
COUNT_COLUMNS, COUNT_ZEROS = 20, 0.3
"""A table with at least so many columns, all of whole numbers of which at least this fraction is 0, holds counts."""
STRAY, MIXED_NUMBERS = 0.2, 10
"""A column with a smaller fraction of texts and more distinct numbers is numeric with damaged cells."""
LONG_ID = 1e9
"""Distinct whole numbers of at least this size are probably names of rows."""


def infer(
    table: Mapping[str, Array],
    where: str,
    *,
    types: str | Mapping[str, str] | None = None,
    kind: str | None = None,
    texts: bool = True,
    decimal: Decimal = "point",
) -> tuple[Column, ...]:
    """The columns of a table with their kinds; arguments as for `table.source`.

    Args:
        table: (N,) each, by name.
        where: the file, for messages.
        types, kind: given by the user.
        texts: whether categorical columns are allowed.
        decimal: decimal sign in texts.

    Raises:
        DataError: as for `table.source`.
    """
    chosen = chosen_types(types)
    if not table:
        raise DataError(f"{where} has no numeric or categorical column to learn from, besides label and group")
    free = [values for name, values in table.items() if name not in chosen]
    if kind == "counts" or (kind is None and len(free) == len(table) and _are_counts(free)):
        chosen = dict.fromkeys(table, "counts") | chosen
    columns, unusable = [], []
    for name, values in table.items():
        as_kind = chosen.get(name) or _kind(name, values, texts, where)
        if as_kind is not None and as_kind.startswith("%"):
            columns.append(_dated(name, values, as_kind, where))
        elif as_kind is None:
            unusable.append(name)
        else:
            columns.append(_column(name, values, as_kind, where, decimal, every=chosen.get(name) == "categorical"))
    if unusable:
        name, several = unusable[0], len(unusable) > 1
        values, shown = table[name], alphabet(table[name])
        n = int(np.isin(values, shown).sum())
        raise DataError(
            f"{where}: column{'s' * several} {listed(unusable)} hold{'s' * (not several)} text, expected numbers or "
            f"recurring categories, got {counted(len(shown), 'distinct text')} in {counted(n, 'row')} "
            f"({listed([repr(text[:40]) for text in shown], 3)}): drop them ({_drop(name)}), declare them categorical "
            f"(`types={_typed_as(name, 'categorical')!r}`), or use one as `label` or `group`"
        )
    return tuple(columns)


def _drop(name: str) -> str:
    return f"`drop=[{name!r}]`"


def _typed_as(name: str, kind: str) -> str:
    """NAME=KIND as in `types`, with the name quoted if necessary."""
    quoted = '"' + name.replace('"', '""') + '"' if not name or any(c in name for c in ',"\n') else name
    return f"{quoted}={kind}"


def chosen_types(types: str | Mapping[str, str] | None) -> dict[str, str]:
    """The kinds that the user gives columns, by name, from "NAME=KIND,..." or a mapping.

    Raises:
        DataError: the text has another form, or a kind is unknown.
    """
    kinds = (*get_args(ColumnKind), "drop")
    if isinstance(types, str):
        words = [word for row in csv.reader(io.StringIO(types, newline=""), skipinitialspace=True) for word in row]
        pairs = [(name, kind) for name, _, kind in (word.rpartition("=") for word in words)]
    else:
        pairs = list((types or {}).items())
        words = [f"{name}={kind}" for name, kind in pairs]
    chosen = {}
    for word, (name, kind) in zip(words, pairs, strict=True):
        dated = isinstance(kind, str) and kind.strip().startswith("%")
        if dated:
            dates.check_format(kind.strip(), name)
        elif not isinstance(kind, str) or kind.strip() not in kinds or "=" not in word:
            raise DataError(
                f"types: expected NAME=KIND with KIND one of {', '.join(kinds)}, or a format of dates such as "
                f'%d/%m/%Y, got {name and name + "="}{kind}; quote a name with a comma: "a,b"=real'
            )
        chosen[name.strip()] = kind.strip()
    return chosen


def _kind(name: str, values: Array, texts: bool, where: str) -> str | None:
    """The inferred kind of a column, or the format of its dates; None for text that is neither binary nor categorical.

    Raises:
        DataError: the column holds dates of several formats, or numbers mixed with a few texts.
    """
    if values.dtype.kind in "if":
        return "binary" if _bits(values) else "real"
    if values.dtype.kind == "O":
        return None
    distinct = alphabet(values)
    if distinct and are_dates(distinct):
        if formats := dates.formats_of(distinct):
            return formats[0]
        raise DataError(
            f"{where}: column {name!r} holds dates or times ({distinct[0]!r}) that are not all written in one format "
            f"with year, month and day: drop it ({_drop(name)}), write them so (2020-01-31), convert it to numbers "
            f"(hour of the day), or declare it categorical (`types={_typed_as(name, 'categorical')!r}`)"
        )
    _refuse_stray_texts(name, values, distinct, where)
    count, n = len(distinct), int(np.isin(values, distinct).sum())
    if count <= 2:
        return {2: "binary", 1: "categorical" if texts else None}.get(count)
    return "categorical" if texts and count <= min(MOST_CATEGORIES, n // ROWS_PER_CATEGORY) else None


def _refuse_stray_texts(name: str, values: Array, distinct: Sequence[str], where: str) -> None:
    """Raise DataError for a column of numbers with a few texts; `distinct` are its distinct values."""
    numbers = [text for text in distinct if is_number(text)]
    stray = np.isin(values, [text for text in distinct if not is_number(text)])
    n, row = int(stray.sum()), int(stray.argmax())
    if len(numbers) == len(distinct) or (
        len(numbers) <= MIXED_NUMBERS and not (n == 1 and row == 0 and len(numbers) > 1)
    ):
        return
    if n < STRAY * len(values):
        remedy = "if that row holds units or further names, delete it; else " if row == 0 and n <= 2 else ""
        others = (
            f" and {counted(n - 1, 'other value')} {'is not a number' if n == 2 else 'are not numbers'}"
            if n > 1
            else ""
        )
        raise DataError(
            f"{where}: column {name!r} holds numbers, but row {row} is {str(values[row])!r}{others}: {remedy}correct "
            f"it, leave the cell empty if the value is missing, declare the column categorical "
            f"(`types={_typed_as(name, 'categorical')!r}`), or drop it ({_drop(name)})"
        )


def _dated(name: str, values: Array, form: str, where: str) -> Column:
    """A column of dates in this format."""
    found = code(Column(name, "real", format=form), values, where)
    if found is values:
        raise DataError(f"{where}: column {name!r} holds numbers, expected dates written {form}")
    return Column(name, "real", **_measured(found) | {"integer": dates.whole(form)}, format=form)


def _column(name: str, values: Array, kind: str, where: str, decimal: Decimal, every: bool) -> Column:
    """A column of this kind; with `every`, all texts are categories, including those that stand for missing values."""
    number = values.dtype.kind in "if"
    if kind in ("real", "counts"):
        as_kind: ColumnKind = "counts" if kind == "counts" else "real"
        values = code(Column(name, as_kind), values, where, decimal=decimal)  # raises DataError for text
        column = Column(name, as_kind, **_measured(values))
        if kind == "counts" and column.outside(values).any():
            row = int(column.outside(values).argmax())
            raise DataError(f"{where}: row {row}, column {name!r} is {values[row]:g}, expected {column.allowed}")
        return column
    check_short(name, values, where)
    if kind == "binary" and number and _bits(values):
        return Column(name, "binary")
    categories = alphabet(values, every)
    if kind == "binary" and len(categories) != 2:
        raise DataError(
            f"types: column {name!r} of {where} has {counted(len(categories), 'distinct value')}, but a binary column "
            "has 2"
        )
    if not categories:
        raise DataError(f"{where}: column {name!r} is empty; drop it ({_drop(name)})")
    return Column(name, "binary" if kind == "binary" else "categorical", tuple(categories))


def check_short(name: str, values: Array, where: str) -> None:
    """Raise DataError for a column with long texts, where names are expected."""
    if values.dtype.kind == "O":
        longest = max(map(len, values))
        raise DataError(
            f"{where}: column {name!r} has a text of {longest:,} characters, expected short names: drop it "
            f"({_drop(name)})"
        )


def _measured(values: Array) -> dict[str, Any]:
    """Whether the numbers of a column are whole, and their range, as arguments of `Column`."""
    present = values[np.isfinite(values)] if values.dtype.kind in "if" else values[:0]
    if not len(present):
        return {}
    return {
        "integer": bool((present == np.round(present)).all()),
        "low": float(present.min()),
        "high": float(present.max()),
    }


def _bits(values: Array) -> bool:
    """Whether the values are 0 and 1, and both occur."""
    return values.dtype.kind in "if" and np.array_equal(np.unique(values[~np.isnan(values)]), [0, 1])


def _whole(values: Array) -> bool:
    """Whether a column holds whole numbers from 0 up, as int64, or as float64 because some are missing."""
    if values.dtype.kind not in "if" or (values.dtype.kind == "f" and not np.isnan(values).any()):
        return False
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool(((present >= 0) & (present == np.round(present))).all())


def _are_counts(columns: Sequence[Array]) -> bool:
    """Whether the columns are counts: many columns of whole numbers that are often 0, but not the bytes of images."""
    if len(columns) < COUNT_COLUMNS or not all(map(_whole, columns)) or all(map(_bits, columns)):
        return False
    zeros = float(np.mean([(values == 0).mean() for values in columns]))
    return zeros >= COUNT_ZEROS and max(float(np.nanmax(values)) for values in columns) != 255


def on_counts(
    schema: Sequence[Column], data: Mapping[str, Array], kind: str | None, chosen: Mapping[str, str]
) -> Iterator[str]:
    """A note on how a table of whole numbers is modelled, unless the user decided it."""
    if kind is not None or any(name in chosen for name in data):
        return
    if all(column.kind == "counts" for column in schema):
        yield (
            f"{counted(len(schema), 'column')} of whole numbers from 0 up, many of them 0, are modelled as counts; "
            "`kind='vector'` models them as real numbers"
        )
    elif all(map(_whole, data.values())) and not all(map(_bits, data.values())):
        yield (
            "the table holds only whole numbers from 0 up, which are modelled as real numbers; `kind='counts'` "
            "models them as counts"
        )


def indices(columns: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """Unnamed columns that number or name the rows, or are empty, each with a note; they are left out."""
    for name, values in columns.items():
        shown = "a column without a name" if name.startswith("column") else f"column {name!r}"
        if values.dtype.kind == "f" and np.isnan(values).all():
            yield name, f"{shown} is empty and is left out"
        elif values.dtype.kind in "iU" and len(values) > 1 and len(np.unique(values)) == len(values):
            remedy = f"`types={_typed_as(name, 'categorical' if values.dtype.kind == 'U' else 'real')!r}` keeps it"
            yield name, f"{shown} numbers or names the rows and is left out; {remedy}"


def on_names(schema: Sequence[Column], data: Mapping[str, Array]) -> Iterator[str]:
    """Notes on columns of dates, on numbers that seem to be names of rows, and on categories that are spelt alike."""
    for column in schema:
        values = data[column.name]
        if column.format:
            yield _on_dates(column, values)
            continue
        if column.kind == "real" and column.integer and len(values) > 20 and len(np.unique(values)) == len(values):
            low, high = column.low or 0.0, column.high or 0.0
            named_id = column.name.lower() in ("id", "index", "row", "nr", "key") or column.name.lower().endswith("_id")
            if named_id or high - low == len(values) - 1 or high >= LONG_ID:
                yield (
                    f"column {column.name!r} holds a different whole number in every row, like an identifier: drop it "
                    f"({_drop(column.name)}) unless the size of the numbers is meaningful"
                )
        if column.kind == "real":
            yield from _on_codes(column, values[~np.isnan(values)])
        alike: dict[str, list[str]] = {}
        for text in column.categories:
            alike.setdefault(" ".join(text.strip("\"' ").lower().split()), []).append(text)
        for texts in (texts for texts in alike.values() if len(texts) > 1):
            yield f"column {column.name!r}: {' and '.join(map(repr, texts[:4]))} are separate categories"


def _on_dates(column: Column, values: Array) -> str:
    """A note on how dates are read, and whether they could be read otherwise."""
    texts = alphabet(values)
    other = dates.twin(column.format)
    note = (
        f"column {column.name!r}: dates such as {texts[-1]!r} are read as {dates.unit(column.format)} since 1970-01-01 "
        f"({column.format})"
    )
    if other and other in dates.formats_of(texts):
        note += f"; the order of day and month is not certain: `types={_typed_as(column.name, other)!r}` exchanges them"
    return note


def _on_codes(column: Column, values: Array) -> Iterator[str]:
    """Notes on numbers that may be codes: dates written as 20200131, and values that may stand for a missing one."""
    low, high = column.low or 0.0, column.high or 0.0
    if column.integer and max(-low, high) > 2**53:
        yield (
            f"column {column.name!r} holds whole numbers of more than 15 digits, which lose their last digits: if they "
            f"are names, drop it ({_drop(column.name)}) or declare it categorical "
            f"(`types={_typed_as(column.name, 'categorical')!r}`)"
        )
    if column.integer and low >= 19000101 and high <= 21001231:
        month, day = values // 100 % 100, values % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            yield (
                f"column {column.name!r} holds dates written as numbers such as {low:.0f}, whose differences are not "
                f"days: convert it to days since a date, or drop it ({_drop(column.name)})"
            )
    for end in (low, high):
        others = np.abs(values[values != end])
        n = len(values) - len(others)
        if re.fullmatch(r"-?99+(\.9+)?", f"{end:g}") and n > 1 and len(others) and others.max() < abs(end) / 2:
            yield (
                f"column {column.name!r}: {n:,} values are {end:g}, and all others are much smaller; if {end:g} stands "
                "for a missing value, leave these cells empty"
            )


def on_columns(schema: Sequence[Column], coded: Sequence[Array]) -> Iterator[str]:
    """Notes on columns that are not real, on constant columns, and on categories that look like missing values."""
    if any(column.kind != "real" for column in schema) and not all(column.kind == "counts" for column in schema):
        names = {kind: [c for c in schema if c.kind == kind] for kind in get_args(ColumnKind)}
        shown_names = {
            kind: [f"{c.name} ({listed(c.categories, 4)})" if c.categories else c.name for c in columns]
            for kind, columns in names.items()
        }
        yield "columns: " + "; ".join(f"{kind} {listed(shown, 8)}" for kind, shown in shown_names.items() if shown)
    for column, values in zip(schema, coded, strict=True):
        if column.kind == "categorical" and len(column.categories) > MANY_CATEGORIES:
            counts = np.bincount(values[~np.isnan(values)].astype(int), minlength=len(column.categories))
            yield (
                f"column {column.name!r} has {len(column.categories):,} categories, of which {(counts < RARE).sum():,} "
                f"occur fewer than {RARE} times: merge rare ones if their differences are not needed, or drop it "
                f"({_drop(column.name)})"
            )
    known = [(c, values[~np.isnan(values)]) for c, values in zip(schema, coded, strict=True)]
    if constant := [(c, values[0]) for c, values in known if len(values) and (values == values[0]).all()]:
        shown = [f"{c.name} ({c.categories[int(v)] if c.categories else f'{v:g}'})" for c, v in constant]
        yield f"{counted(len(constant), 'constant column')}: {listed(shown, 8)}; a constant carries no information"
    for column in schema:
        if kept := [text for text in column.categories if is_missing(text)]:
            yield (
                f"column {column.name!r}: {listed([*map(repr, kept)])} is a category, not a missing value; "
                "leave the cell empty if the value is missing"
            )


def on_missing(
    schema: Sequence[Column],
    coded: Sequence[Array],
    table: Mapping[str, Array],
    words: Collection[str],
    decimal: Decimal = "point",
) -> Iterator[str]:
    """Notes on the number and notation of missing values, and on unknown categories that are treated as missing."""
    missing = [int(np.isnan(values).sum()) for values in coded]
    written = set(words)
    for column, n in zip(schema, missing, strict=True):
        if not (n and column.categories):
            continue
        texts = set(np.unique(table[column.name]).tolist())
        missing_texts = {text for text in texts if is_missing(text)} - set(column.categories)
        written |= missing_texts
        numbers = code(column, table[column.name], "", True, decimal)
        unknown = np.isnan(numbers) & ~np.isin(table[column.name], [*missing_texts])
        if unknown.any():
            example = str(table[column.name][unknown.argmax()])
            yield (
                f"column {column.name!r}: {counted(int(unknown.sum()), 'value')} such as {example!r}, unknown to the "
                "model, treated as missing"
            )
    if n := sum(missing):
        notation = f" (written {listed(sorted(written - {''}), 6)})" if written - {""} else ""
        yield (
            f"{n:,} of {sum(map(len, coded)):,} values {'is' if n == 1 else 'are'} missing, in "
            f"{counted(sum(map(bool, missing)), 'column')}{notation}"
        )

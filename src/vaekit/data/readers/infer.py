"""What the columns of a table are, where nobody says, and what the user should know of that."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from vaekit.data.core import Array, Column, ColumnKind, counted, some
from vaekit.errors import DataError

from .cells import Decimal, are_dates, is_missing, is_number
from .coding import alphabet, code

MOST_CATEGORIES, ROWS_A_CATEGORY = 256, 3
"""Text is categorical up to so many different values, each there so often on average; else it is names or prose."""
COUNT_COLUMNS, COUNT_ZEROS = 20, 0.3
"""A table of so many columns of whole numbers, of which such a share is 0, holds counts."""
STRAY, MIXED_NUMBERS = 0.2, 10
"""A column with a smaller share of texts and more distinct numbers than these is numeric, with damaged cells."""
LONG_ID = 1e9


def infer(
    table: Mapping[str, Array],
    where: str,
    *,
    types: str | Mapping[str, str] | None = None,
    kind: str | None = None,
    texts: bool = True,
    decimal: Decimal = "point",
) -> tuple[Column, ...]:
    """What each column of a table is; arguments as for `source`, `texts` whether there may be categories.

    Raises:
        DataError: as `source`.
    """
    chosen = chosen_types(types)
    if not table:
        raise DataError(f"{where} has no numeric column to learn from, nor one of categories, beside label and group")
    free = [values for name, values in table.items() if name not in chosen]
    if kind == "counts" or (kind is None and len(free) == len(table) and _are_counts(free)):
        chosen = dict.fromkeys(table, "counts") | chosen
    found, odd = [], []
    for name, values in table.items():
        as_kind = chosen.get(name) or _kind(name, values, texts, where)
        if as_kind is None:
            odd.append(name)
        else:
            found.append(_column(name, values, as_kind, where, decimal, every=chosen.get(name) == "categorical"))
    if odd:
        values, shown = table[odd[0]], alphabet(table[odd[0]])
        different, n = len(shown), int(np.isin(values, shown).sum())
        raise DataError(
            f"{where}: column{'s' * (len(odd) > 1)} {some(odd)} hold{'s' * (len(odd) == 1)} text, expected numbers or "
            f"categories that recur, got {counted(different, 'different text')} in {counted(n, 'row')} "
            f"({some([repr(text[:40]) for text in shown], 3)}): drop them ({_drop(odd[0])}), say that they are "
            f"categories (`types={_typed_as(odd[0], 'categorical')!r}`), or name one with `label` or `group`"
        )
    return tuple(found)


def _drop(name: str) -> str:
    return f"`drop=[{name!r}]`"


def _typed_as(name: str, kind: str) -> str:
    """NAME=KIND as `types` takes it, quoted where the name needs it."""
    quoted = '"' + name.replace('"', '""') + '"' if not name or any(c in name for c in ',"\n') else name
    return f"{quoted}={kind}"


def chosen_types(types: str | Mapping[str, str] | None) -> dict[str, str]:
    """The kinds that a user gives columns, by name, from "NAME=KIND,..." or a mapping.

    Raises:
        DataError: not of that form, or no such kind.
    """
    kinds = (*get_args(ColumnKind), "drop")
    if isinstance(types, str):
        words = [word for row in csv.reader(io.StringIO(types, newline=""), skipinitialspace=True) for word in row]
        given = [(name, kind) for name, _, kind in (word.rpartition("=") for word in words)]
    else:
        given = list((types or {}).items())
        words = [f"{name}={kind}" for name, kind in given]
    found = {}
    for word, (name, kind) in zip(words, given, strict=True):
        if not isinstance(kind, str) or kind.strip() not in kinds or "=" not in word:
            raise DataError(
                f"types: expected NAME=KIND with KIND one of {', '.join(kinds)}, got {name and name + '='}{kind}; a "
                'name that holds a comma goes in quotes: "a,b"=real'
            )
        found[name.strip()] = kind.strip()
    return found


def _kind(name: str, values: Array, texts: bool, where: str) -> str | None:
    """What a column is that nobody said anything about; None for text that is nothing.

    Raises:
        DataError: it holds dates, or numbers mixed with a few texts.
    """
    if values.dtype.kind in "if":
        return "binary" if _bits(values) else "real"
    if values.dtype.kind == "O":
        return None
    found = alphabet(values)
    if found and are_dates(found):
        raise DataError(
            f"{where}: column {name!r} holds dates or times ({found[0]!r}): drop it ({_drop(name)}), convert it to "
            f"numbers (days since a date, hour of the day), or take them for categories "
            f"(`types={_typed_as(name, 'categorical')!r}`)"
        )
    _refuse_stray_texts(name, values, found, where)
    different, n = len(found), int(np.isin(values, found).sum())
    if different <= 2:
        return {2: "binary", 1: "categorical" if texts else None}.get(different)
    return "categorical" if texts and different <= min(MOST_CATEGORIES, n // ROWS_A_CATEGORY) else None


def _refuse_stray_texts(name: str, values: Array, found: Sequence[str], where: str) -> None:
    numbers = [text for text in found if is_number(text)]
    if len(numbers) <= MIXED_NUMBERS or len(numbers) == len(found):
        return
    stray = np.isin(values, [text for text in found if not is_number(text)])
    if (n := int(stray.sum())) < STRAY * len(values):
        row = int(stray.argmax())
        more = f" and {counted(n - 1, 'other value')} are no numbers either" if n > 1 else ""
        raise DataError(
            f"{where}: column {name!r} holds numbers, but row {row} is {str(values[row])!r}{more}: correct it, leave "
            f"the cell empty where the value is missing, say that all are categories "
            f"(`types={_typed_as(name, 'categorical')!r}`), or drop the column ({_drop(name)})"
        )


def _column(name: str, values: Array, kind: str, where: str, decimal: Decimal, every: bool) -> Column:
    """A column of this kind; `every` text of it is a category, also one that elsewhere stands for a missing value."""
    number = values.dtype.kind in "if"
    if kind in ("real", "counts"):
        as_kind: ColumnKind = "counts" if kind == "counts" else "real"
        values = code(Column(name, as_kind), values, where, decimal=decimal)  # refuses text
        column = Column(name, as_kind, **_seen(values))
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
            f"types: column {name!r} of {where} has {counted(len(categories), 'different value')}, a binary one has 2"
        )
    if not categories:
        raise DataError(f"{where}: column {name!r} is empty; drop it ({_drop(name)})")
    return Column(name, "binary" if kind == "binary" else "categorical", tuple(categories))


def check_short(name: str, values: Array, where: str) -> None:
    """Refuses prose where names are expected."""
    if values.dtype.kind == "O":
        longest = max(map(len, values))
        raise DataError(
            f"{where}: column {name!r} has a text of {longest:,} characters, expected short names: drop it "
            f"({_drop(name)})"
        )


def _seen(values: Array) -> dict[str, Any]:
    """Whether the numbers of a column are whole, and the lowest and highest of them."""
    present = values[np.isfinite(values)] if values.dtype.kind in "if" else values[:0]
    if not len(present):
        return {}
    return {
        "integer": bool((present == np.round(present)).all()),
        "low": float(present.min()),
        "high": float(present.max()),
    }


def _bits(values: Array) -> bool:
    """Whether the values are 0 and 1, both there."""
    return values.dtype.kind in "if" and np.array_equal(np.unique(values[~np.isnan(values)]), [0, 1])


def _whole(values: Array) -> bool:
    """Whether a column was written as whole numbers from 0 up: as int64, or as float64 for the missing ones' sake."""
    if values.dtype.kind not in "if" or (values.dtype.kind == "f" and not np.isnan(values).any()):
        return False
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool(((present >= 0) & (present == np.round(present))).all())


def _are_counts(columns: Sequence[Array]) -> bool:
    """Whether columns are plainly counts: many, of whole numbers, often 0; not the bytes of pictures."""
    if len(columns) < COUNT_COLUMNS or not all(map(_whole, columns)) or all(map(_bits, columns)):
        return False
    zeros = float(np.mean([(values == 0).mean() for values in columns]))
    return zeros >= COUNT_ZEROS and max(float(np.nanmax(values)) for values in columns) != 255


def on_counts(
    schema: Sequence[Column], data: Mapping[str, Array], kind: str | None, chosen: Mapping[str, str]
) -> Iterator[str]:
    """What was decided about a table of whole numbers, where nobody said."""
    if kind is not None or any(name in chosen for name in data):
        return
    if all(column.kind == "counts" for column in schema):
        yield (
            f"{counted(len(schema), 'column')} of whole numbers from 0 up, many of them 0, are taken for counts; "
            "`kind='vector'` takes them for real numbers"
        )
    elif all(map(_whole, data.values())) and not all(map(_bits, data.values())):
        yield (
            "the table holds only whole numbers from 0 up, which are modelled as real numbers; `kind='counts'` "
            "takes them for counts"
        )


def indices(columns: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """Columns without a name that number or name the rows, or are empty, and the note that says so."""
    for name, values in columns.items():
        shown = "a column without a name" if name.startswith("column") else f"column {name!r}"
        if values.dtype.kind == "f" and np.isnan(values).all():
            yield name, f"{shown} holds nothing and is left out"
        elif values.dtype.kind in "iU" and len(values) > 1 and len(np.unique(values)) == len(values):
            kept = f"`types={_typed_as(name, 'categorical' if values.dtype.kind == 'U' else 'real')!r}` keeps it"
            yield name, f"{shown} numbers or names the rows and is left out; {kept}"


def on_names(schema: Sequence[Column], data: Mapping[str, Array]) -> Iterator[str]:
    """Columns of numbers that seem to be names of rows, and categories that may be one."""
    for column in schema:
        values = data[column.name]
        if column.kind == "real" and column.integer and len(values) > 20 and len(np.unique(values)) == len(values):
            low, high = column.low or 0.0, column.high or 0.0
            called = column.name.lower() in ("id", "index", "row", "nr", "key") or column.name.lower().endswith("_id")
            if called or high - low == len(values) - 1 or high >= LONG_ID:
                yield (
                    f"column {column.name!r} holds a different whole number in every row, as names of rows do: drop it "
                    f"({_drop(column.name)}) unless its size means something"
                )
        alike: dict[str, list[str]] = {}
        for text in column.categories:
            alike.setdefault(" ".join(text.strip("\"' ").lower().split()), []).append(text)
        for texts in (texts for texts in alike.values() if len(texts) > 1):
            yield f"column {column.name!r}: {' and '.join(map(repr, texts[:4]))} are different categories"


def on_columns(schema: Sequence[Column], coded: Sequence[Array]) -> Iterator[str]:
    """Which columns are not real, and which hold one value only."""
    if any(column.kind != "real" for column in schema) and not all(column.kind == "counts" for column in schema):
        names = {kind: [c for c in schema if c.kind == kind] for kind in get_args(ColumnKind)}
        told = {
            kind: [f"{c.name} ({some(c.categories, 4)})" if c.categories else c.name for c in columns]
            for kind, columns in names.items()
        }
        yield "columns: " + "; ".join(f"{kind} {some(columns, 8)}" for kind, columns in told.items() if columns)
    known = [(c, values[~np.isnan(values)]) for c, values in zip(schema, coded, strict=True)]
    if same := [(c, values[0]) for c, values in known if len(values) and (values == values[0]).all()]:
        shown = [f"{c.name} ({c.categories[int(v)] if c.categories else f'{v:g}'})" for c, v in same]
        yield f"{counted(len(same), 'constant column')}: {some(shown, 8)}; a constant carries no information"
    for column in schema:
        if kept := [text for text in column.categories if is_missing(text)]:
            yield (
                f"column {column.name!r}: {some([*map(repr, kept)])} is taken for a category, not for a missing value; "
                "where the value is missing, leave the cell empty"
            )


def on_missing(
    schema: Sequence[Column],
    coded: Sequence[Array],
    table: Mapping[str, Array],
    words: Collection[str],
    decimal: Decimal = "point",
) -> Iterator[str]:
    """How many values are missing, how they are written, and which count as missing since they are no category."""
    holes = [int(np.isnan(values).sum()) for values in coded]
    written = set(words)
    for column, n in zip(schema, holes, strict=True):
        if not (n and column.categories):
            continue
        texts = set(np.unique(table[column.name]).tolist())
        gaps = {text for text in texts if is_missing(text)} - set(column.categories)
        written |= gaps
        lost = np.isnan(code(column, table[column.name], "", True, decimal)) & ~np.isin(table[column.name], [*gaps])
        if lost.any():
            example = str(table[column.name][lost.argmax()])
            yield (
                f"column {column.name!r}: {counted(int(lost.sum()), 'value')} such as {example!r}, unknown when the "
                "model was trained, taken for missing"
            )
    if sum(holes):
        how = f" (written {some(sorted(written - {''}), 6)})" if written - {""} else ""
        yield (
            f"{sum(holes):,} of {sum(map(len, coded)):,} values {'is' if sum(holes) == 1 else 'are'} missing, in "
            f"{counted(sum(map(bool, holes)), 'column')}{how}"
        )

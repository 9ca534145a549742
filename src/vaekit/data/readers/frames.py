"""Tables in memory and in Parquet: frames of pandas and polars and tables of pyarrow, read like the same CSV."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal as Exact
from typing import Any

import numpy as np

from vaekit.data.core import Array
from vaekit.errors import DataError

from .cells import Cells, Decimal, Table, as_text, is_missing, number
from .dialect import INDEX, comma_note


@dataclass(frozen=True)
class Sheet:
    """The columns of a table whose cells are objects of Python, in the interface of a pyarrow table.

    Attributes:
        column_names: names of the columns.
        columns: their cells, as lists or `Stored`.
        unnamed: the columns that have no name in the source; their names are generated.
        notes: messages to the user about the reading.
    """

    column_names: list[str]
    columns: Sequence[Any]
    unnamed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """A column of a file, read when its cells are needed.

    Attributes:
        type: the type of its cells, as pyarrow writes it.
        read: returns the cells; or the distinct cells, in the order of their first rows, and their numbers by row (N,).
    """

    type: str
    read: Callable[[], tuple[list[Any], Array | None]]


FRAMES = (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"))
SERIES = (("pandas", "Series"), ("polars", "Series"), ("pyarrow", "ChunkedArray"), ("pyarrow", "Array"))


def is_frame(x: Any) -> bool:
    """Whether `x` is a table of pandas, polars or pyarrow; imports none of them."""
    return _is_one(x, FRAMES)


def is_series(x: Any) -> bool:
    """Whether `x` is a column of pandas, polars or pyarrow; imports none of them."""
    return _is_one(x, SERIES) or _is_one(x, (("pandas", "Index"), ("pandas", "Categorical")))


def names_of(frame: Any) -> list[str]:
    """The names of the columns of a frame."""
    return [name for name, _ in columns_of(frame)]


def nested(frame: Any) -> list[str]:
    """The names of the columns of Python objects that are neither numbers nor texts."""
    plain = (str, int, float, np.generic, type(None))
    return [
        name
        for name, series in columns_of(frame)
        if str(getattr(series, "dtype", "")) == "object" and not all(isinstance(v, plain) for v in as_list(series))
    ]


def index_names(frame: Any) -> list[str]:
    """The names of the index of a pandas frame, which is not among its columns."""
    return [str(name) for name in getattr(getattr(frame, "index", None), "names", ()) if name is not None]


def index_of(frame: Any) -> dict[str, Any]:
    """The index of a pandas frame by name, "index" if it has none; empty if it only counts the rows."""
    index = getattr(frame, "index", None)
    if index is None or not _is_one(frame, FRAMES[:1]):
        return {}
    if type(index).__name__ == "RangeIndex" and index.name is None and (index.start, index.step) == (0, 1):
        return {}
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    return {str(level.name) if level.name is not None else "index": level for level in levels}


def values_in(column: Any) -> list[Any]:
    """The cells of a series or array as Python's bool, int, float, or others; None where missing."""
    cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in as_list(column)]
    return [None if type(cell).__name__ in ("NAType", "NaTType") or cell != cell else cell for cell in cells]


def cells_of(column: Any) -> list[str]:
    """The cells of a series or array as text, as in a CSV file."""
    return [text(value, "a column") for value in as_list(column)]


def only_column(frame: Any) -> Any:
    """The column of a frame with one column, else all columns as an array (N, K)."""
    columns = [series for _, series in columns_of(frame)]
    return columns[0] if len(columns) == 1 else np.stack([np.asarray(series) for series in columns], 1)


def values_of(x: Any, name: str) -> Array:
    """The cells of a series (N,), parsed like a column of a table; `name` stands for it in messages."""
    return _cells(x, name, Cells())[0]


def read(
    frame: Any,
    where: str,
    *,
    decimal: str | None = None,
    texts: Collection[str] = (),
    drop: Collection[str] = (),
) -> Table:
    """The columns of a frame; arguments as for `delimited.read`.

    Raises:
        DataError: a column holds neither numbers nor texts, or two columns have the same name.
    """
    named_series = list(columns_of(frame))
    names = [name for name, _ in named_series]
    if twice := next((name for name, times in Counter(names).items() if times > 1), None):
        raise DataError(f"{where} has two columns named {twice!r}: rename one of them")
    sheet = frame if isinstance(frame, Sheet) else Sheet([], [])
    columns, words, notes = {}, set[str](), [*sheet.notes]
    chosen: Decimal = "comma" if decimal == "comma" else "point"
    for name, series in named_series:
        if name in drop:
            continue
        cells = Cells(chosen)
        values, rows = _cells(series, f"{where}: column {name!r}", cells, name in texts)
        if values.dtype.kind == "U" and decimal is None and name not in texts and (comma := _with_comma(values)):
            values, example = comma
            notes.append(comma_note(name, example))
        columns[name] = values if rows is None else values[rows]
        words |= cells.words
        notes += cells.mixed(name) if values.dtype.kind in "if" else []
        if cells.read_as:
            notes.append(f"column {name!r}: {cells.read_as[0]!r} is read as the number {cells.read_as[1]:g}")
    unnamed = tuple(name for name in columns if INDEX.fullmatch(name) or not name or name in sheet.unnamed)
    options = {"decimal": "comma"} if chosen == "comma" else {}
    return Table(columns, tuple(names), unnamed, words=frozenset(words), notes=tuple(notes), options=options)


def texts(frame: Any, where: str, without: Collection[str] = ()) -> dict[str, list[str]]:
    """The cells of a frame as text, as in the same CSV, by column."""
    return {
        name: [text(value, f"{where}: column {name!r}") for value in as_list(series, f"{where}: column {name!r}")]
        for name, series in columns_of(frame)
        if name not in without
    }


def as_arrow(column: Any) -> Any:
    """A series or array as a column of pyarrow, with its own type."""
    import pyarrow as pa

    if _is_one(column, SERIES[1:2]):
        return column.to_arrow()
    return column if _is_one(column, SERIES[2:]) else pa.array(column)


def _is_one(x: Any, kinds: Iterable[tuple[str, str]]) -> bool:
    for module, name in kinds:
        imported = sys.modules.get(module)
        if imported is not None and isinstance(x, getattr(imported, name, ())):
            return True
    return False


def columns_of(frame: Any) -> Iterable[tuple[str, Any]]:
    """The names and columns of a frame; names may repeat."""
    if _is_one(frame, FRAMES[:1]):
        for j, name in enumerate(frame.columns):
            yield " ".join(map(str, name if isinstance(name, tuple) else [name])).strip(), frame.iloc[:, j]
    elif _is_one(frame, FRAMES[1:2]):
        for series in frame.get_columns():
            yield str(series.name).strip(), series
    else:
        for name, column in zip(frame.column_names, frame.columns, strict=True):
            yield str(name).strip(), column


def _cells(series: Any, title: str, cells: Cells, named: bool = False) -> tuple[Array, Array | None]:
    """The cells of a column: int64, float64 with nan, or text; categorical columns are always text.

    Returns:
        The cells (N,) and None, or the distinct cells of a `Stored` column and their numbers by row (N,).
    """
    kind = str(getattr(series, "dtype", None) or getattr(series, "type", "")).lower()
    if not named and (plain := _plain(series)) is not None:
        return plain, None
    found, rows = series.read() if isinstance(series, Stored) else (as_list(series, title), None)
    texts = [text(value, title) for value in found]
    named = named or kind.startswith(("category", "categorical", "enum", "dictionary"))
    numbers = None if named else cells.numbers(texts)
    return as_text(texts) if numbers is None else numbers, rows


def _plain(series: Any) -> Array | None:
    """A numeric column without missing values as int64 or float64, else None."""
    kind = getattr(series, "dtype", None)
    if isinstance(kind, np.dtype):
        if kind.kind not in "iuf":
            return None
        values = np.asarray(series)
    elif (nulls := getattr(series, "null_count", None)) is not None:
        nulls = nulls() if callable(nulls) else nulls  # polars has a method where pyarrow has a number
        if nulls or not str(kind or series.type).lower().lstrip("u").startswith(("int", "float", "double")):
            return None
        values = series.to_numpy()
    else:
        return None
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    return values.astype(np.float64 if values.dtype == np.uint64 and values.max(initial=0) > 2**63 - 1 else np.int64)


def as_list(series: Any, title: str = "a column") -> list[Any]:
    """The cells of a column of pyarrow (`to_pylist`), pandas, polars (`to_list`) or any other iterable.

    Raises:
        DataError: a text is not UTF-8; the message names the column by its `title`.
    """
    for name in ("to_pylist", "to_list"):
        if (method := getattr(series, name, None)) is not None:
            try:
                return list(method())
            except UnicodeDecodeError as error:
                raise DataError(f"{title} has a cell that is not text in UTF-8 ({error}): it is damaged") from error
            except ValueError:  # pyarrow without pandas: Python has no times with nanoseconds
                return list(series.cast("string").to_pylist())
    return list(series)


def text(value: Any, title: str) -> str:
    """A cell as text, as in a CSV file; `title` stands for its column in messages."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return "" if value != value else repr(float(value))
    if isinstance(value, Exact):
        return str(value)
    if isinstance(value, datetime | date | time | timedelta | np.datetime64 | np.timedelta64):
        return str(value)
    if type(value).__name__ in ("Interval", "Period"):  # of pandas
        return str(value)
    if isinstance(value, bytes | complex):
        raise DataError(f"{title} holds {type(value).__name__}, expected numbers or texts: convert it, or drop it")
    raise DataError(
        f"{title} is nested (its cells are of type {type(value).__name__}): drop it, or save arrays as .npz and a "
        "table without nested columns as Parquet"
    )


def _with_comma(values: Array) -> tuple[Array, str] | None:
    """A column of text as numbers, and a cell of it, if it is a column of numbers with a decimal comma; else None."""
    texts = values.tolist()
    example = next((t for t in texts if number(t, "comma") is not None and number(t) is None), None)
    if example is None or any(number(t, "comma") is None and not is_missing(t) for t in texts):
        return None
    numbers = Cells("comma").numbers(texts)
    return None if numbers is None else (numbers, example)

"""The types of data: raw rows, three splits, columns of tables, and the layout of a raw row as an event."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

Array = NDArray[Any]
Kind = Literal["image", "signal", "vector", "counts"]
ColumnKind = Literal["real", "binary", "categorical", "counts"]
Progress = Callable[[str, int, int], None]
"""Called with the name of the task, the amount done and the total amount (0 if unknown)."""

KINDS: tuple[Kind, ...] = ("image", "signal", "vector", "counts")
HASHED_WHOLE = 256 * 2**20  # bytes; hashing a larger array in full would delay the start too long
HASHED_ROWS = 4096
BLOCK = 16 * 2**20  # bytes per block of `blocks`


class Computed(ABC):
    """Rows that are computed when they are indexed, in place of an array (N, *row). Abstract: `rows` computes them.

    It has the parts of an array's interface that vaekit uses: length, shape, dtype and indexing by rows.

    Attributes:
        trusted: whether the values need no check; a check would compute all of them before the first step.
        resident: whether training may keep all rows in memory, computed once; False for rows that are far larger so.
        shape: (N, *row).
        dtype: dtype of the values.
    """

    trusted = True
    resident = True

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.uint8)

    @abstractmethod
    def rows(self, index: NDArray[np.int64]) -> Array:
        """The rows with the numbers `index` (n,), (n, *row)."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes, the row axis included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes if all rows were in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.rows(np.arange(len(self))), dtype)

    def __getitem__(self, index: Any) -> Array:
        numbers = np.arange(len(self))[index]
        return self.rows(numbers) if numbers.ndim else self.rows(numbers[None])[0]


def row_dtype(dtype: np.dtype[Any], double: bool = False) -> np.dtype[Any]:
    """The dtype of the rows that a `Split` returns for raw data of `dtype`, in native byte order.

    Floats become float32 (with `double`, float64 stays), bool becomes uint8, and unsigned integers of more than one
    byte become signed ones, because torch supports few operations on them.
    """
    if dtype.kind == "f":
        return np.dtype(np.float64 if double and dtype.itemsize >= 8 else np.float32)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "u" and dtype.itemsize > 1:
        return np.dtype(np.int32 if dtype.itemsize == 2 else np.int64)
    return dtype.newbyteorder("=")


def cast(x: Array, double: bool = False) -> Array:
    """`x` in its `row_dtype`; without `double` a float64 too large for float32 becomes inf."""
    with np.errstate(over="ignore"):
        return x.astype(row_dtype(x.dtype, double), copy=False)


def blocks(raw: Array, rows: Array | None = None, double: bool = False) -> Iterator[tuple[int, Array]]:
    """Iterate over `raw` (or only its `rows`) in blocks of at most `BLOCK` bytes, so that a memory map is never loaded.

    Yields (position of the first row, rows in their `row_dtype`).
    """
    n = len(raw) if rows is None else len(rows)
    step = max(1, BLOCK // max(1, raw[:1].nbytes))
    for start in range(0, n, step):
        part = raw[start : start + step] if rows is None else raw[rows[start : start + step]]
        yield start, cast(np.asarray(part), double)


@dataclass(frozen=True)
class Column:
    """One column of a table: the kind of its numbers, and the texts that its codes stand for.

    Args:
        name: as in the table's header.
        kind: "real"; "binary", 0 or 1; "categorical", codes 0..C-1; "counts", whole numbers from 0 up.
        categories: `categories[i]` is the text of code i, for categorical columns and for binary columns that are
            not written as 0 and 1; otherwise empty.
        integer: whether all numbers were whole when the column was first read.
        low, high: the lowest and highest number of the column when it was first read; None if unknown.
        format: how dates are written, for real columns that hold dates as numbers (`readers.dates`); otherwise "".

    Columns with equal name, kind, categories and format are equal; `integer`, `low` and `high` describe one file.

    Raises:
        DataError: an unknown kind, or categories that do not fit it.
    """

    name: str
    kind: ColumnKind
    categories: tuple[str, ...] = ()
    integer: bool = field(default=False, compare=False)
    low: float | None = field(default=None, compare=False)
    high: float | None = field(default=None, compare=False)
    format: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ColumnKind):
            raise DataError(f"column {self.name!r}: kind must be one of {', '.join(get_args(ColumnKind))}")
        n = len(self.categories)
        fits = {"real": n == 0, "counts": n == 0, "binary": n in (0, 2), "categorical": n > 0}[self.kind]
        if not fits or len(set(self.categories)) < n:
            raise DataError(
                f"column {self.name!r}: the categories {self.categories} do not fit a column of kind {self.kind!r}"
            )

    def as_json(self) -> dict[str, Any]:
        """The column as JSON, for `from_json`."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind}
        measured = {"integer": self.integer or None, "low": self.low, "high": self.high}
        plain |= {"categories": list(self.categories)} if self.categories else {}
        plain |= {"format": self.format} if self.format else {}
        return plain | {name: value for name, value in measured.items() if value is not None}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Column":
        """The column that `as_json` wrote."""
        measured = {name: stored[name] for name in ("integer", "low", "high", "format") if name in stored}
        return cls(stored["name"], stored["kind"], tuple(stored.get("categories", ())), **measured)

    @property
    def width(self) -> int:
        """Number of inputs of a network for this column: one per category, else one."""
        return len(self.categories) if self.kind == "categorical" else 1

    @property
    def allowed(self) -> str:
        """The values that the column accepts, for messages."""
        if self.kind == "categorical":
            return f"a code 0..{len(self.categories) - 1} of {listed(self.categories)}"
        if self.kind == "binary":
            return f"0 or 1 ({listed(self.categories)})" if self.categories else "0 or 1"
        return "a whole number from 0 up" if self.kind == "counts" else "a finite number"

    def fitted(self, values: Array, beyond_range: bool = False) -> Array:
        """Numbers from a model, adjusted to the column: rounded if its own are whole, and clipped to its range.

        With `beyond_range` they are not clipped. Binary and categorical columns are returned unchanged.
        """
        if self.kind in ("binary", "categorical"):
            return values
        if not beyond_range and self.low is not None and self.high is not None:
            values = np.clip(values, self.low, self.high)
        return np.round(values) if self.integer and self.kind == "real" else values

    def outside(self, values: Array) -> NDArray[np.bool_]:
        """Mask of the numbers that this column cannot hold; nan, a missing value, is never one of them."""
        present = ~np.isnan(values)
        if self.kind == "real":
            return present & ~np.isfinite(values)
        top = {"binary": 1, "categorical": len(self.categories) - 1}.get(self.kind, np.inf)
        with np.errstate(invalid="ignore"):
            return present & ~((values >= 0) & (values <= top) & (values == np.round(values)) & np.isfinite(values))


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names for a message: the first `most`, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun for a message: "1 column", "2,000 columns"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


REMEDIES = {
    "c": "save real and imaginary parts as channels: np.stack([x.real, x.imag], -1)",
    "M": "save times as numbers: (x - x.min()) / np.timedelta64(1, 's')",
    "m": "save durations as numbers: x / np.timedelta64(1, 's')",
    "V": "save its fields as one array: numpy.lib.recfunctions.structured_to_unstructured(x)",
    "U": "texts are read from tables (.csv, .parquet); save numbers",
    "O": "give a frame (pandas, polars) as it is, or convert it to numbers",
    "S": "texts are read from tables (.csv, .parquet); save numbers",
}
"""Remedies for arrays that do not hold real numbers, by the kind of their dtype."""


def check_numbers(x: Any, name: str) -> None:
    """Raise DataError, with a remedy, for an array that does not hold real numbers."""
    if x.dtype.kind not in "buif":
        raise DataError(
            f"{name} must hold real numbers (uint8, integers, float32 or float64), got {x.dtype}; "
            f"{REMEDIES.get(x.dtype.kind, 'convert it first')}"
        )


def check_columns(columns: Sequence[Column], raw: Array, name: str, first: int = 0) -> None:
    """Check that each number of the rows (N, D) is one that its column can hold; missing values pass.

    Args:
        columns: D columns.
        raw: the rows.
        name: of the data, for the message.
        first: number of the first row, for the message.

    Raises:
        DataError: a number that its column cannot hold; the message names row, column and value.
    """
    for j, column in enumerate(columns):
        wrong = column.outside(raw[:, j])
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{name}: row {first + row}, column {column.name!r} is {raw[row, j]:g}, expected {column.allowed}"
            )


@dataclass(frozen=True)
class Layout:
    """How a raw row becomes an event: reshape to `pre`, then permute the axes by `axes`; neither copies."""

    pre: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The event shape: (C, H, W), (C, L) or (D,)."""
        return tuple(self.pre[axis] for axis in self.axes)


def layout(kind: Kind, row: tuple[int, ...]) -> Layout:
    """The layout of raw rows of shape `row`, read as `kind`.

    Images: (H, W) is grey; (H, W, C) with C in 1..4 has channels last; otherwise (C, H, W) with C of 1 or 3 has
    channels first; any other shape of three axes has channels last. Signals: (L,) or (L, C). Vectors are flattened.

    Raises:
        DataError: rows of this shape cannot be of that kind.
    """
    if kind == "image" and len(row) == 2:
        return Layout((1, *row), (0, 1, 2))
    if kind == "image" and len(row) == 3:
        channels_first = row[2] not in (1, 2, 3, 4) and row[0] in (1, 3)
        return Layout(row, (0, 1, 2) if channels_first else (2, 0, 1))
    if kind == "signal" and len(row) == 1:
        return Layout((1, *row), (0, 1))
    if kind == "signal" and len(row) == 2:
        return Layout(row, (1, 0))
    if kind in ("vector", "counts") and row:
        return Layout((int(np.prod(row)),), (0,))
    expected = {"image": "(H, W), (H, W, C) or (C, H, W)", "signal": "(L,) or (L, C)"}.get(kind, "(D,)")
    raise DataError(
        f"kind {kind!r} needs rows of shape {expected}, got {row}; reshape the array or choose another kind"
    )


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One of train, valid and test: rows of a source array, copied only when they are indexed.

    Args:
        raw: (N_all, *row) the whole source, in memory or a memory map; uint8 stays uint8.
        index: (n,) int64 rows of `raw` in this split.
        label: (n,) int64 class of each datum (-1 if unknown), or None.
        columns: further values of each datum (attributes, factors, batch, group), each (n,).
        names: file name of each datum, or None.
        group: (n,) int64 group of each datum if the data were split by group, or None.
        double: whether rows are float64, because float32 cannot resolve the differences between them.
    """

    raw: Array
    index: NDArray[np.int64]
    label: NDArray[np.int64] | None = None
    columns: dict[str, Array] = field(default_factory=dict)
    names: list[str] | None = None
    group: NDArray[np.int64] | None = None
    double: bool = False

    def __repr__(self) -> str:
        """Number, shape and dtype of the rows, and what else is known of them, as one line."""
        extra = ["classes"] * (self.label is not None) + ["file names"] * bool(self.names)
        known = "".join(f", {word}" for word in [*extra, *self.columns])
        return f"{counted(len(self), 'row')} of {' x '.join(map(str, self.raw.shape[1:]))} {self.raw.dtype}{known}"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> Array:
        """The raw rows `rows` (slice, indices or mask) of this split; reads only these."""
        return cast(np.asarray(self.raw[self.index[rows]]), self.double)

    def take(self, rows: Any) -> "Split":
        """A split with only the rows `rows` (slice, indices or mask) of this one, over the same source."""
        index = self.index[rows]
        names = None if self.names is None else [self.names[i] for i in np.arange(len(self))[rows]]
        label = None if self.label is None else self.label[rows]
        columns = {name: column[rows] for name, column in self.columns.items()}
        group = None if self.group is None else self.group[rows]
        return Split(self.raw, index, label, columns, names, group, self.double)

    def head(self, n: int) -> "Split":
        """A split with the first `n` rows of this one, or all if it has fewer."""
        return self.take(slice(0, max(0, n)))


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set: three splits of one source, and the facts that a model needs to know about one datum.

    Args:
        name: short name, for titles and file names.
        source: the name or path that was loaded.
        kind: "image", "signal", "vector" or "counts".
        shape: event shape of x: (C, H, W), (C, L) or (D,).
        train, valid, test: the splits; disjoint, none empty.
        label_names: name of each class, or None.
        feature_names: name of each column (table columns, genes), or None.
        factor_names: the columns that are generative factors.
        attribute_names: the columns that are two-valued attributes.
        scale: the lowest and highest possible raw value; for floats and integers of several bytes, those of the
            training rows.
        digest: SHA-256 of dtype, shape and content, preceded by "sampled:" if only some of the rows were hashed.
        options: the arguments of `load` that differ from its defaults, as JSON; they suffice to load the data again.
        schema: the columns of a table, in the order of x; empty for other data.
        missing: whether nan is a missing value; if False, the data have no nan.
        bits: whether every value is 0, 1 or missing, for any dtype.
        notes: messages to the user about the reading (images skipped, rows unused).
        reader: the name of the reader of their format.
    """

    name: str
    source: str
    kind: Kind
    shape: tuple[int, ...]
    train: Split
    valid: Split
    test: Split
    label_names: list[str] | None = None
    feature_names: list[str] | None = None
    factor_names: list[str] = field(default_factory=list)
    attribute_names: list[str] = field(default_factory=list)
    scale: tuple[float, float] = (0.0, 255.0)
    digest: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    schema: tuple[Column, ...] = ()
    missing: bool = False
    bits: bool = False
    notes: tuple[str, ...] = ()
    reader: str = ""

    def __repr__(self) -> str:
        """Name, kind, shape, range and sizes, as one line."""
        sizes = ", ".join(f"{len(getattr(self, part)):,} {part}" for part in ("train", "valid", "test"))
        low, high = self.scale
        known = {
            ("class", "classes"): self.label_names,
            ("attribute", ""): self.attribute_names,
            ("factor", ""): self.factor_names,
            ("column", ""): self.schema,
        }
        extra = "".join(f", {counted(len(names), noun, plural)}" for (noun, plural), names in known.items() if names)
        shape = " x ".join(map(str, self.shape))
        values = f"{low:g} to {high:g}{', some missing' if self.missing else ''}"
        return f"{self.name}: {self.kind} data of {shape}, values {values}; {sizes}{extra}"

    def _repr_html_(self) -> str:
        """Facts and the first training rows, for notebooks."""
        from .display import data_html

        return data_html(self)

    def is_same(self, known: str) -> bool:
        """Whether `known` is the digest of these data; earlier versions hashed float64 data as float32."""
        raw = self.train.raw
        return known == self.digest or (raw.dtype == np.float64 and known == digest(raw, np.dtype(np.float32)))

    def events(self, raw: Array) -> Array:
        """Raw rows (B, *row) as events (B, *shape), as a view.

        Raises:
            DataError: the rows have another shape than those of this data set.
        """
        row = self.train.raw.shape[1:]
        if raw.shape[1:] != row:
            raise DataError(f"{self.name}: rows must have shape (B, {', '.join(map(str, row))}), got {raw.shape}")
        plan = layout(self.kind, row)
        return raw.reshape(len(raw), *plan.pre).transpose(0, *(axis + 1 for axis in plan.axes))

    def image(self, x: Array) -> Array:
        """Events (B, C, H, W) as pictures, (B, H, W) if grey, else (B, H, W, C), as a view.

        Raises:
            DataError: the data are not images, or `x` has another shape than their events.
        """
        if self.kind != "image":
            raise DataError(f"{self.name} holds data of kind {self.kind!r}, which cannot be shown as images")
        if x.shape[1:] != self.shape:
            raise DataError(
                f"{self.name}: events must have shape (B, {', '.join(map(str, self.shape))}), got {x.shape}"
            )
        return x[:, 0] if self.shape[0] == 1 else np.moveaxis(x, 1, -1)


def digest(raw: Array, dtype: np.dtype[Any] | None = None) -> str:
    """SHA-256 in hexadecimal of dtype, shape and content, after conversion to `dtype` if given.

    Of arrays above 256 MiB, dtype, shape and 4096 evenly spaced rows are hashed, and the digest starts with "sampled:".
    """
    dtype = dtype or raw.dtype
    sha = hashlib.sha256(f"{dtype.str} {raw.shape}".encode())
    size = math.prod(raw.shape) * dtype.itemsize
    whole = size <= HASHED_WHOLE or len(raw) <= HASHED_ROWS
    step = max(1, BLOCK // max(1, raw[:1].nbytes))
    rows = np.arange(len(raw)) if whole else np.linspace(0, len(raw) - 1, HASHED_ROWS).astype(np.int64)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        with np.errstate(over="ignore"):
            content = (raw[part[0] : part[-1] + 1] if whole else raw[part]).astype(dtype, copy=False)
        sha.update(np.ascontiguousarray(content).data)
    return ("" if whole else "sampled:") + sha.hexdigest()

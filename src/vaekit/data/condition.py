"""Further inputs of a model besides x: the condition of a conditional model, or classes to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vaekit.errors import ChoiceError
from vaekit.utils.wording import in_python

from .core import Column, Data, Split, cast, digest, listed

FEW = 64
"""Maximum number of distinct values of a column that serves as a condition."""
Labels = np.ndarray | Sequence[Any] | Mapping[str, Any] | str | int
"""Classes by name or code, values of attributes, or covariates by name: see `Condition.encoded`."""


@dataclass(frozen=True)
class Condition:
    """The condition of a conditional model: one-hot classes, or attributes as numbers; (n, size) float32.

    Args:
        kind: "label" or "attributes".
        names: names of the classes, or of the columns with the attributes.
        column: the column with the classes; None for the labels of the data.
    """

    kind: str
    names: tuple[str, ...]
    column: str | None = None

    @property
    def size(self) -> int:
        """Width of the condition."""
        return len(self.names)

    def of(self, split: Split, label_names: Sequence[str] | None = None) -> np.ndarray:
        """The conditions of all rows of a split, (n, size) float32.

        Args:
            split: a split with labels or columns.
            label_names: names of the classes of the split's labels, if they have names.

        Raises:
            ChoiceError: the split has no labels, or a row has no label or attribute, or one unknown to this run.
        """
        if self.kind == "attributes" or self.column is not None:
            return self.encoded(self.carried(None, split.columns), rows=split.index)
        if split.label is None:
            raise ChoiceError(
                "these data have no labels, on which this run is conditional: read them with theirs "
                f"(`label=COLUMN`{in_python(' or vk.from_arrays(x, label=y)')})"
            )
        if label_names is None or tuple(label_names) == self.names:
            return self._one_hot(split.label, split.label, split.index)
        return self.encoded(named(split.label, label_names), rows=split.index)

    def carried(self, label: np.ndarray | None, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values of this condition in a data set, for `encoded`: labels, a column, or attributes (n, size).

        Args:
            label: (n,) classes by name or number, or None.
            columns: further values of the data, each (n,).

        Raises:
            ChoiceError: the data lack the label or a column.
        """
        if self.kind == "label" and self.column is None:
            if label is None:
                raise ChoiceError(f"this run is conditional on labels, but these data have none; {self.expected}")
            return label
        wanted = self.names if self.column is None else (self.column,)
        if lacking := [name for name in wanted if name not in columns]:
            raise ChoiceError(
                f"this run is conditional on the column {lacking[0]!r}, which these data lack; {self.expected}"
            )
        if self.kind == "label":
            return columns[wanted[0]]
        return np.stack([_attribute(columns[name], str(name)) for name in wanted], 1)

    def encoded(self, given: Labels, n: int | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """The condition as input of the model, (n, size) float32.

        Args:
            given: (n,) classes by name, or by code 0..size-1 if no class has a whole number as its name; for
                attributes, (n, size) numbers. A single class or row of attributes applies to all n rows.
            n: number of rows, if known.
            rows: row numbers for messages, if they are not 0..n-1.

        Raises:
            ChoiceError: `given` has another shape, a class is unknown to this run, or a row has none.
        """
        values = np.asarray(given)
        shape = () if self.kind == "label" else (self.size,)
        if n is not None and values.shape in (shape, (1, *shape)):
            values = np.broadcast_to(values, (n, *shape))
        if values.ndim == 2 and values.shape[1] == 1 and not shape:
            values = values[:, 0]
        if values.ndim == 1 and shape == (1,):
            values = values[:, None]
        if values.ndim != 1 + len(shape) or values.shape[1:] != shape or (n is not None and len(values) != n):
            expected = f"({'n' if n is None else n}{', ' if shape else ','}{', '.join(map(str, shape))})"
            raise ChoiceError(f"labels must have shape {expected}, one per row, got {values.shape}")
        if self.kind == "label":
            return self._one_hot(class_codes(values, self.names), values, rows)
        c = values.astype(np.float32)
        if not np.isfinite(c).all():
            row, column = np.argwhere(~np.isfinite(c))[0]
            row = row if rows is None else rows[row]
            raise ChoiceError(f"row {row} has no value of the attribute {self.names[column]!r}; {self.expected}")
        return c

    def changed(self, c: np.ndarray, given: Labels) -> np.ndarray:
        """The condition c (n, size) with other values; of several covariates, those that are not given keep theirs."""
        return self.encoded(given, len(c))

    def decoded(self, c: np.ndarray) -> np.ndarray:
        """The inverse of `encoded`: the names of the classes (n,), or the numbers of the attributes (n, size)."""
        return np.array(self.names)[c.argmax(1)] if self.kind == "label" else c

    def columns(self, c: np.ndarray) -> dict[str, np.ndarray]:
        """The values of a condition (n, size) by the name of their column, each (n,)."""
        if self.kind == "label":
            return {self.column or "label": self.decoded(c)}
        return dict(zip(self.names, c.T, strict=True))

    @property
    def schema(self) -> tuple[Column, ...]:
        """The columns that `columns` returns: classes as categories, in the order of their codes, and numbers."""
        if self.kind == "label":
            return (Column(self.column or "label", "categorical", self.names),)
        return tuple(Column(name, "real") for name in self.names)

    @property
    def example(self) -> str:
        """One condition as text, for messages."""
        return self.names[0] if self.kind == "label" else ",".join(["1", *"0" * (self.size - 1)])

    def read(self, given: str) -> np.ndarray:
        """One condition from text, for `encoded`: a class by name or code (1,), or attributes "a,b,c" (1, size).

        Raises:
            ChoiceError: the class is unknown, or the text is not one number per attribute.
        """
        if self.kind == "label":
            if class_codes(np.array([given]), self.names)[0] < 0:
                raise ChoiceError(f"unknown class {given!r}: {self.expected}")
            return np.array([given])
        try:
            values = np.array([[float(v) for v in given.split(",")]], np.float32)
        except ValueError:
            values = np.empty((1, 0), np.float32)
        if values.shape[1] != self.size or not np.isfinite(values).all():
            raise ChoiceError(f"`label` must be one number for each of {', '.join(self.names)}, separated by commas")
        return values

    @property
    def expected(self) -> str:
        """The accepted conditions, for messages."""
        if self.kind == "attributes":
            return f"expected one number for each of {listed(self.names)}"
        codes = "" if _numbered(self.names) else f", or their codes 0..{self.size - 1}"
        return f"choose from {listed(self.names, 20)}{codes}"

    def _one_hot(self, codes: np.ndarray, values: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """One-hot rows (n, size) for class codes (n,), which were read from `values`."""
        wrong = (codes < 0) | (codes >= self.size)
        if wrong.any():
            first = int(wrong.argmax())
            row, value = first if rows is None else int(rows[first]), values[first].item()
            if value == "" or value == -1 or value != value:
                missing = "label" if self.column is None else f"value of {self.column!r}"
                raise ChoiceError(
                    f"row {row} has no {missing}, on which this run is conditional: {self.expected}, omit such rows, "
                    "or train `recipe='semi-supervised'`"
                )
            raise ChoiceError(f"row {row} is of class {value!r}, which this run was not trained on: {self.expected}")
        return np.eye(self.size, dtype=np.float32)[codes]


def set_apart(data: Data, condition: str | None) -> Data:
    """The data with the columns of a condition moved out of x into the splits' `columns`.

    Columns that are not in the table are ignored.

    Args:
        condition: the name of a column, or several names separated by commas.

    Raises:
        ChoiceError: a column has more than 64 names, or no other column is left.
    """
    names = {column.name for column in data.schema}
    wanted = [] if condition is None else [condition] if condition in names else column_names(condition)
    positions = [i for i, column in enumerate(data.schema) if column.name in wanted]
    if not positions or any(data.schema[i].name in data.train.columns for i in positions):
        return data
    if len(data.schema) == len(positions):
        raise ChoiceError(f"`condition={condition!r}`: the table has no other column to learn from")
    raw = np.asarray(data.train.raw)
    values = {data.schema[i].name: _covariate(data.schema[i], raw[:, i]) for i in positions}
    x = cast(np.delete(raw, positions, 1), data.train.double)
    low, high = np.nanmin(x[data.train.index]), np.nanmax(x[data.train.index])
    rest = tuple(column for i, column in enumerate(data.schema) if i not in positions)

    def without(split: Split) -> Split:
        return replace(
            split, raw=x, columns={**split.columns, **{name: column[split.index] for name, column in values.items()}}
        )

    return replace(
        data,
        shape=(len(rest),),
        train=without(data.train),
        valid=without(data.valid),
        test=without(data.test),
        feature_names=[column.name for column in rest],
        scale=(float(low), float(high)) if low == low else data.scale,
        digest=digest(x),
        schema=rest,
    )


def column_names(condition: str) -> list[str]:
    """The names in the text "batch,donor,percent_mito"."""
    return [name.strip() for name in condition.split(",") if name.strip()]


def _covariate(column: Column, values: np.ndarray) -> np.ndarray:
    """The values of a column (n,): whole numbers or texts as classes if there are few, else numbers."""
    known = values[values == values]
    whole = bool((known == np.round(known)).all())
    if len(np.unique(known)) > FEW and column.categories:
        raise ChoiceError(
            f"`condition={column.name!r}`: the column has {len(np.unique(known)):,} distinct values, but a condition "
            f"must have at most {FEW} classes: convert the column to classes first"
        )
    if len(np.unique(known)) > FEW or not whole:
        return values.astype(np.float64)
    if len(known) == len(values) and not column.categories:
        return values.astype(np.int64)
    names = column.categories or tuple(str(i) for i in range(int(known.max(initial=0)) + 1))
    return named(np.where(values == values, values, -1).astype(np.int64), names)


def named(codes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The names of the classes with these codes, "" for -1."""
    return np.array([*names, ""])[codes]


def class_codes(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The class code of each value, (n,) int64; -1 for unknown values.

    A value is the name of a class (3, 3.0 and "3" are equal), or a code if no class has a whole number as its name.
    """
    position = {name: i for i, name in enumerate(names)}
    numbered = _numbered(names)

    def code(value: object) -> int:
        text = str(value).strip()
        text = text if text in position else as_name(value)
        if text in position or numbered or not text.isdecimal():
            return position.get(text, -1)
        return int(text) if int(text) < len(names) else -1

    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([code(value) for value in distinct.tolist()], np.int64)[inverse.reshape(-1)]


def _numbered(names: Sequence[str]) -> bool:
    """Whether a class has a whole number as its name."""
    return any(name.lstrip("-").isdecimal() for name in names)


def as_name(value: object) -> str:
    """The name of a class: whole numbers without a fraction, "" for missing values."""
    text = str(value).strip()
    if isinstance(value, float) and value != value:
        return ""
    if isinstance(value, int) or "_" in text:  # Python reads 1_2 as 12
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def _attribute(values: np.ndarray, name: str) -> np.ndarray:
    """The values of an attribute as 0 and 1, from 0 and 1 or from -1 and 1; nan if missing.

    Raises:
        ChoiceError: there are other values.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "buif":
        raise ChoiceError(f"attribute {name!r}: row 0 is {values[0].item()!r}, expected 0 or 1")
    known = values[values == values]
    low = -1 if (known == -1).any() else 0
    if (wrong := (values == values) & (values != low) & (values != 1)).any():
        row = int(wrong.argmax())
        raise ChoiceError(f"attribute {name!r}: row {row} is {values[row]:g}, expected {low} or 1")
    return np.where(values == values, (values == 1).astype(np.float32), np.nan)


@dataclass(frozen=True)
class Targets:
    """The labels that a semi-supervised model uses in training.

    Args:
        classes: number of classes.
        count: number of labels to use; None for all.
        seed: seed of the choice.
    """

    classes: int
    count: int | None = None
    seed: int = 0

    def of(self, split: Split) -> np.ndarray:
        """Class codes (n,) int64 of a split; -1 if the label is unknown or not used.

        Raises:
            ChoiceError: the split has no labels, or fewer than `count`.
        """
        from .splits import labelled_rows

        labels = np.full(len(split), -1) if split.label is None else np.asarray(split.label)
        if not (labels >= 0).any():
            raise ChoiceError("a semi-supervised run needs labels, but these data have none: use `recipe='vae'`")
        if self.count is None:
            return labels.astype(np.int64)
        targets = np.full(len(labels), -1, np.int64)
        rows = labelled_rows(labels, self.count, self.seed)
        targets[rows] = labels[rows]
        return targets

"""Several covariates as the condition of a model: classes one-hot, numbers standardised, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaekit.errors import ChoiceError

from .condition import Condition, Labels, named
from .core import Column, Split, listed


@dataclass(frozen=True)
class Covariate:
    """One covariate: classes, which become one-hot, or a number, which is standardised.

    Args:
        name: of its column; "label" stands for the labels of the data.
        classes: names of the classes; empty for a number.
        mean, std: of a number, over the training rows.
    """

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its elements in the condition."""
        return tuple(f"{self.name}={one}" for one in self.classes) or (self.name,)

    @property
    def example(self) -> str:
        """One value, for messages."""
        return f"{self.name}={self.classes[0]}" if self.classes else f"{self.name}={self.mean:.3g}"

    def encoded(self, values: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """Its elements of the condition, (n, width) float32, for values (n,)."""
        if self.classes:
            return Condition("label", self.classes, self.name).encoded(values, rows=rows)
        try:
            numbers = values.astype(np.float64)
        except ValueError:
            wrong = next(value for value in values.tolist() if not _is_number(value))
            raise ChoiceError(f"{self.name!r} must hold numbers, got {wrong!r}") from None
        if not np.isfinite(numbers).all():
            row = int(np.argmax(~np.isfinite(numbers)))
            row = row if rows is None else int(rows[row])
            raise ChoiceError(f"row {row} has no value of {self.name!r}, on which this run is conditional")
        return ((numbers - self.mean) / self.std).astype(np.float32)[:, None]

    def decoded(self, c: np.ndarray) -> np.ndarray:
        """The inverse of `encoded`: the names of the classes, or numbers, (n,)."""
        return (
            np.array(self.classes)[c.argmax(1)] if self.classes else c[:, 0].astype(np.float64) * self.std + self.mean
        )


@dataclass(frozen=True)
class Covariates(Condition):
    """The condition of a model that is conditional on several columns, or on one column of numbers.

    Args:
        covariates: the covariates, in the order of the condition's elements.
    """

    covariates: tuple[Covariate, ...] = ()

    @classmethod
    def of_columns(cls, covariates: Sequence[Covariate]) -> Covariates:
        """The condition with these covariates."""
        names = tuple(name for one in covariates for name in one.names)
        return cls("columns", names, None, tuple(covariates))

    def of(self, split: Split, label_names: Sequence[str] | None = None) -> np.ndarray:
        label = split.label
        if label is not None and label_names is not None:
            label = named(label, label_names)
        return self.encoded(self.carried(label, split.columns), rows=split.index)

    def carried(self, label: np.ndarray | None, columns: Mapping[str, np.ndarray]) -> Any:
        found: dict[str, np.ndarray] = {}
        for one in self.covariates:
            values = columns.get(one.name, label if one.name == "label" else None)
            if values is None:
                raise ChoiceError(
                    f"this run is conditional on the column {one.name!r}, which these data lack; {self.expected}"
                )
            found[one.name] = values
        return found

    def encoded(self, given: Labels, n: int | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """The condition as input of the model, (n, size) float32.

        Args:
            given: the values of each covariate by name, (n,) or one for all rows; or an array (n, covariates) or
                (covariates,), in their order.
            n: number of rows, if known.
            rows: row numbers for messages, if they are not 0..n-1.

        Raises:
            ChoiceError: a covariate is missing, has another shape, or holds an unknown class or no number.
        """
        if isinstance(given, Mapping):
            if lacking := [one.name for one in self.covariates if one.name not in given]:
                raise ChoiceError(f"labels lack {lacking[0]!r}; {self.expected}")
            columns = [np.asarray(given[one.name]) for one in self.covariates]
        else:
            table = np.asarray(given)
            if table.ndim not in (1, 2) or table.shape[-1] != len(self.covariates):
                raise ChoiceError(
                    f"labels must have shape ({'n' if n is None else n}, {len(self.covariates)}), got {table.shape}; "
                    f"{self.expected}"
                )
            columns = [table[..., i] for i in range(len(self.covariates))]
        size = n if n is not None else max(column.size for column in columns)
        if wrong := [column.shape for column in columns if column.shape not in ((), (1,), (size,))]:
            raise ChoiceError(f"labels must have one value for each of {size} rows, got shape {wrong[0]}")
        parts = zip(self.covariates, columns, strict=True)
        return np.concatenate([one.encoded(np.broadcast_to(column, (size,)), rows) for one, column in parts], 1)

    def changed(self, c: np.ndarray, given: Labels) -> np.ndarray:
        if not isinstance(given, Mapping):
            return self.encoded(given, len(c))
        if foreign := [name for name in given if name not in {one.name for one in self.covariates}]:
            raise ChoiceError(f"unknown covariate {foreign[0]!r}; {self.expected}")
        return self.encoded({**self.columns(c), **given}, len(c))

    def decoded(self, c: np.ndarray) -> np.ndarray:
        """The values of the covariates as texts, (n, covariates), in their order."""
        return np.stack([values.astype(np.str_) for values in self.columns(c).values()], 1)

    def columns(self, c: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum([len(one.names) for one in self.covariates])[:-1]
        parts = np.split(c, ends, axis=1)
        return {one.name: one.decoded(part) for one, part in zip(self.covariates, parts, strict=True)}

    @property
    def schema(self) -> tuple[Column, ...]:
        return tuple(Column(one.name, "categorical" if one.classes else "real", one.classes) for one in self.covariates)

    def read(self, given: str) -> np.ndarray:
        """One condition (1, covariates) from text, "batch=A,percent_mito=3", for `encoded`.

        Raises:
            ChoiceError: a covariate is missing or unknown, or its value is.
        """
        names = "|".join(re.escape(one.name) for one in self.covariates)
        cells = re.split(rf",\s*(?=(?:{names})\s*=)", given.strip())
        values = {name.strip(): value.strip() for name, _, value in (cell.partition("=") for cell in cells)}
        if unknown := [name for name in values if name not in {one.name for one in self.covariates}]:
            raise ChoiceError(f"unknown covariate {unknown[0]!r}; {self.expected}")
        if lacking := [one.name for one in self.covariates if one.name not in values]:
            raise ChoiceError(f"`label` lacks {lacking[0]!r}; {self.expected}")
        row = np.array([[values[one.name] for one in self.covariates]])
        self.encoded(row)
        return row

    @property
    def expected(self) -> str:
        kinds = (listed(one.classes) if one.classes else "a number" for one in self.covariates)
        shown = listed([f"{one.name} ({kind})" for one, kind in zip(self.covariates, kinds, strict=True)])
        return f"expected a value of each of {shown}, such as {self.example!r}"

    @property
    def example(self) -> str:
        return ",".join(one.example for one in self.covariates)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True

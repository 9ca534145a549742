"""What else a model may be given of a datum: a condition beside x, or the class to predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaekit.errors import ChoiceError

from .core import Split


@dataclass(frozen=True)
class Condition:
    """What a conditional model is given with x: one-hot classes, or attributes as numbers; (n, size) float32.

    Args:
        kind: "label" or "attributes".
        names: of the classes, or of the attributes' columns.
        column: where the classes are found, when they are not the data's labels.
    """

    kind: str
    names: tuple[str, ...]
    column: str | None = None

    @property
    def size(self) -> int:
        return len(self.names)

    def of(self, split: Split) -> np.ndarray:
        """The conditions of all data of a split.

        Raises:
            ChoiceError: some datum has no label or attribute.
        """
        if self.kind == "attributes":
            missing = [n for n in self.names if n not in split.columns]
            if missing:
                raise ChoiceError(f"a conditional run needs the column {missing[0]!r}, which these data do not have")
            return np.stack([np.asarray(split.columns[n], np.float32) for n in self.names], 1)
        if self.column is not None:
            if self.column not in split.columns:
                raise ChoiceError(f"a run conditional on the column {self.column!r} needs it, and these data have none")
            return self.of_labels(coded(split.columns[self.column], self.names))
        return self.of_labels(split.label if split.label is not None else np.full(len(split), -1))

    def read(self, given: str) -> np.ndarray:
        """What a user calls the condition of one datum: a class by name or code; attributes' values a,b,c; (1, ...).

        Raises:
            ChoiceError: no such class, or not a number for each attribute.
        """
        if self.kind == "label":
            known = ", ".join(self.names[:20]) + (", ..." if self.size > 20 else "")
            code = self.names.index(given) if given in self.names else int(given) if given.isdecimal() else -1
            if not 0 <= code < self.size:
                raise ChoiceError(f"no class {given!r}: there are {known}, or their codes 0..{self.size - 1}")
            return np.array([code])
        try:
            values = np.array([[float(v) for v in given.split(",")]], np.float32)
        except ValueError:
            values = np.empty((1, 0), np.float32)
        if values.shape[1] != self.size or not np.isfinite(values).all():
            raise ChoiceError(f"--label takes a number for each of {', '.join(self.names)}, with commas between them")
        return values

    def labels(self, split: Split, row: int) -> np.ndarray:
        """The condition of one datum of a split as `read` gives it."""
        c = self.of(split)[row : row + 1]
        return c.argmax(1) if self.kind == "label" else c

    def of_labels(self, labels: np.ndarray) -> np.ndarray:
        """One-hot rows for class codes (n,)."""
        labels = np.asarray(labels)
        if len(labels) and not (labels.min() >= 0 and labels.max() < self.size):
            raise ChoiceError(
                f"a run conditional on labels needs one for every datum, in 0..{self.size - 1}; some have none: "
                "give labels to all, leave such rows out, or train --recipe semi-supervised"
            )
        return np.eye(self.size, dtype=np.float32)[labels]


def coded(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Class codes of a column's values by the names of the classes, -1 where a value is none of them: (n,) int64."""
    distinct, place = np.unique(values, return_inverse=True)
    known = {name: i for i, name in enumerate(names)}
    return np.array([known.get(str(value), -1) for value in distinct.tolist()], np.int64)[place]


@dataclass(frozen=True)
class Targets:
    """The labels a semi-supervised model may see in training: `count` of them, chosen by `seed`; None for all."""

    classes: int
    count: int | None = None
    seed: int = 0

    def of(self, split: Split) -> np.ndarray:
        """Class codes (n,) int64, -1 where the label is hidden or unknown."""
        from .splits import labelled_rows

        labels = np.full(len(split), -1) if split.label is None else np.asarray(split.label)
        if not (labels >= 0).any():
            raise ChoiceError("a semi-supervised run needs labels, and these data have none: use --recipe vae")
        if self.count is None:
            return labels.astype(np.int64)
        seen = np.full(len(labels), -1, np.int64)
        rows = labelled_rows(labels, self.count, self.seed)
        seen[rows] = labels[rows]
        return seen

"""What a reader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .core import Array, Column


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader returns, before any check: arrays aligned with the rows of `x`.

    Args:
        x: (N, ...) the data.
        label: (N,) integers or strings, or None.
        columns: further values of each row, each (N,).
        splits: rows of the parts that the source itself defines: train and test, or train, valid and test.
        kind, scale: those that the source defines; None to infer them.
        options: arguments of `load` that the reader chose, recorded so that the data are read the same way again.
        Other fields: as in `Data` and `Split`.
    """

    x: Array
    label: Array | None = None
    label_names: list[str] | None = None
    columns: dict[str, Array] = field(default_factory=dict)
    names: list[str] | None = None
    feature_names: list[str] | None = None
    factor_names: list[str] = field(default_factory=list)
    splits: dict[str, NDArray[np.int64]] | None = None
    kind: str | None = None
    scale: tuple[float, float] | None = None
    schema: tuple[Column, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

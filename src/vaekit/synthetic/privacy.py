"""Whether synthetic rows give away the rows that their model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column
from vaekit.utils.uncertainty import area, standard_error

from .estimates import Estimate, Z
from .features import Gower

Array = NDArray[Any]
SAME = 1e-6
"""Distances that differ by less are equal."""


@dataclass(frozen=True)
class Nearness:
    """Distances of rows to the nearest training row and to the nearest of as many test rows.

    Attributes:
        to_train, to_test: (N,) distances, each the mean difference per column, from 0 to 1.
        nearer: the share of rows that are nearer to a training row; 1/2 for rows that know neither.
        membership: how well the distance to the nearest of the rows tells training rows from test rows: the area under
            the ROC curve of an attacker who has the rows; 1/2 if nothing shows which real rows were used.
    """

    to_train: Array
    to_test: Array
    nearer: Estimate
    membership: Estimate


def nearness(rows: Array, train: Array, test: Array, columns: Sequence[Column]) -> Nearness:
    """The `Nearness` of rows (N, D) to training rows and test rows, both (M, D).

    If the rows know neither, each is as likely to be nearer to a training row as to a test row. A tie counts half.
    Rows with the same nearest neighbour depend on each other: the standard error is by nearest row.
    """
    gower = Gower(columns, np.concatenate([train, test]))
    (to_train, first, inside), (to_test, second, outside) = (gower.nearest(rows, real) for real in (train, test))
    wins = np.where(np.abs(to_train - to_test) < SAME, 0.5, to_train < to_test)
    neighbour = np.where(wins >= 0.5, first, len(train) + second)
    share = Estimate.normal(float(wins.mean()), standard_error(wins, neighbour), 0.0, 1.0)
    return Nearness(to_train, to_test, share, Estimate.of_area(area(-inside, -outside)))


def copies(rows: Array, real: Array) -> Estimate:
    """The share of the rows (N, D) that equal one of the real rows (M, D) in float32, with its Wilson interval.

    Missing values are equal to each other.
    """
    known = set(map(bytes, _comparable(real)))
    hits = np.array([row in known for row in map(bytes, _comparable(rows))])
    n, p = len(hits), float(hits.mean())
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n)) / (1 + Z**2 / n)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)  # if p is 0 or 1, a bound may round beyond it
    return Estimate(p, math.sqrt(p * (1 - p) / n), min(low, p), max(high, p))


def _comparable(rows: Array) -> Array:
    """The rows as float32 with one bit pattern for each value: of nan, and of 0 and -0."""
    x = np.where(np.isnan(rows), np.nan, rows).astype(np.float32) + np.float32(0)
    return np.ascontiguousarray(x)

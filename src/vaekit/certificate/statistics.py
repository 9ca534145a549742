"""Means with intervals, as certificates state them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaekit.utils.uncertainty import standard_error, t_quantile, units

LEVEL, STRICT = 0.05, 0.001
"""The probability that an interval misses, and that a test fails by chance."""


@dataclass(frozen=True)
class Mean:
    """A mean over data with an interval of Student's t, by group where the data have groups."""

    value: float
    low: float
    high: float


def mean_of(values: np.ndarray, groups: np.ndarray | None = None, level: float = LEVEL) -> Mean:
    """The mean of values (n,) with an interval that misses with probability `level`."""
    value, se = float(np.mean(values)), standard_error(values, groups)
    if se is None:
        return Mean(value, -np.inf, np.inf)
    reach = t_quantile(level, units(len(values), groups) - 1) * se
    return Mean(value, value - reach, value + reach)

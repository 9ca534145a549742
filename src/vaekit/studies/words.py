"""Sentences made from numbers: what is more, what is less, and what cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SURE = 2.0
"""Standard errors of a difference beyond which it is called one."""


class Estimate(NamedTuple):
    """A mean with its standard error; of a single number the error is unknown, nan."""

    value: float
    se: float = math.nan

    def text(self, digits: int | None = None) -> str:
        """`12.3 ± 0.4`, with two digits of the error where it is known."""
        if not math.isfinite(self.se) or self.se == 0:
            return number(self.value, digits)
        places = digits if digits is not None else max(0, min(4, 1 - math.floor(math.log10(self.se))))
        return f"{self.value:.{places}f} ± {self.se:.{places}f}".replace("-", "−")


def estimate(values: ArrayLike) -> Estimate:
    """The mean over independent values (N,), such as seeds or data, with its standard error."""
    x = np.asarray(values, float).ravel()
    return Estimate(float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan)


def number(value: float, digits: int | None = None) -> str:
    """A number for a sentence: three significant digits unless told otherwise."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if digits is None:
        digits = 0 if value == 0 else max(0, min(4, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}".replace("-", "−")


def sign(a: Estimate, b: Estimate) -> int:
    """1 where a is surely above b, -1 where below, 0 where the difference is within its error.

    Independent estimates whose errors are unknown are compared as they stand.
    """
    error = math.hypot(*(0.0 if math.isnan(e.se) else e.se for e in (a, b)))
    return int(np.sign(a.value - b.value)) if abs(a.value - b.value) > SURE * error else 0


def paired(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The mean of a - b over pairs (N,), with its standard error."""
    return estimate(np.asarray(a, float) - np.asarray(b, float))


def direction(difference: Estimate) -> int:
    """1, -1 or 0 of a difference."""
    return sign(difference, Estimate(0.0, 0.0))


def choose(which: int, more: str, less: str, same: str) -> str:
    """One of three readings, by the sign of a comparison."""
    return {1: more, -1: less, 0: same}[which]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def trend(x: ArrayLike, y: ArrayLike) -> int:
    """1 where y grows with x all along, -1 where it falls all along, 0 where it does neither."""
    steps = np.diff(np.asarray(y, float)[np.argsort(np.asarray(x, float), kind="stable")])
    return 1 if (steps > 0).all() else -1 if (steps < 0).all() else 0

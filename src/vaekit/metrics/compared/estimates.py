r"""Means and differences over seeds and data, with intervals that hold at least at their level.

Run r of a setting gives datum i the number

    x_ri = mu + a_r + b_i + e_ri,

with independent effects of the seed (a), the datum (b) and both (e): every run is measured on the same N data. The mean
over R runs and N data has the variance

    var a / R + var b / N + var e / (R N) = A + C,

in which A, the squared standard error of the R means over data, estimates var a / R + var e / (R N) with R - 1 degrees
of freedom. C = var b / N is the squared standard error of the N means over runs, less that of e, with N - 1 degrees of
freedom (or the number of groups less one: rows of a group may depend on each other). This is the two-way analysis of
variance without replication, see Searle, Casella and McCulloch (1992), section 4.

The interval of a sum of estimates with variances A, C, ... and their degrees of freedom is

    value -+ sqrt(t_A^2 A + t_C^2 C + ...)

with the quantiles t of Student's distribution for each. It covers the truth with at least the stated probability, for
any ratio of the variances (Banerjee 1960), and is the interval of Student's t if there is one part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.utils.uncertainty import standard_error, t_quantile, units

LEVEL = 0.05
"""The probability that an interval misses the truth."""
SMALLEST = 1e-15
"""p-values below this are reported as this."""


@dataclass(frozen=True)
class Estimate:
    """A value with its error.

    Attributes:
        value: the estimate.
        parts: the independent parts of its variance, each with its degrees of freedom; none if the error is unknown.
        over: what the error is about: `seeds`, `data`, or `seeds and data`.
        ends: the interval of level `LEVEL` if it is known otherwise, such as by a bootstrap.
    """

    value: float
    parts: tuple[tuple[float, float], ...] = ()
    over: str = ""
    ends: tuple[float, float] | None = None

    @property
    def se(self) -> float | None:
        """The standard error; None if it is unknown."""
        return math.sqrt(sum(variance for variance, _ in self.parts)) if self.parts else None

    def reach(self, level: float = LEVEL) -> float | None:
        """Half the width of the interval; None if it is unknown, as it is for equal values of a few seeds."""
        if self.ends is not None and level == LEVEL:
            return (self.ends[1] - self.ends[0]) / 2
        if not self.se:
            return None
        reach = math.sqrt(sum(t_quantile(level, df) ** 2 * v for v, df in self.parts if v > 0))
        return reach if math.isfinite(reach) else None

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The interval that covers the truth with a probability of at least 1 - level."""
        if self.ends is not None and level == LEVEL:
            return self.ends
        reach = self.reach(level)
        return None if reach is None else (self.value - reach, self.value + reach)

    @property
    def p(self) -> float | None:
        """The p-value of a true value of 0: the smallest level whose interval leaves out 0."""
        if self.reach() is None:
            return None
        low, high = math.log(SMALLEST), 0.0  # the reach falls as the level grows
        if abs(self.value) >= (self.reach(SMALLEST) or math.inf):
            return SMALLEST
        for _ in range(60):
            middle = (low + high) / 2
            reach = self.reach(math.exp(middle))
            low, high = (middle, high) if reach is None or reach > abs(self.value) else (low, middle)
        return math.exp(high)


def mean(
    values: Sequence[float],
    *,
    se: float | None = None,
    degrees: float = math.inf,
    ends: tuple[float, float] | None = None,
) -> Estimate:
    """The mean of one value per seed, with an interval over seeds; of a single value, with its own error over data.

    Arguments:
        values: (R,), the mean over data for each run.
        se, degrees: the standard error of a single value over data, and its degrees of freedom.
        ends: the interval of a single value, if it is known otherwise.
    """
    if len(values) > 1:
        return Estimate(float(np.mean(values)), (_over_runs(np.asarray(values, np.float64)),), "seeds")
    over = "" if se is None and ends is None else "data"
    return Estimate(float(values[0]), () if se is None else ((se**2, degrees),), over, ends)


def difference(
    x: Sequence[ArrayLike], y: Sequence[ArrayLike], *, paired: bool = False, group: ArrayLike | None = None
) -> Estimate:
    """The mean of x minus that of y, for runs of two settings that are measured on the same data.

    `paired` pairs the runs in their order, as for runs of equal seeds. Otherwise the runs of x and y are independent,
    and the degrees of freedom are those of Welch and Satterthwaite; if one setting has a single run, the spread over
    seeds of the other is taken for both.

    Arguments:
        x, y: one entry for each run: the numbers of the data (N,), or one number.
        group: (N,), the group of each datum.
    """
    a, b = (np.stack([np.atleast_1d(np.asarray(v, np.float64)) for v in runs]) for runs in (x, y))
    value, n = float(a.mean() - b.mean()), a.shape[1]
    paired = paired and len(a) == len(b)
    seeds = _seeds(a.mean(1), b.mean(1), paired)
    if n == 1:
        return Estimate(value, () if seeds is None else (seeds,), "" if seeds is None else "seeds")
    error = standard_error(a.mean(0) - b.mean(0), group)
    if error is None:
        return Estimate(value, () if seeds is None else (seeds,), "" if seeds is None else "seeds")
    square, degrees = error**2, units(n, group) - 1.0
    if seeds is None:
        return Estimate(value, ((square, degrees),), "data")
    both = _interaction(a - b, group) if paired else _interaction(a, group) + _interaction(b, group)
    return Estimate(value, (seeds, (max(square - both, 0.0), degrees)), "seeds and data")


def _over_runs(means: NDArray[np.float64]) -> tuple[float, float]:
    """The squared standard error of the mean of one number per run, and its degrees of freedom."""
    return float(means.var(ddof=1)) / len(means), len(means) - 1.0


def _seeds(a: NDArray[np.float64], b: NDArray[np.float64], paired: bool) -> tuple[float, float] | None:
    """The variance of the difference of means over runs, and its degrees of freedom; None for a run of each."""
    if len(a) == len(b) == 1:
        return None
    if paired:
        return _over_runs(a - b)
    if min(len(a), len(b)) == 1:  # equal spreads: the t test of a sample and a single value
        several = max((a, b), key=len)
        return float(several.var(ddof=1)) * (1 + 1 / len(several)), len(several) - 1.0
    one, other = _over_runs(a), _over_runs(b)
    both = one[0] + other[0]
    squares = one[0] ** 2 / one[1] + other[0] ** 2 / other[1]
    return both, both**2 / squares if squares > 0 else one[1] + other[1]


def _interaction(x: NDArray[np.float64], group: ArrayLike | None) -> float:
    """The estimate of var e / (R N): the variance of the mean of the effects of seed and datum, (R, N)."""
    runs = len(x)
    if runs < 2:
        return 0.0
    rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    each = sum((standard_error(row, group) or 0.0) ** 2 for row in rest)  # the rows of `rest` have the mean 0
    return each / (runs * (runs - 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number (Holm 1979): at most 5% of such families have one at or below 0.05 by chance.

    Unknown ones (None) stay unknown and do not count.
    """
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = highest
    return adjusted

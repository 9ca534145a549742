"""Significance tests and the sentences that report them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaekit.utils.uncertainty import f_quantile, standard_error, t_quantile, units

LEVEL = 0.05
"""The probability that a page without any real difference makes at least one claim (familywise error rate)."""


class Estimate(NamedTuple):
    """A mean with its standard error. An error of nan is unknown, and then no difference is significant.

    Attributes:
        value: the mean.
        se: its standard error.
        degrees: degrees of freedom of the error: the number of independent units (examples, groups, seeds) minus one.
        slack: the resolution of the mean, if its values are integers (counts, hits).
    """

    value: float
    se: float = math.nan
    degrees: float = math.inf
    slack: float = 0.0

    def text(self, digits: int | None = None) -> str:
        """`12.3 ± 0.4` with two digits of the error, or the value alone if the error is unknown or 0."""
        if not math.isfinite(self.se) or self.se == 0:
            return number(self.value, digits)
        decimals = digits if digits is not None else max(0, min(4, 1 - math.floor(math.log10(self.se))))
        return f"{self.value:.{decimals}f} ± {self.se:.{decimals}f}".replace("-", "−")

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The confidence interval of the mean at confidence 1 - level, by Student's t."""
        if not math.isfinite(self.se):
            return -math.inf, math.inf
        if self.se == 0 and 2 * 0.5 ** (self.degrees + 1) > level:  # few equal values may be chance (sign test)
            return -math.inf, math.inf
        reach = self.slack + (t_quantile(level, self.degrees) * self.se if self.se > 0 else 0.0)
        return self.value - reach, self.value + reach


def estimate(values: ArrayLike, group: ArrayLike | None = None, step: float = 0.0) -> Estimate:
    """The mean of independent values (N,), such as one per seed or per example, with its standard error.

    Arguments:
        values: (N,).
        group: (N,), the group of each value, where values within a group are dependent.
        step: the unit of which all values are multiples (1 for counts and hits). The mean of n such values has a
            resolution of step / n, which is added to the error and to the interval.
    """
    x = np.asarray(values, float).ravel()
    se, n = standard_error(x, group), units(len(x), group)
    error = math.nan if se is None else math.hypot(se, step / n)
    return Estimate(float(x.mean()), error, n - 1, step / n)


def number(value: float, digits: int | None = None) -> str:
    """A number as text: three significant digits, or as many decimals as `digits` says."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if digits is None:
        digits = 0 if value == 0 else max(0, min(4, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}".replace("-", "−")


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b for independent estimates, with the degrees of freedom of Welch and Satterthwaite."""
    square = a.se**2 + b.se**2
    parts = sum(e.se**4 / e.degrees for e in (a, b) if e.degrees > 0 and math.isfinite(e.degrees))
    degrees = square**2 / parts if parts > 0 else min(a.degrees, b.degrees)
    return Estimate(a.value - b.value, math.sqrt(square), degrees, a.slack + b.slack)


def paired(a: ArrayLike, b: ArrayLike, group: ArrayLike | None = None, step: float = 0.0) -> Estimate:
    """The mean of a - b over pairs (N,), with its standard error; `group` and `step` as in `estimate`."""
    return estimate(np.asarray(a, float) - np.asarray(b, float), group, step)


def direction(mean: Estimate, level: float = LEVEL) -> int:
    """1 if the mean is significantly above 0, -1 if it is significantly below 0, else 0."""
    low, high = mean.interval(level)
    return 1 if low > 0 else -1 if high < 0 else 0


def ratio(
    a: ArrayLike, b: ArrayLike, group: ArrayLike | None = None, level: float = LEVEL
) -> tuple[float, float, float]:
    """mean a / mean b over pairs (N,), with its confidence interval (Fieller 1954).

    The interval contains each ratio r for which the mean of a - r b is not significantly different from 0. It is
    unbounded if the mean of b is not significantly different from 0.

    Returns:
        the ratio and the ends of its interval at confidence 1 - level.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    mean = (float(x.mean()), float(y.mean()))
    value = mean[0] / mean[1] if mean[1] else math.nan
    both, each = (standard_error(v, group) for v in (x + y, y))
    first = standard_error(x, group)
    if first is None or both is None or each is None or not mean[1]:
        return value, -math.inf, math.inf
    square = t_quantile(level, units(len(x), group) - 1) ** 2
    shared = (both**2 - first**2 - each**2) / 2
    # mean_a^2 - 2 r mean_a mean_b + r^2 mean_b^2 = t^2 (var_a - 2 r cov + r^2 var_b)
    top, middle, bottom = mean[1] ** 2 - square * each**2, mean[0] * mean[1] - square * shared, mean[0] ** 2
    bottom -= square * first**2
    inside = middle**2 - top * bottom
    if top <= 0 or inside < 0:
        return value, -math.inf, math.inf
    return value, (middle - math.sqrt(inside)) / top, (middle + math.sqrt(inside)) / top


def spread_ratio(a: float, b: float, seeds: int, level: float = LEVEL) -> tuple[float, float, float]:
    """a / b of two standard deviations over `seeds` seeds each, with the ends of its interval by Fisher's F."""
    if not b > 0:
        return math.nan, 0.0, math.inf
    reach = math.sqrt(f_quantile(level / 2, seeds - 1, seeds - 1))
    return a / b, a / b / reach, a / b * reach


def side_of(low: float, high: float, line: float = 1.0) -> int:
    """1 if an interval lies above `line`, -1 if it lies below, 0 if it contains `line`."""
    return 1 if low > line else -1 if high < line else 0


def between(low: float, high: float, level: float = LEVEL) -> str:
    """A confidence interval as text."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unbounded interval"
    return f"{100 * (1 - level):.4g}% interval {number(low)} to {number(high)}"


def choose(sign: int, more: str, less: str, same: str) -> str:
    """The text for a significantly larger (1), significantly smaller (-1) or not significantly different value (0)."""
    return {1: more, -1: less, 0: same}[sign]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`; `none` for no names."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def trend(steps: Sequence[Estimate], level: float = LEVEL) -> int:
    """1 if every step is significantly positive, -1 if every step is significantly negative, else 0.

    Each step is tested at `level`: all of them have the same sign by chance less often than a single one does.
    """
    signs = {direction(step, level) for step in steps}
    return signs.pop() if len(signs) == 1 else 0


def highest(
    values: dict[str, np.ndarray], group: ArrayLike | None = None, level: float = LEVEL
) -> tuple[str, list[str]]:
    """The name of the largest mean over pairs (N,), and the names whose means are not significantly lower.

    Every two names are compared, each pair at its share of `level` (Bonferroni).
    """
    best = max(values, key=lambda name: float(np.mean(values[name])))
    share = level / max(1, len(values) * (len(values) - 1) // 2)
    return best, [
        name for name in values if name != best and direction(paired(values[best], values[name], group), share) <= 0
    ]

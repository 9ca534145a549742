"""Uncertainty of measured numbers: standard errors by datum or by group, quantiles, areas under ROC curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from .formerly import formerly

Array = NDArray[Any]
FEW = 20
"""With fewer groups than this, a normal interval of two standard errors is at least 10% too short."""


def standard_error(values: ArrayLike, group: ArrayLike | None = None) -> float | None:
    r"""Standard error of the mean of values (N,).

    Without `group` the values are independent; with `group` (N,) only values of different groups are, and the result
    is the sandwich estimate sqrt(G / (G - 1) sum_g (sum_{i in g} (v_i - mean))^2) / N of Liang and Zeger (1986) with
    the factor G / (G - 1) for G groups. For groups of one datum this is the usual standard error; for groups of equal
    size it is the standard error of the mean of the group means. None for a single value or group.

    Raises:
        ChoiceError: `group` has another length than `values`.
    """
    x = np.asarray(values, np.float64)
    if group is None:
        return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else None
    codes = _codes(group, len(x))
    count = int(codes.max(initial=-1)) + 1
    if count < 2:
        return None
    sums = np.bincount(codes, x - x.mean(), count)
    return float(math.sqrt(count / (count - 1) * (sums @ sums)) / len(x))


def units(n: int, group: ArrayLike | None = None) -> int:
    """The number of independent units among n data: n, or the number of groups."""
    return n if group is None else len(np.unique(np.asarray(group)))


def _codes(group: ArrayLike, n: int) -> NDArray[np.int64]:
    codes = np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    if len(codes) != n:
        raise ChoiceError(f"group must have one value for each of {n} values, got {len(codes)}")
    return codes


def t_quantile(level: float, degrees: float) -> float:
    """The two-sided quantile of Student's t: |t| exceeds it with probability `level`."""
    if degrees == math.inf:  # without scipy, which takes a tenth of a second to import
        return NormalDist().inv_cdf(1 - level / 2)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - level / 2)) if degrees > 0 else math.inf


def f_quantile(level: float, above: int, below: int) -> float:
    """The upper quantile of F with `above` and `below` degrees of freedom: F exceeds it with probability `level`."""
    from scipy.special import fdtri

    return float(fdtri(above, below, 1 - level)) if above > 0 and below > 0 else math.inf


class Area(NamedTuple):
    """An area under a ROC curve with its standard error and an interval."""

    value: float
    se: float
    low: float
    high: float


@formerly("level")
def area(
    inside: ArrayLike,
    out: ArrayLike,
    inside_group: ArrayLike | None = None,
    out_group: ArrayLike | None = None,
    *,
    level: float = 0.05,
) -> Area:
    """The area under the ROC curve: the chance that a value of `inside` (N,) exceeds one of `out` (M,).

    Ties count half.

    The variance is by DeLong et al. (1988), with groups by Obuchowski (1997), whose groups may hold values of both
    kinds, such as an image and its altered copy. The interval uses Student's t on the log-odds. If all or none of the
    pairs are in order, it is the Clopper-Pearson interval (1934) for as many pairs as the smaller kind has units.

    Arguments:
        inside_group, out_group: codes of independent units, shared by both kinds; by default each value is a unit.
        level: the probability that the interval misses the true area.

    Raises:
        ChoiceError: a kind has no values, or groups and values differ in number.
    """
    x, y = np.asarray(inside, np.float64), np.asarray(out, np.float64)
    if not len(x) or not len(y):
        raise ChoiceError(f"an area needs values of both kinds, got {len(x)} and {len(y)}")
    over_x = _above(x, y)  # for each of inside, the share of out below it
    over_y = 1 - _above(y, x)
    theta = float(over_x.mean())
    if inside_group is None and out_group is None:
        codes = np.arange(len(x) + len(y))
    else:
        a = np.arange(len(x)) if inside_group is None else np.asarray(inside_group)
        b = np.arange(len(y)) if out_group is None else np.asarray(out_group)
        if len(a) != len(x) or len(b) != len(y):
            raise ChoiceError(f"groups of {len(x)} and {len(y)} values are needed, got {len(a)} and {len(b)}")
        codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1].ravel()
    count = int(codes.max()) + 1
    sums = [
        np.bincount(c, v - theta, count) / len(v) for c, v in ((codes[: len(x)], over_x), (codes[len(x) :], over_y))
    ]
    kinds = [len(np.unique(c)) for c in (codes[: len(x)], codes[len(x) :])]  # units of each kind
    factors = [k / (k - 1) if k > 1 else math.inf for k in kinds]
    square = sum(f * float(s @ s) for f, s in zip(factors, sums, strict=True))
    square += 2 * count / max(count - 1, 1) * float(sums[0] @ sums[1])
    se, fewest = math.sqrt(max(square, 0.0)), min(kinds)
    return Area(
        theta, se if math.isfinite(se) else math.nan, *odds_interval(theta, se, fewest - 1, fewest, level=level)
    )


def odds_interval(share: float, se: float, degrees: float, units: int, *, level: float = 0.05) -> tuple[float, float]:
    """An interval of a share: Student's t on the log-odds, within 0 and 1; all of it if the error is unknown.

    For a share of 0 or 1 it is the Clopper-Pearson interval (1934) of as many independent units.
    """
    if share in (0.0, 1.0):
        reach = 1 - (level / 2) ** (1 / units)
        return max(0.0, share - reach), min(1.0, share + reach)
    if not math.isfinite(se):
        return 0.0, 1.0
    width = t_quantile(level, degrees) * se / (share * (1 - share))
    odds = math.log(share / (1 - share))
    low, high = (float(1 / (1 + np.exp(-np.clip(odds + w, -700, 700)))) for w in (-width, width))
    return low, high


def _above(x: Array, y: Array) -> Array:
    """For each value of x, the share of y below it; ties count half."""
    ordered = np.sort(y)
    return (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")) / (2 * len(y))


@formerly("seed")
def resampled(n: int, group: ArrayLike | None, draws: int, *, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Row numbers of bootstrap samples of n rows, about n each; with `group`, whole groups are drawn."""
    rng = np.random.default_rng(seed)
    if group is None:
        yield from (rng.integers(n, size=n) for _ in range(draws))
        return
    codes = np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    members = [np.flatnonzero(codes == g) for g in range(codes.max() + 1)]
    for _ in range(draws):
        yield np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])

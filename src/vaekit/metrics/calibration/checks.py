"""Predictive checks: statistics of held-out data against those of draws of the model, given the same conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaekit.errors import ChoiceError
from vaekit.metrics.measurement import Array, Measurement, codes_like, like_data, shared
from vaekit.metrics.needs import COMPLETE, NUMERIC, SEVERAL
from vaekit.metrics.registry import Part, Result, metric
from vaekit.utils.uncertainty import standard_error, t_quantile, units

from .matched import PERMUTATIONS, permutation_p

FEWEST, MOST = 1000, 10_000
"""The smallest number of draws of the model, and the largest of held-out data."""
NUMBERS = 20_000_000
"""The maximum number of values of x of held-out data, and of draws."""
LEVEL = 0.05
"""The chance that a model whose data are like held-out data has any significant difference."""
RARE = 10
"""An element is not judged if fewer rows than this have another value than most; by group, fewer groups."""


@dataclass(frozen=True)
class Check:
    """The mean of one statistic of rows: of replicated rows minus that of held-out rows, with its error.

    Attributes:
        difference: in units of the standard deviation of the statistic over held-out rows; without one, of x.
        se: its standard error, by group where held-out data have groups.
        degrees: of freedom of the error (Welch and Satterthwaite).
        p: two-sided p-value, corrected for the number of statistics: by permutations (`permutation_p`), or of
            Student's t and Holm's method where held-out data have groups.
    """

    difference: float
    se: float
    degrees: float
    p: float


class Elements(NamedTuple):
    """Corrected p-values of the mean and the variance of each element, (2, D), and which were judged, (2, D)."""

    p: Array
    judged: Array


def holm(p: ArrayLike) -> Array:
    """p-values (K,) corrected for their number by the step-down method of Holm (1979), (K,)."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _check(held: Array, drawn: Array, group: ArrayLike | None, scale: float) -> Check:
    """The check of one statistic, one number per row; p is that of Student's t, not corrected.

    The squared error is the largest of that by group and those of independent rows with two variances or one: a
    statistic that is constant over the rows of one kind, such as that of a rare pixel, has the variance of the other.
    """
    from scipy.special import stdtr

    a, b = standard_error(held, group), standard_error(drawn)
    if a is None or b is None:
        raise ChoiceError("predictive checks need two rows or groups or more")
    n, m = len(held), len(drawn)
    a = max(a, standard_error(held) or 0.0)
    pooled = (n * (n - 1) * (standard_error(held) or 0.0) ** 2 + m * (m - 1) * b**2) / (n + m - 2)
    difference, square = float(drawn.mean() - held.mean()), max(a**2 + b**2, pooled * (1 / n + 1 / m))
    if square == 0:
        return Check(difference / scale, 0.0, math.inf, float(difference == 0))
    below = a**4 / (units(n, group) - 1) + b**4 / (m - 1)
    degrees, t = (a**2 + b**2) ** 2 / below, difference / math.sqrt(square)
    return Check(difference / scale, math.sqrt(square) / scale, degrees, float(2 * stdtr(degrees, -abs(t))))


def compare_rows(held: Array, drawn: Array, group: ArrayLike | None = None, *, seed: int = 0) -> dict[str, Check]:
    """Checks of what rows are like as a whole: their mean, variance, share of zeros, lowest and highest value.

    Arguments:
        held: (n, D) held-out rows.
        drawn: (M, D) rows of the model, M at least n; row j is matched with the held-out row j n // M, whose condition
            it has.
        group: (n,) groups of held-out rows, within which rows depend on each other.
        seed: of the permutations.
    """
    statistics = {
        "mean": lambda x: x.mean(1),
        "variance": lambda x: x.var(1),
        "zeros": lambda x: (x == 0).mean(1),
        "lowest": lambda x: x.min(1),
        "highest": lambda x: x.max(1),
    }
    if held.shape[1] == 1:  # of one number, mean, lowest and highest are equal
        statistics = {name: statistics[name] for name in ("mean", "zeros")}
    spread = float(held.std()) or 1.0
    of_held, of_drawn = (
        np.stack([np.asarray(statistic(x), float) for statistic in statistics.values()], 1) for x in (held, drawn)
    )
    checks = [_check(a, b, group, float(a.std()) or spread) for a, b in zip(of_held.T, of_drawn.T, strict=True)]
    if group is None:
        tested = np.stack([_spread(of_held, of_drawn), np.zeros(len(checks), bool)])
        p = permutation_p(of_held, of_drawn, tested, seed=seed)[0]
    else:
        p = holm([check.p for check in checks])
    return {name: replace(check, p=float(q)) for name, check, q in zip(statistics, checks, p, strict=True)}


def _spread(held: Array, drawn: Array) -> Array:
    """Whether the columns of both have two values or more, (D,)."""
    return (np.minimum(held.min(0), drawn.min(0)) < np.maximum(held.max(0), drawn.max(0))) & (
        np.concatenate([held, drawn]).std(0, dtype=np.float64) > 0
    )


def _judged(held: Array, drawn: Array, group: ArrayLike | None) -> Array:
    """Which means and variances of elements are judged, (2, D).

    The variance of an element of two values follows from its mean.
    """
    usual = np.median(np.concatenate([held, drawn]), axis=0)  # a value that most rows have, if there is one
    other = [held != usual, drawn != usual]
    if group is None:
        often = other[0].sum(0) + other[1].sum(0) >= min(RARE, len(held))
    else:
        codes = np.unique(np.asarray(group), return_inverse=True)[1].ravel()
        groups = np.zeros((codes.max() + 1, held.shape[1]), bool)
        np.logical_or.at(groups, codes, other[0])
        often = np.maximum(groups.sum(0), other[1].mean(0) * len(groups)) >= min(RARE, len(groups))
    often &= _spread(held, drawn)
    low, high = np.minimum(held.min(0), drawn.min(0)), np.maximum(held.max(0), drawn.max(0))
    two_valued = np.logical_and.reduce([((x == low) | (x == high)).all(0) for x in (held, drawn)])
    return np.stack([often, often & ~two_valued])


def compare_dimensions(held: Array, drawn: Array, group: ArrayLike | None = None, *, seed: int = 0) -> Elements:
    """Checks of the mean and the variance of each of the D elements, over rows as in `compare_rows`.

    Elements of rare values (`RARE`) are not judged.
    """
    judged = _judged(held, drawn, group)
    if group is None:
        return Elements(permutation_p(held, drawn, judged, seed=seed), judged)
    p = np.ones(judged.shape)
    for j in np.flatnonzero(judged[0]):
        a, b = held[:, j].astype(float), drawn[:, j].astype(float)
        p[0, j] = _check(a, b, group, 1.0).p
        if judged[1, j]:
            of_held, of_drawn = ((x - x.mean()) ** 2 * (len(x) / (len(x) - 1)) for x in (a, b))
            p[1, j] = _check(of_held, of_drawn, group, 1.0).p
    p[judged] = holm(p[judged])
    return Elements(p, judged)


@shared
def rows_of_both(m: Measurement) -> tuple[Array, Array]:
    """Held-out rows (n, D) and rows of the model (M, D), both as the model observes them, in the data's own units.

    M is a multiple of n: each held-out row is matched with as many draws, which have its condition.
    """
    dims = m.run.spec.dims
    most = max(100, NUMBERS // dims)
    n = min(m.n, most, MOST)
    rows = np.arange(n)
    observation = m.run.composition.observation
    blocks = np.array_split(rows, max(1, n // 500))
    held = [observation.to_raw(m.observed(b)).numpy() if observation.stochastic else m.observed.raw(b) for b in blocks]
    each = max(1, min(-(-FEWEST // n), most // n))
    drawn = m.run.new_rows(codes_like(m, np.repeat(rows, each)), noise=True, seed=m.seed)
    return np.concatenate(held).reshape(n, -1), np.asarray(drawn).reshape(n * each, -1)


def _groups(m: Measurement) -> Array | None:
    groups = m.groups
    return None if groups is None else groups[: len(rows_of_both(m)[0])]


@shared
def row_checks(m: Measurement) -> dict[str, Check]:
    """The checks of `compare_rows`."""
    return compare_rows(*rows_of_both(m), _groups(m), seed=m.seed)


def _how(m: Measurement) -> str:
    held, drawn = rows_of_both(m)
    return f"{len(drawn):,} draws of p(x|z), z from the prior{like_data(m)}, against {len(held):,} data"


def _corrected(m: Measurement) -> str:
    return f"by {PERMUTATIONS} permutations" if m.groups is None else "by group, with Holm's correction"


@metric("ppc_p", "p-value", needs=[SEVERAL, NUMERIC, COMPLETE], label="Data are like the model's", per_datum=False)
def ppc_p(m: Measurement) -> Result:
    """p-value that held-out data and draws of the model have equal means of five statistics of rows, corrected."""
    checks = row_checks(m)
    each = {name: Part(check.p) for name, check in checks.items()}
    how = f"smallest of {len(each)} corrected p-values, {_corrected(m)}; {_how(m)}"
    return Result(how, value=min(check.p for check in checks.values()), each=each)


@metric(
    "ppc_difference",
    "standard deviations",
    needs=[SEVERAL, NUMERIC, COMPLETE],
    better="lower",
    label="Difference from data",
    per_datum=False,
)
def ppc_difference(m: Measurement) -> Result:
    """Largest difference between draws of the model and held-out data in the means of five statistics of rows."""
    checks = row_checks(m)
    each = {}
    for name, check in checks.items():
        reach = t_quantile(LEVEL / len(checks), check.degrees) * check.se
        each[name] = Part(check.difference, check.se, check.difference - reach, check.difference + reach)
    largest = max(checks.values(), key=lambda check: abs(check.difference))
    how = f"draws minus data, in standard deviations of the data's rows; {_how(m)}"
    return Result(how, value=abs(largest.difference), se=largest.se, each=each)


@metric(
    "ppc_dimensions",
    "of means and variances",
    needs=[SEVERAL, NUMERIC, COMPLETE],
    better="lower",
    label="Elements that differ from data",
    per_datum=False,
)
def ppc_dimensions(m: Measurement) -> Result:
    """Share of the means and variances of single elements in which draws of the model differ from held-out data."""
    found = compare_dimensions(*rows_of_both(m), _groups(m), seed=m.seed)
    different = found.p < LEVEL
    names = {"mean": 0, "variance": 1} if found.judged[1].any() else {"mean": 0}
    each = {name: Part(float(different[i].mean())) for name, i in names.items()}
    left = int((~found.judged[0]).sum())
    rare = f" ({left:,} of {found.p.shape[1]:,} elements are constant or of rare values: not judged)" if left else ""
    how = f"significant at {LEVEL:.0%}, {_corrected(m)}{rare}; {_how(m)}"
    return Result(how, value=float(different[list(names.values())].mean()), each=each)

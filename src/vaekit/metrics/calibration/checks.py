"""Predictive checks: statistics of held-out data against those of draws of the model."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaekit.errors import ChoiceError
from vaekit.metrics.measurement import Array, Measurement, shared
from vaekit.metrics.needs import COMPLETE, NUMERIC, SEVERAL
from vaekit.metrics.registry import Part, Result, metric
from vaekit.utils.uncertainty import standard_error, t_quantile, units

FEWEST, MOST = 1000, 5000
"""The smallest and the largest number of draws of the model; between them, as many as held-out data."""
NUMBERS = 20_000_000
"""The maximum number of values of x of held-out data, and of draws."""
LEVEL = 0.05
"""The chance that a model whose data are like held-out data has any significant difference."""


class Check(NamedTuple):
    """The mean of one statistic of rows: of replicated rows minus that of held-out rows, with its error.

    Attributes:
        difference: in units of the standard deviation of the statistic over held-out rows; without one, of x.
        se: its standard error, by group where held-out data have groups.
        degrees: of freedom of the error (Welch and Satterthwaite).
        p: two-sided p-value of Student's t, not corrected.
    """

    difference: float
    se: float
    degrees: float
    p: float


def holm(p: ArrayLike) -> Array:
    """p-values (K,) corrected for their number by the step-down method of Holm (1979), (K,)."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _check(held: Array, drawn: Array, group: ArrayLike | None, scale: float) -> Check:
    """The check of one statistic, one number per row."""
    from scipy.special import stdtr

    a, b = standard_error(held, group), standard_error(drawn)
    if a is None or b is None:
        raise ChoiceError("predictive checks need two rows or groups or more")
    difference, square = float(drawn.mean() - held.mean()), a**2 + b**2
    if square == 0:
        return Check(difference / scale, 0.0, math.inf, float(difference == 0))
    below = a**4 / (units(len(held), group) - 1) + b**4 / (len(drawn) - 1)
    degrees, t = square**2 / below, difference / math.sqrt(square)
    return Check(difference / scale, math.sqrt(square) / scale, degrees, float(2 * stdtr(degrees, -abs(t))))


def compare_rows(held: Array, drawn: Array, group: ArrayLike | None = None) -> dict[str, Check]:
    """Checks of what rows are like as a whole: their mean, variance, share of zeros, lowest and highest value.

    Arguments:
        held: (n, D) held-out rows.
        drawn: (M, D) rows of the model.
        group: (n,) groups of held-out rows, within which rows depend on each other.
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
    checks = {}
    for name, statistic in statistics.items():
        a, b = np.asarray(statistic(held), float), np.asarray(statistic(drawn), float)
        checks[name] = _check(a, b, group, float(a.std()) or spread)
    return checks


def compare_dimensions(held: Array, drawn: Array, group: ArrayLike | None = None) -> dict[str, list[Check]]:
    """Checks of the `mean` and the `variance` of each of the D elements, over rows as in `compare_rows`."""
    found: dict[str, list[Check]] = {"mean": [], "variance": []}
    for a, b in zip(held.T, drawn.T, strict=True):
        a, b = a.astype(float), b.astype(float)
        centre, spread = float(a.mean()), float(a.std()) or 1.0
        found["mean"].append(_check(a, b, group, spread))
        found["variance"].append(_check((a - centre) ** 2, (b - centre) ** 2, group, spread**2))
    return found


@shared
def rows_of_both(m: Measurement) -> tuple[Array, Array]:
    """Held-out rows (n, D) and rows of the model (M, D), both as the model observes them, in the data's own units."""
    dims = m.run.spec.dims
    most = max(100, NUMBERS // dims)
    n = min(m.n, most)
    rows = np.arange(n)
    observation = m.run.composition.observation
    blocks = np.array_split(rows, max(1, n // 500))
    held = [observation.to_raw(m.observed(b)).numpy() if observation.stochastic else m.observed.raw(b) for b in blocks]
    size = min(max(n, FEWEST), MOST, most)
    drawn = m.run.new_rows(m.run.sample_latents(size, seed=m.seed), noise=True, seed=m.seed)
    return np.concatenate(held).reshape(n, -1), np.asarray(drawn).reshape(size, -1)


def _groups(m: Measurement) -> Array | None:
    groups = m.groups
    return None if groups is None else groups[: len(rows_of_both(m)[0])]


@shared
def row_checks(m: Measurement) -> dict[str, Check]:
    """The checks of `compare_rows`."""
    return compare_rows(*rows_of_both(m), _groups(m))


def _how(m: Measurement) -> str:
    held, drawn = rows_of_both(m)
    return f"{len(drawn):,} draws of p(x|z), z from the prior, against {len(held):,} data"


@metric("ppc_p", "p-value", needs=[SEVERAL, NUMERIC, COMPLETE], label="Data are like the model's", per_datum=False)
def ppc_p(m: Measurement) -> Result:
    """p-value that held-out data and draws of the model have equal means of five statistics of rows (Holm)."""
    checks = row_checks(m)
    corrected = holm([check.p for check in checks.values()])
    each = {name: Part(float(p)) for name, p in zip(checks, corrected, strict=True)}
    how = f"smallest of {len(each)} corrected p-values; {_how(m)}"
    return Result(how, value=float(corrected.min()), each=each)


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
    found = compare_dimensions(*rows_of_both(m), _groups(m))
    each = {}
    corrected = holm([check.p for checks in found.values() for check in checks]).reshape(len(found), -1)
    for name, p in zip(found, corrected, strict=True):
        each[name] = Part(float((p < LEVEL).mean()))
    how = f"significant at {LEVEL:.0%} after Holm's correction; {_how(m)}"
    return Result(how, value=float((corrected < LEVEL).mean()), each=each)

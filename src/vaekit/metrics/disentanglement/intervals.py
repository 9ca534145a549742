"""Errors of scores over the data: by drawing data, or whole groups of data, again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import resampled, t_quantile, units

from .information import Score

Array = NDArray[Any]
T = TypeVar("T")
DRAWS = 50
"""Bootstrap draws for the error of a score that takes milliseconds."""
SUBSAMPLES, ENOUGH = 12, 500
"""Subsamples for the error of a score that is learned from the data, and the units that are enough for one."""
LEVEL = 0.05
"""The intervals miss the score with this probability."""


class Draws(NamedTuple):
    """Row numbers of draws of the data, and the standard deviation of scores of all data per that of scores of draws.

    `degrees` are the degrees of freedom of the standard deviation, at most one less than the number of units; `kind`
    describes the draws.
    """

    rows: Sequence[NDArray[np.int64]]
    scale: float
    degrees: int
    kind: str


class Spread(NamedTuple):
    """Standard error and 95% interval of a score, and of the score of each factor: (F,); nan if unknown."""

    se: float
    low: float
    high: float
    each_se: Array
    each_low: Array
    each_high: Array


def varies(factors: Array, rows: NDArray[np.int64]) -> bool:
    """Whether every factor varies among these rows; otherwise scores are undefined."""
    return bool((factors[rows] != factors[rows[0]]).any(0).all())


def redrawn(factors: Array, group: ArrayLike | None, draws: int) -> list[NDArray[np.int64]]:
    """Bootstrap draws of rows in which every factor varies; the score of other draws is undefined."""
    drawn = resampled(len(factors), group, draws)
    return [rows for rows in drawn if varies(factors, rows)]


def bootstrap(factors: Array, group: ArrayLike | None = None, *, draws: int = DRAWS) -> Draws:
    """Bootstrap draws of data, or of whole groups."""
    rows = redrawn(factors, group, draws)
    what = "groups" if group is not None else "data"
    return Draws(rows, 1.0, min(len(rows), units(len(factors), group)) - 1, f"{len(rows)} bootstrap draws of {what}")


def subsamples(factors: Array, group: ArrayLike | None = None, *, draws: int = SUBSAMPLES, seed: int = 0) -> Draws:
    r"""Subsamples without replacement (Politis and Romano 1994): a tenth of the units, or 500, at most half of them.

    A unit is a datum, or a group. The variance of a score of m of G units drawn without replacement is about
    (G - m) / m times that of a score of G units, so its standard deviation is multiplied by sqrt(m / (G - m)). Unlike
    bootstrap draws, subsamples hold no datum twice, which a score that is learned and tested would take for success.
    """
    rng = np.random.default_rng(seed)
    n = len(factors)
    codes = np.arange(n) if group is None else np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    count = int(codes.max()) + 1
    taken = max(1, count // 10, min(count // 2, ENOUGH))
    rows = []
    for _ in range(draws if count > 1 else 0):
        some = np.zeros(count, bool)
        some[rng.choice(count, taken, replace=False)] = True
        rows.append(np.flatnonzero(some[codes]))
    rows = [r for r in rows if varies(factors, r)]
    scale = math.sqrt(taken / (count - taken)) if count > taken else math.nan
    what = "data" if group is None else "groups"
    kind = f"{len(rows)} subsamples of {taken:,} {what} without replacement"
    return Draws(rows, scale, min(len(rows), count) - 1, kind)


def repeated(score: Callable[[NDArray[np.int64]], T], draws: Draws) -> list[T]:
    """The scores of draws, computed from their row numbers; without the draws for which they are undefined."""
    found = []
    for rows in draws.rows:
        with contextlib.suppress(ChoiceError):  # undefined, for example because no value of a factor occurs twice
            found.append(score(rows))
    return found


def spread(
    found: Sequence[Score], draws: Draws, of_all: Score, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Spread | None:
    """The error of a score: the standard deviation of the scores of draws, and Student's t intervals within `bounds`.

    The interval is about the score of as many data as there are, whose bias (as of the information of few data) it
    does not include. None if the score is defined for fewer than two draws.

    Arguments:
        found: the scores of the draws: `repeated`.
        of_all: the score of all data.
        bounds: the lowest and highest possible score.
    """
    if len(found) < 2 or not math.isfinite(draws.scale):
        return None
    known = np.array([[one.value, *one.each] for one in found], float)
    finite = np.isfinite(known)
    counts = finite.sum(0)
    middle = np.where(finite, known, 0).sum(0) / np.maximum(counts, 1)
    square = np.where(finite, known - middle, 0) ** 2
    se = np.where(counts > 1, draws.scale * np.sqrt(square.sum(0) / np.maximum(counts - 1, 1)), np.nan)
    reach = t_quantile(LEVEL, min(draws.degrees, len(found) - 1)) * se
    centre = np.array([of_all.value, *of_all.each], float)
    low, high = np.maximum(centre - reach, bounds[0]), np.minimum(centre + reach, bounds[1])
    return Spread(float(se[0]), float(low[0]), float(high[0]), se[1:], low[1:], high[1:])

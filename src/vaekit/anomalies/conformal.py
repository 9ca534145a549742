"""Split-conformal p-values: how unusual a new row is among held-out rows, with a guarantee for any number of them.

The score of a row is a function that was fixed before the held-out rows were looked at. If a new row and the held-out
rows are exchangeable, the rank of its score among theirs is uniform, so that

    p = (1 + number of held-out rows that score at most as high) / (n + 1)

satisfies P(p <= a) <= a for every a, whatever the model and the distribution of the data (Vovk et al. 2005; Bates et
al. 2023, "Testing for outliers with conformal p-values"). Ties count against the row's being unusual. The probability
is over the held-out rows as well as the new row: for one set of n held-out rows, the share of new rows with p <= a
follows a beta distribution with the mean floor(a (n + 1)) / (n + 1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.data.core import counted
from vaekit.errors import ChoiceError

Array = NDArray[Any]
FALSE_ALARMS = 0.01
"""The default false-alarm rate."""
ROUNDING = 1e-9
"""Slack of comparisons with a rate, so that 0.05 x (99 + 1) counts as 5."""


def check_rate(rate: float) -> float:
    """The rate as a float. Raises ChoiceError unless it lies in (0, 1)."""
    if not 0 < rate < 1:
        raise ChoiceError(f"`false_alarms` must lie between 0 and 1, such as `false_alarms=0.01`, got {rate:g}")
    return float(rate)


def rows_needed(rate: float) -> int:
    """The number of held-out rows without which no row can be flagged at this rate: 1 / rate - 1."""
    return math.ceil(1 / rate - 1 - ROUNDING)


class HeldOutScores:
    """The scores of held-out rows; low scores are unusual.

    With groups, rows of one group depend on each other, but groups are exchangeable. Each group then has the weight 1,
    divided among its rows, and n is the number of groups: the p-value of a row of a new group remains valid (Lee,
    Barber and Willett 2023, hierarchical conformal prediction).

    Arguments:
        scores: (n,).
        group: (n,) the group of each row, or None.
    """

    def __init__(self, scores: ArrayLike, group: ArrayLike | None = None):
        self.scores = np.asarray(scores, np.float64)
        if not len(self.scores) or np.isnan(self.scores).any():
            raise ChoiceError("p-values need the scores of at least one held-out row, none of them NaN")
        codes = np.arange(len(self.scores)) if group is None else np.unique(group, return_inverse=True)[1].ravel()
        self.code, sizes = codes, np.bincount(codes)
        self.n, self.weight = len(sizes), 1 / sizes[codes]
        order = np.argsort(self.scores, kind="stable")
        self._sorted, self._below = self.scores[order], np.r_[0.0, np.cumsum(self.weight[order])]

    def at_most(self, scores: ArrayLike) -> Array:
        """The weight of the held-out rows that score at most as high as each of these."""
        return self._below[np.searchsorted(self._sorted, np.asarray(scores, np.float64), "right")]

    def p_values(self, scores: ArrayLike) -> Array:
        """The p-value of each new row, in [1 / (n + 1), 1]."""
        return (1 + self.at_most(scores)) / (self.n + 1)

    def own_p_values(self) -> Array:
        """The p-value of each held-out row among those of the other groups (or the other rows)."""
        order = np.lexsort((self.scores, self.code))
        code, score = self.code[order], self.scores[order]
        start = np.searchsorted(code, code)  # the first place of the row's group
        change = np.flatnonzero((code[1:] != code[:-1]) | (score[1:] != score[:-1])) + 1
        end = np.r_[change, len(order)][np.searchsorted(change, np.arange(len(order)), "right")]  # behind equal scores
        others = self.at_most(self.scores)
        others[order] -= (end - start) * self.weight[order]
        return (1 + others) / self.n

    def percentiles(self, scores: ArrayLike) -> Array:
        """The percentage of held-out rows that score higher than each of these: 100 for the most unusual."""
        return 100 * (self.n - self.at_most(scores)).clip(0) / self.n

    @property
    def smallest_rate(self) -> float:
        """The smallest false-alarm rate that these rows support, 1 / (n + 1)."""
        return 1 / (self.n + 1)

    def check_supports(self, rate: float) -> None:
        """Raise ChoiceError, with the number of rows that would be needed, if no row can be flagged at this rate."""
        if rate < self.smallest_rate - ROUNDING:
            raise ChoiceError(
                f"`false_alarms={rate:g}` needs {rows_needed(rate):,} held-out rows or more, and there "
                f"{'is' if self.n == 1 else 'are'} {self.n:,}: {counted(self.n, 'row')} can support a rate of "
                f"{self.smallest_rate:.2g} or more; hold out more rows (a larger `test` share when fitting), or give a "
                "higher rate"
            )

    def threshold(self, rate: float) -> float:
        """The score below which a row is flagged at this rate: p <= rate exactly for the lower scores.

        -inf if the held-out rows do not support the rate.
        """
        allowed = rate * (self.n + 1) - 1 + ROUNDING
        if allowed < 0:
            return -math.inf
        beyond = np.flatnonzero(self.at_most(self._sorted) > allowed)
        return float(self._sorted[beyond[0]]) if len(beyond) else math.inf

"""Whether samples are copies of training data: their nearest training datum against their nearest held-out datum.

Each sample has a nearest datum among the training and the held-out data. Let c be the number of samples that a datum is
nearest to. The *preference* compares its mean over training data with that over held-out data:

    preference = mean_train c / (mean_train c + mean_held-out c).

For as many training as held-out data it is the share of samples whose nearest datum is a training datum; in general it
is that share with the numbers of data taken out. It is 1 if all samples are copies.

If samples know nothing of which data were trained on, it is 0.5, however good or bad they are: both kinds of data are
then alike. This holds only if the distances do not know it either. In principal components or a network that were
fitted to the training data, these lie further out than held-out data, which hides copies (with 150 data in 100
dimensions, 0.25 instead of 0.5). `PlainValues` therefore treats both kinds alike.

Both kinds are alike only if the split was random, which later data, for example, are not. The judgement is therefore
the difference from the preference of validation data, which are copies of nothing: see `excess`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaekit.utils.uncertainty import odds_interval, standard_error

from .blocks import LEVEL, Estimate, ratio
from .nearest import nearest_of, slack

Array = NDArray[Any]
DIRECTIONS = 128
"""Data of more values than this are compared in as many random directions."""


class PlainValues:
    """Data (N, *event) as rows whose Euclidean distances say how near they are, whichever of them were trained on.

    Images and signals are compared by their raw values. Columns of tables and counts are divided by their standard
    deviation over `compared`, in which training and held-out data count alike. More than `DIRECTIONS` values are
    projected on as many random directions, which keeps a squared distance to within a factor 1 +- sqrt(2 / DIRECTIONS)
    (Johnson and Lindenstrauss 1984) and a copy a copy.

    Arguments:
        dims: the number of values of a datum.
        compared: gives the blocks of all data, of both kinds, that distances are measured to; None to leave values as
            they are.
        seed: of the directions.

    Attributes:
        text: how distances are measured, for protocols.
    """

    def __init__(self, dims: int, compared: Iterable[Array] | None = None, *, seed: int = 0):
        self.scale = np.ones(dims) if compared is None else _spread(compared)
        self.text = "raw values" if compared is None else "standardised values"
        self.axes: NDArray[np.float32] | None = None
        if dims > DIRECTIONS:
            axes = np.random.default_rng(seed).standard_normal((dims, DIRECTIONS), np.float32)
            self.axes = axes / np.float32(math.sqrt(DIRECTIONS))
            self.text += f" in {DIRECTIONS} random directions"

    def __call__(self, x: Array) -> NDArray[np.float32]:
        rows = (np.asarray(x).reshape(len(x), -1) / self.scale).astype(np.float32)
        return rows if self.axes is None else rows @ self.axes


def _spread(blocks: Iterable[Array]) -> Array:
    """The standard deviation of each value over the rows of all blocks; 1 for values that do not vary."""
    n, centre, first, second = 0, np.zeros(1), np.zeros(1), np.zeros(1)
    for block in blocks:
        rows = np.asarray(block, float).reshape(len(block), -1)
        centre = rows.mean(0) if n == 0 else centre
        n, first, second = n + len(rows), first + (rows - centre).sum(0), second + ((rows - centre) ** 2).sum(0)
    variance = second / n - (first / n) ** 2
    varies = variance > 1e-12 * second.max(initial=0.0) / n
    return np.sqrt(np.where(varies, variance, 1.0))


class NearestCounts(NamedTuple):
    """The number of samples that each training datum (n,) and each held-out datum (m,) is the nearest to."""

    train: Array
    held_out: Array


def counts(samples: Tensor, train: Tensor, held_out: Tensor) -> NearestCounts:
    """The counts of samples (N, D) at training data (n, D) and held-out data (m, D). Equal distances count half."""
    (to_train, first), (to_held_out, second) = nearest_of(samples, train), nearest_of(samples, held_out)
    apart = to_held_out - to_train
    wins = np.where(np.abs(apart) <= max(slack(train), slack(held_out)), 0.5, apart > 0)
    return NearestCounts(np.bincount(first, wins, len(train)), np.bincount(second, 1 - wins, len(held_out)))


def preference(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    *,
    train_group: ArrayLike | None = None,
    held_out_group: ArrayLike | None = None,
) -> Estimate:
    """The preference of samples (N, D) for training data (n, D) over held-out data (m, D), from 0 to 1.

    The error is that of the two means of c, over data or their groups; it includes that samples share their nearest
    data.
    """
    return preferred(counts(samples, train, held_out), train_group=train_group, held_out_group=held_out_group)


def preferred(
    c: NearestCounts, *, train_group: ArrayLike | None = None, held_out_group: ArrayLike | None = None
) -> Estimate:
    """The preference by the counts, with its error."""
    times = ratio(*c, a_group=train_group, b_group=held_out_group)
    if not 0 < times.value < math.inf:
        value = float(times.value > 0)
        distinct = int(((c.train if value else c.held_out) > 0).sum())
        ends = odds_interval(value, 0.0, distinct - 1, distinct, level=LEVEL)  # of the share of samples
        low, high = (share / (share + (1 - share) * len(c.train) / len(c.held_out)) for share in ends)
        return Estimate(value, 0.0, low, high)
    value, low, high = (x / (1 + x) for x in (times.value, times.low, times.high))
    return Estimate(value, times.se / (1 + times.value) ** 2, low, high)


def excess(
    c: NearestCounts,
    real: NearestCounts,
    *,
    train_group: ArrayLike | None = None,
    held_out_group: ArrayLike | None = None,
) -> Estimate:
    """The preference of samples minus that of real data in their place, with its error, paired by datum.

    A datum that is near to many samples is near to many real data, too, so that the two preferences are correlated, by
    r. The ends of the interval are combined from those of the two by the MOVER of Zou (2007),

        low = d - sqrt((p - low_p)^2 + (high_f - f)^2 - 2 r (p - low_p) (high_f - f)),

    which keeps their shape where a preference is 0 or 1.
    """
    p, f = (preferred(one, train_group=train_group, held_out_group=held_out_group) for one in (c, real))
    r = 0.0
    if p.se > 0 and f.se > 0:
        pairs = ((c.train, real.train, train_group), (c.held_out, real.held_out, held_out_group))
        parts = [_covariance(a / a.mean(), b / b.mean(), group) for a, b, group in pairs]
        odds = [one.se / (one.value * (1 - one.value)) for one in (p, f)]  # the standard errors of the log-odds
        r = min(1.0, max(-1.0, sum(parts) / (odds[0] * odds[1])))

    def joined(a: float, b: float) -> float:
        return math.sqrt(max(a * a + b * b - 2 * r * a * b, 0.0)) if math.isfinite(a + b) else math.nan

    apart = p.value - f.value
    low, high = joined(p.value - p.low, f.high - f.value), joined(p.high - p.value, f.value - f.low)
    return Estimate(apart, joined(p.se, f.se), apart - low, apart + high)


def _covariance(a: Array, b: Array, group: ArrayLike | None) -> float:
    """The covariance of the means of a and b (N,), by group."""
    above, below = standard_error(a + b, group), standard_error(a - b, group)
    return 0.0 if above is None or below is None else (above**2 - below**2) / 4

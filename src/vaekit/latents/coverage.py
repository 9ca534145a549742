"""How often the intervals of filled-in numbers hold the truth, and how often filled-in categories are right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaekit.errors import DataError
from vaekit.utils.progress import say
from vaekit.utils.uncertainty import standard_error

from .given import Infilled, fill_rows

if TYPE_CHECKING:
    from vaekit.runs.trained import TrainedModel

ROWS = 500
"""The maximum number of rows that are measured."""
LEAST = 0.1
"""The least distance of an interval's end from the best value that is widened, in standard deviations of the column."""


class Share(NamedTuple):
    """A share of n cells, and its standard error, for which the cells of a row are one unit; None for one row."""

    value: float
    se: float | None
    n: int


class Coverage(NamedTuple):
    """Shares of hidden cells of known rows: numbers inside their intervals, and categories that are right.

    None if no such cell was hidden.
    """

    numbers: Share | None
    categories: Share | None
    rows: int


class Stretch(NamedTuple):
    """The widening of intervals by which they hold the wanted share of held-out values.

    Beyond each end of an interval, (factor - 1) times its distance from the best value is added, or times `least` (D,)
    if that is larger.
    """

    factor: float
    least: np.ndarray

    def apply(self, run: TrainedModel, found: Infilled, beyond_range: bool = False) -> Infilled:
        """The filled-in rows with wider intervals, whose ends fit their columns."""
        low, high = found.low, found.high
        if low is None or high is None or self.factor == 1:
            return found
        more = self.factor - 1
        low = low - more * np.maximum(found.filled - low, self.least)
        high = high + more * np.maximum(high - found.filled, self.least)
        low, high = (run.as_rows(end, beyond_range=beyond_range) for end in (low, high))
        return found._replace(low=low, high=high)


def calibrated(run: TrainedModel, hidden: np.ndarray, *, interval: float = 0.95, seed: int = 0) -> Stretch:
    """The widening of intervals that makes them hold hidden cells of the run's own validation rows (split conformal).

    A model that was trained on few rows is too sure of itself. Intervals are never made narrower.

    Arguments:
        hidden, interval, seed: as for `coverage`.
    """
    known = _filled(run, "valid", hidden, interval, seed)
    least = np.ones(run.spec.dims)
    if known is None:
        return Stretch(1.0, least)
    found, truth, numbers = known
    spread = np.nanstd(run.observed("valid").raw(np.arange(min(run.observed("valid").n, ROWS))).astype(float), 0)
    least = LEAST * np.where(spread > 0, spread, 1)
    assert found.low is not None
    assert found.high is not None
    below = (found.low - truth) / np.maximum(found.filled - found.low, least)
    above = (truth - found.high) / np.maximum(found.high - found.filled, least)
    excess = np.sort(np.maximum(below, above)[numbers])
    rank = math.ceil((len(excess) + 1) * interval) - 1  # the finite-sample quantile of split conformal prediction
    if not len(excess):
        return Stretch(1.0, least)
    return Stretch(1 + max(0.0, float(excess[min(rank, len(excess) - 1)])), least)


def coverage(run: TrainedModel, hidden: np.ndarray, *, interval: float = 0.95, seed: int = 0) -> Coverage:
    """Hide cells of the run's own test rows, fill them in, and compare them with the truth.

    Arguments:
        hidden: bool (N, D), the gaps of the rows to fill; the same gaps are made in the test rows, in turn.
        interval: the probability of the intervals, which are `calibrated`.
        seed: seed of the draws.
    """
    known = _filled(run, "test", hidden, interval, seed)
    if known is None:
        return Coverage(None, None, 0)
    found, truth, numbers = known
    found = calibrated(run, hidden, interval=interval, seed=seed).apply(run, found)
    assert found.low is not None
    assert found.high is not None
    cells = np.isfinite(truth)
    slack = 1e-6 * (np.abs(truth) + np.abs(found.high - found.low))  # the ends have passed through float32
    inside = (found.low - slack <= truth) & (truth <= found.high + slack)
    return Coverage(_share(inside, numbers), _share(found.filled == truth, cells & ~numbers), int(cells.any(1).sum()))


def _filled(
    run: TrainedModel, split: str, hidden: np.ndarray, interval: float, seed: int
) -> tuple[Infilled, np.ndarray, np.ndarray] | None:
    """Rows of a split whose cells were hidden like those in `hidden`, the truth of these cells (nan elsewhere), and
    which of them are numbers; None if no cell was hidden."""
    observed = run.observed(split)
    rows = np.arange(min(observed.n, ROWS))
    truth = observed.raw(rows)
    gaps = hidden[hidden.any(1)]
    cells = gaps[rows % len(gaps)] & (truth == truth)
    if not cells.any():
        return None
    c, condition = observed.condition(rows), run.composition.condition
    labels = None if c is None or condition is None else condition.decoded(c.numpy())
    found = fill_rows(run, truth, cells, labels=labels, interval=interval, seed=seed)
    assert found.low is not None
    return found, np.where(cells, truth, np.nan), cells & (found.low == found.low)


def _share(right: np.ndarray, cells: np.ndarray) -> Share | None:
    if not cells.any():
        return None
    return Share(float(right[cells].mean()), standard_error(right[cells], np.nonzero(cells)[0]), int(cells.sum()))


def widened(
    run: TrainedModel, found: Infilled, hidden: np.ndarray, *, interval: float, beyond_range: bool, seed: int
) -> Infilled:
    """Filled-in rows with intervals that hold their share of hidden cells of validation rows, if that can be measured.

    Arguments:
        hidden: as for `fill_rows`.
        interval: probability of the interval.
        beyond_range: as for `Stretch.apply`.
        seed: seed of the samples.
    """
    try:
        stretch = calibrated(run, np.broadcast_to(hidden, found.filled.shape), interval=interval, seed=seed)
    except DataError as error:
        say(f"note: the intervals are those of the model, not widened with validation rows: {error}")
        return found
    return stretch.apply(run, found, beyond_range)

"""How often the intervals of filled-in numbers hold the truth, and how often filled-in categories are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaekit.utils.uncertainty import standard_error

from .given import fill_rows

if TYPE_CHECKING:
    from vaekit.runs.trained import TrainedModel

ROWS = 500
"""The maximum number of rows that are measured."""


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


def coverage(run: TrainedModel, hidden: np.ndarray, *, interval: float = 0.95, seed: int = 0) -> Coverage:
    """Hide cells of the run's own test rows, fill them in, and compare them with the truth.

    Arguments:
        hidden: bool (N, D), the gaps of the rows to fill; the same gaps are made in the test rows, in turn.
        interval: the probability of the intervals.
        seed: seed of the draws.
    """
    observed = run.observed("test")
    rows = np.arange(min(observed.n, ROWS))
    truth = observed.raw(rows)
    gaps = hidden[hidden.any(1)]
    cells = gaps[rows % len(gaps)] & (truth == truth)
    c, condition = observed.condition(rows), run.composition.condition
    labels = None if c is None or condition is None else condition.decoded(c.numpy())
    if not cells.any():
        return Coverage(None, None, 0)
    found = fill_rows(run, truth, cells, labels=labels, interval=interval, seed=seed)
    assert found.low is not None
    assert found.high is not None
    numbers = cells & (found.low == found.low)
    slack = 1e-6 * (np.abs(truth) + np.abs(found.high - found.low))  # the ends have passed through float32
    inside = (found.low - slack <= truth) & (truth <= found.high + slack)
    return Coverage(_share(inside, numbers), _share(found.filled == truth, cells & ~numbers), int(cells.any(1).sum()))


def _share(right: np.ndarray, cells: np.ndarray) -> Share | None:
    if not cells.any():
        return None
    return Share(float(right[cells].mean()), standard_error(right[cells], np.nonzero(cells)[0]), int(cells.sum()))

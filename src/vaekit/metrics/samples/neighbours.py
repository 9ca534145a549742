"""Precision, recall, density and coverage of samples by nearest neighbours, with errors.

A set is described by balls around its members, each as wide as the distance to its k-th nearest other member.

- Precision: the share of samples inside a ball of the data; recall: the share of data inside a ball of the samples
  (Kynkäänniemi et al. 2019, arXiv:1904.06991).
- Density: the number of balls of the data that a sample is in, over k, averaged; coverage: the share of the data whose
  ball holds a sample (Naeem et al. 2020, arXiv:2002.09797). A few unusual data with wide balls do not change them much.

All depend on the numbers of data and samples, so they are read beside those of real data of the same number.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import odds_interval, standard_error, t_quantile, units

from .blocks import LEVEL, Blocked, Estimate
from .nearest import Squares, chunks, radii, slack, squares

Array = NDArray[Any]
K = 5
"""The number of neighbours that make the radius of a ball, as in Naeem et al."""
PAIRS, FEWEST = 10, 30
"""The maximum number of blocks for the error, and the smallest number of rows of a block, beside which k is small."""


class Balls:
    """The balls of a set of features.

    Raises:
        ChoiceError: k is not below the number of rows.
    """

    def __init__(self, rows: Blocked, k: int = K):
        if not 1 <= k < len(rows):
            raise ChoiceError(f"`k` must lie in 1..{len(rows) - 1} (the number of other rows), got {k}")
        self.rows, self.k = rows, k
        self.radii = _widened(rows.x, k)


def _widened(x: Tensor, k: int) -> Squares:
    """The squared radii of balls, with the rounding of distances: copies are inside balls of radius 0."""
    return radii(x, k) + np.float32(slack(x))


class Neighbours(NamedTuple):
    """The four measures; each with its error."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def _measured(real: Tensor, of_real: Squares, samples: Tensor, of_samples: Squares, k: int) -> list[Array]:
    """What precision, recall, density and coverage are the means of, by the squared radii of data and of samples.

    That is, whether each sample (M,) and each datum (N,) is inside a ball of the other set, the number of balls that
    each sample is in over k (M,), and whether the ball of each datum holds a sample (N,).
    """
    balls, hit, covered = torch.zeros(len(samples)), torch.zeros(len(real), dtype=torch.bool), []
    wide, own = torch.from_numpy(of_samples), torch.from_numpy(of_real)
    for part in chunks(len(real), len(samples)):
        square = squares(real[part], samples)
        inside = square <= own[part, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        hit[part] = (square <= wide).any(1)
    return [one.double().numpy() for one in (balls > 0, hit, balls / k, torch.cat(covered))]


def neighbours(real: Balls, samples: Balls) -> Neighbours:
    r"""Precision, recall, density and coverage of samples, by the balls of data and of samples.

    Both sets are cut into the same number B of disjoint blocks. The measures of the B pairs of blocks are independent,
    and their variance over B is that of the measures of all rows: a neighbourhood involves few rows, so that the
    variance falls as one over their number, while the measures change little. (The jackknife, which counts each
    dependence of m rows m times, gives up to twice the standard error here.) The standard error is not below that of
    the mean over samples or data for given balls, by group.
    """
    data, drawn = real.rows, samples.rows
    items = _measured(data.x, real.radii, drawn.x, samples.radii, real.k)
    count = max(2, min(PAIRS, data.count, drawn.count, min(len(data), len(drawn)) // FEWEST))
    parts = []
    for b in range(count):
        x, y = (rows.x[torch.from_numpy(rows.code % count == b)] for rows in (data, drawn))
        if min(len(x), len(y)) > real.k:
            found = _measured(x, _widened(x, real.k), y, _widened(y, real.k), real.k)
            parts.append([one.mean() for one in found])
    errors = np.std(parts, axis=0, ddof=1) / math.sqrt(len(parts)) if len(parts) > 1 else np.full(4, math.nan)
    estimates = []
    for i, (each, error) in enumerate(zip(items, errors, strict=True)):
        rows = data if i % 2 else drawn
        value, se = float(each.mean()), float(np.maximum(error, _error(each, rows.group)))
        if i == 2:
            reach = t_quantile(LEVEL, len(parts) - 1) * se
            estimates.append(Estimate(value, se, max(0.0, value - reach), value + reach))
        else:
            ends = odds_interval(value, se, len(parts) - 1, units(len(rows), rows.group), level=LEVEL)
            estimates.append(Estimate(value, se, *ends))
    return Neighbours(*estimates)


def _error(values: Array, group: Array | None) -> float:
    found = standard_error(values, group)
    return math.nan if found is None else found

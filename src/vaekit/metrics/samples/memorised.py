"""Whether samples are copies of training data: their nearest training datum against their nearest held-out datum.

Each sample has a nearest datum among the training and the held-out data. Let c be the number of samples that a datum is
nearest to. The *preference* compares its mean over training data with that over held-out data:

    preference = mean_train c / (mean_train c + mean_held-out c).

For as many training as held-out data it is the share of samples whose nearest datum is a training datum; in general it
is that share with the numbers of data taken out. If samples know nothing of which data were trained on, it is 0.5,
however good or bad they are, because both kinds of data are then alike; it is 1 if all are copies. Distances are those
of raw values, not of a network that was trained on the same data, which would be nearer to them itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from vaekit.utils.uncertainty import odds_interval

from .blocks import LEVEL, Estimate, ratio
from .nearest import nearest_of, slack


def preference(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    *,
    train_group: ArrayLike | None = None,
    held_out_group: ArrayLike | None = None,
) -> Estimate:
    """The preference of samples (N, D) for training data (n, D) over held-out data (m, D), from 0 to 1.

    Equal distances count half. The error is that of the two means of c, over data or their groups; it includes that
    samples share their nearest data.
    """
    (to_train, first), (to_held_out, second) = nearest_of(samples, train), nearest_of(samples, held_out)
    apart = to_held_out - to_train
    wins = np.where(np.abs(apart) <= max(slack(train), slack(held_out)), 0.5, apart > 0)
    own = np.bincount(first, wins, len(train)), np.bincount(second, 1 - wins, len(held_out))
    times = ratio(*own, a_group=train_group, b_group=held_out_group)
    if not 0 < times.value < math.inf:
        value = float(times.value > 0)
        distinct = len(np.unique(first if value else second))
        ends = odds_interval(value, 0.0, distinct - 1, distinct, level=LEVEL)  # of the share of samples
        low, high = (share / (share + (1 - share) * len(train) / len(held_out)) for share in ends)
        return Estimate(value, 0.0, low, high)
    value, low, high = (x / (1 + x) for x in (times.value, times.low, times.high))
    return Estimate(value, times.se / (1 + times.value) ** 2, low, high)

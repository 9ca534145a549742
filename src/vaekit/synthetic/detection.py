"""How well a classifier tells synthetic rows from real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column
from vaekit.utils.uncertainty import Area, area

from .features import Features, boosted_trees

Array = NDArray[Any]
FOLDS = 5


def detectability(rows: Array, test: Array, columns: Sequence[Column], *, seed: int = 0) -> Area:
    """The cross-validated area under the ROC curve of boosted trees that tell rows (N, D) from test rows (M, D).

    Of the longer of the two, only as many rows as the shorter has are used. 1/2 means that the rows cannot be told
    from test rows, 1 that each is recognised.
    """
    n = min(len(rows), len(test))
    rng = np.random.default_rng(seed)
    a, b = (x[np.sort(rng.permutation(len(x))[:n])] for x in (rows, test))
    features = Features(columns, np.concatenate([a, b]))
    inputs = features.trees(np.concatenate([a, b]))
    one = rng.permutation(n) % FOLDS
    fold = np.concatenate([one, rng.permutation(n) % FOLDS])  # each fold has as many rows of either kind
    own = np.arange(2 * n) < n
    score = np.empty(2 * n)
    for f in range(min(FOLDS, n)):
        model = boosted_trees(False, n, features.sets, seed)
        inside = fold == f
        score[inside] = model.fit(inputs[~inside], own[~inside]).decision_function(inputs[inside])
    return area(score[own], score[~own])

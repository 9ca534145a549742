"""Train on synthetic rows, test on real ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column
from vaekit.utils.uncertainty import area, resampled

from .estimates import Estimate
from .features import Features, boosted_trees, is_number

Array = NDArray[Any]
DRAWS = 100
"""Bootstrap draws of test rows for the standard error of a difference."""
PARTS = 4
"""Disjoint parts of the real rows, whose models show how much the choice of training rows matters."""
TREES, LINEAR = MODELS = ("boosted trees", "linear")


@dataclass(frozen=True)
class Transfer:
    """How well a model predicts one column of real test rows, trained on real and on synthetic rows.

    Attributes:
        target: the predicted column.
        model: one of `MODELS`.
        score: "AUC" (averaged over classes, each against the others) or "R2".
        real, synthetic: the scores of the model trained on real and on as many synthetic rows.
        difference: synthetic minus real, paired by test row. Its standard error is over test and training rows.
        floor: the same difference between two sets of real rows, 0 on average, with its standard error over training
            rows.
    """

    target: str
    model: str
    score: str
    real: Estimate
    synthetic: Estimate
    difference: Estimate
    floor: Estimate


def transfer(
    synthetic: Array, train: Array, test: Array, columns: Sequence[Column], target: int, *, seed: int = 0
) -> list[Transfer]:
    """Train each of `MODELS` on real and on synthetic rows to predict a column of the test rows.

    The variance over training rows is that of the scores of `PARTS` models, trained on disjoint parts of the real rows,
    divided by `PARTS`: it is proportional to one over the number of rows.

    Arguments:
        synthetic, train: equally many synthetic and real rows (N, D).
        test: other real rows (M, D).
        columns: D columns.
        target: the number of the column to predict.
    """
    task = _Task(train, test, columns, target)
    parts = np.array_split(np.random.default_rng(seed).permutation(len(train)), PARTS)
    found = []
    for model in MODELS:
        predictions = [task.predicted(rows, model, seed) for rows in (synthetic, train)]
        draws = [None, *resampled(len(task.truth), None, DRAWS, seed=seed)]
        scores = np.array([[task.score(p, rows) for rows in draws] for p in predictions])  # (2, 1 + DRAWS)
        own, real = (Estimate.of_draws(one, high=1.0) for one in scores)
        of_parts = [task.score(task.predicted(train[rows], model, seed)) for rows in parts]
        by_training = float(np.std(of_parts, ddof=1)) * math.sqrt(2 / PARTS)  # of a difference of two sets of N rows
        by_test = Estimate.of_draws(scores[0] - scores[1])
        difference = Estimate.normal(by_test.value, math.hypot(by_test.se, by_training))
        floor = Estimate.normal(0.0, by_training)
        found.append(Transfer(columns[target].name, model, task.unit, real, own, difference, floor))
    return found


class _Task:
    """The prediction of one column of the test rows from the others."""

    def __init__(self, train: Array, test: Array, columns: Sequence[Column], target: int):
        self.target, self.others = target, [j for j in range(len(columns)) if j != target]
        self.regression = is_number(columns[target])
        self.features = Features([columns[j] for j in self.others], train[:, self.others])
        known = test[~np.isnan(test[:, target])]
        self.test, self.truth = known[:, self.others], known[:, target]
        self.classes = max(2, len(columns[target].categories))
        self.unit = "R2" if self.regression else "AUC"

    def predicted(self, rows: Array, model: str, seed: int) -> Array:
        """The predictions for the test rows of a model trained on `rows`: (M,) numbers, or (M, classes) chances."""
        known = rows[~np.isnan(rows[:, self.target])]
        y = known[:, self.target]
        if len(np.unique(y)) < 2:  # nothing to learn
            constant = float(y[0]) if len(y) else 0.0
            return np.full(len(self.test), constant) if self.regression else np.zeros((len(self.test), self.classes))
        inputs = self.features.trees if model == TREES else self.features.linear
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a linear model that has not converged predicts well enough
            fitted = self._model(model, len(y), seed).fit(inputs(known[:, self.others]), y)
        if self.regression:
            return fitted.predict(inputs(self.test))
        chances = np.zeros((len(self.test), self.classes))
        chances[:, fitted.classes_.astype(int)] = fitted.predict_proba(inputs(self.test))
        return chances

    def _model(self, model: str, n: int, seed: int) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge

        if model == TREES:
            return boosted_trees(self.regression, n, self.features.sets, seed)
        return Ridge() if self.regression else LogisticRegression(max_iter=200)

    def score(self, predictions: Array, rows: Array | None = None) -> float:
        """R2, or the area under the ROC curve averaged over the classes that occur in these test rows."""
        y, p = (self.truth, predictions) if rows is None else (self.truth[rows], predictions[rows])
        if self.regression:
            total = float(((y - y.mean()) ** 2).sum())
            return 1 - float(((y - p) ** 2).sum()) / total if total > 0 else 0.0
        present = [c for c in range(self.classes) if 0 < (y == c).sum() < len(y)]
        present = present[1:] if self.classes == 2 else present
        areas = [area(p[y == c, c], p[y != c, c]).value for c in present]
        return float(np.mean(areas)) if areas else 0.5

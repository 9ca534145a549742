"""How well a linear classifier of the whole code predicts the factors: explicitness and InfoE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from .information import Score
from .parts import Parts, parts, quietly, ranked

Array = NDArray[Any]
STEPS = 100
"""The maximum number of steps of the optimiser, as in the code of both papers."""


def areas(scores: Array, label: NDArray[np.int64]) -> Array:
    """The area under the ROC curve of each column of scores (N, K) for the class of its number, (K,).

    Ties count half; nan for a class that no datum, or every datum, has.
    """
    from scipy.stats import rankdata

    own = label[:, None] == np.arange(scores.shape[1])
    inside = own.sum(0)
    pairs = inside * (len(label) - inside)
    above = (rankdata(scores, axis=0) * own).sum(0) - inside * (inside + 1) / 2
    return np.divide(above, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


Judge = Callable[[Array, NDArray[np.int64]], float]
"""The score of probabilities (M, K) of each value for the true ones (M,); -1 for a value that was not learned."""


def explicitness(codes: Array, factors: Array, group: ArrayLike | None = None, *, seed: int = 0) -> Score:
    """The area under the ROC curve of a linear classifier of the whole code: the mean over values, then over factors.

    Ridgeway and Mozer (2018), as in disentanglement_lib: a logistic regression of standardised codes with an L2
    penalty of 1 learns each factor, and the areas of each value against the others are measured on other data. A code
    without information has 0.5. The matrix holds the classifier's weights: the norm over values, the largest being 1.

    Arguments:
        codes, factors: (N, D) and (N, F).
        group: groups of data, (N,): those of one group are not divided between learning and testing.
        seed: seed of the division into data to learn from and to test.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has too many values or a single one.
    """

    def mean_area(p: Array, label: NDArray[np.int64]) -> float:
        found = areas(p, label)
        return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan

    return _classified(parts(codes, factors, group, seed=seed), mean_area)


def info_e(codes: Array, factors: Array, group: ArrayLike | None = None, *, seed: int = 0) -> Score:
    """InfoE (Hsu et al. 2023): 1 - log loss of a linear classifier of the code / log K for K values: mean over factors.

    A logistic regression of standardised codes without a penalty, at most 100 steps, learns each factor, with classes
    weighted equally. Without a code it would predict each value with probability 1/K, so that its log loss is log K.
    For factors whose values are not equally frequent, log K exceeds the entropy, and a score above 0 does not yet mean
    that the code has information. As the paper defines it, but on other data than those learned from, which its
    authors' code does not separate: a classifier that is worse than none has a score below 0. Data whose value
    was not learned count as predicted with probability 1/K. The matrix is that of `explicitness`, for this classifier.

    Arguments:
        codes, factors, group, seed: as for `explicitness`.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has too many values or a single one.
    """

    def gained(p: Array, label: NDArray[np.int64]) -> float:
        own = np.where(label >= 0, np.take_along_axis(p, np.maximum(label, 0)[:, None], 1)[:, 0], 1 / p.shape[1])
        return float(1 + np.log(np.maximum(own, 1e-15)).mean() / math.log(p.shape[1]))

    return _classified(parts(codes, factors, group, seed=seed), gained, C=np.inf, class_weight="balanced")


def _classified(data: Parts, judge: Judge, **options: Any) -> Score:
    """The scores of a logistic regression of each factor with these options."""
    from sklearn.linear_model import LogisticRegression

    each, norms = [], []
    for k in range(data.v.shape[1]):
        _, label, new = ranked(data.v[:, k], data.v_test[:, k])
        with quietly():
            learned = LogisticRegression(max_iter=STEPS, **options).fit(data.z, label)
        p = learned.predict_proba(data.z_test)
        each.append(judge(p, new) if (new >= 0).any() else math.nan)
        norms.append(np.linalg.norm(learned.coef_, axis=0))
    if not np.isfinite(each).any():
        raise ChoiceError("no value of a factor is both learned and tested: more data are needed")
    top = np.max(norms, 1)
    matrix = np.divide(norms, top[:, None], out=np.zeros_like(norms), where=top[:, None] > 0).T
    return Score(float(np.nanmean(each)), np.array(each), matrix)

"""How well a linear classifier of the whole code predicts the factors: explicitness and InfoE."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from .information import Score
from .parts import parts, quietly, ranked

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
    from sklearn.linear_model import LogisticRegression

    data = parts(codes, factors, group, seed=seed)
    each, norms = [], []
    for k in range(data.v.shape[1]):
        _, label, new = ranked(data.v[:, k], data.v_test[:, k])
        with quietly():
            learned = LogisticRegression(max_iter=STEPS).fit(data.z, label)
        scores = learned.predict_proba(data.z_test)
        found = areas(scores, new)
        each.append(np.nanmean(found) if np.isfinite(found).any() else np.nan)
        norms.append(np.linalg.norm(learned.coef_, axis=0))
    return _scored(np.array(each), np.stack(norms, 1))


def info_e(codes: Array, factors: Array, group: ArrayLike | None = None, *, seed: int = 0) -> Score:
    """InfoE (Hsu et al. 2023): 1 - log loss of a linear classifier of the code / log loss without: mean over factors.

    A logistic regression of standardised codes without a penalty, at most 100 steps, learns each factor; without the
    code, it predicts the frequencies. As the paper defines it, for classes weighted equally, but on other data than
    those learned from: a classifier that is worse than no code has a score below 0.
    The matrix is that of `explicitness`, for this classifier.

    Arguments:
        codes, factors, group, seed: as for `explicitness`.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has too many values or a single one.
    """
    from sklearn.linear_model import LogisticRegression

    data = parts(codes, factors, group, seed=seed)
    each, norms = [], []
    for k in range(data.v.shape[1]):
        values, label, new = ranked(data.v[:, k], data.v_test[:, k])
        with quietly():
            learned = LogisticRegression(C=np.inf, max_iter=STEPS, class_weight="balanced").fit(data.z, label)
        known = new >= 0
        p = learned.predict_proba(data.z_test[known])[np.arange(known.sum()), new[known]]
        each.append(1 + np.log(np.maximum(p, 1e-15)).mean() / np.log(len(values)) if known.any() else np.nan)
        norms.append(np.linalg.norm(learned.coef_, axis=0))
    return _scored(np.array(each), np.stack(norms, 1))


def _scored(each: Array, norms: Array) -> Score:
    if not np.isfinite(each).any():
        raise ChoiceError("no value of a factor is both learned and tested: more data are needed")
    top = norms.max(0)
    matrix = np.divide(norms, top, out=np.zeros_like(norms), where=top > 0)
    return Score(float(np.nanmean(each)), each, matrix)

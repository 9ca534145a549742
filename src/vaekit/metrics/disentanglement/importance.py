"""DCI, disentanglement, completeness and informativeness: by boosted trees, the lasso, or mutual information (MED).

Each version has a matrix (D, F) of the importance of each latent for predicting each factor, and computes from it how
few factors each latent serves and how few latents serve each factor. Versions must not be mixed: their matrices differ.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from .information import BINS, Score, binned, check_several, checked, mutual_information
from .parts import Parts, parts, ranked
from .trees import BINS as TREE_BINS
from .trees import boosted

Array = NDArray[Any]
Predictor = Literal["trees", "lasso", "lib"]
PENALTY = 0.02
"""The penalty of the lasso on standardised codes and factors: that of the authors' code (cianeastwood/qedr)."""


class DCI(NamedTuple):
    """The three scores of one importance matrix; `disentanglement` is None for a single factor."""

    disentanglement: Score | None
    completeness: Score
    informativeness: Score


def _normalised(matrix: Array, axis: int) -> Array:
    total = matrix.sum(axis, keepdims=True)
    return np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)


def _sharpness(matrix: Array, axis: int) -> Array:
    """1 - entropy / log(number) of importances along an axis; 0 where they are all 0, 1 where there is only one."""
    share, count = _normalised(matrix, axis), matrix.shape[axis]
    some = share.sum(axis) > 0
    if count == 1:
        return some.astype(float)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.where(some, 1 + (share * logs).sum(axis) / np.log(count), 0.0)


def disentanglement(importance: Array) -> Score:
    """1 - normalised entropy over factors of each latent's importances (D, F), weighted by the latent's importance.

    Eastwood and Williams (2018). The score of a factor weights the latents by their importance for it, so that the
    score is the mean over factors, weighted by their importance. Latents without importance do not count.

    Raises:
        ChoiceError: there is a single factor.
    """
    r = np.asarray(importance, float)
    check_several(r, "disentanglement")
    latents = _sharpness(r, 1)
    each = _normalised(r, 0).T @ latents
    weight = r.sum() if r.sum() > 0 else 1.0
    return Score(float(r.sum(1) @ latents / weight), each, r, latents)


def completeness(importance: Array) -> Score:
    """1 - normalised entropy over latents of each factor's importances (D, F), weighted by the factor's importance.

    Eastwood and Williams (2018). It is 1 if there is a single latent.
    """
    r = np.asarray(importance, float)
    each = _sharpness(r, 0)
    weight = r.sum() if r.sum() > 0 else 1.0
    return Score(float(r.sum(0) @ each / weight), each, r)


def dci(
    codes: Array, factors: Array, group: ArrayLike | None = None, *, predictor: Predictor = "trees", seed: int = 0
) -> DCI:
    r"""The three scores of Eastwood and Williams (2018).

    A predictor learns each factor from the standardised codes.

    - `"lib"`: gradient-boosted trees of scikit-learn, as in disentanglement_lib: minutes for 10,000 codes. Importances
      are gains of the trees, which sum to 1 for each factor, and informativeness is the accuracy on other data.
    - `"trees"`: the same trees of codes in 64 bins, in seconds (`vaekit.metrics.disentanglement.trees`).
    - `"lasso"`: as in the paper and its authors' code, a linear regression of the factor's standardised value with an
      L1 penalty (0.02). Importances are absolute coefficients, and completeness is the mean over the factors that have
      any. Informativeness is R^2 = 1 - squared error / variance on other data, where the paper reports the error
      sqrt(1 - R^2). For factors without an order, such as shapes, it depends on how their values are numbered.

    Arguments:
        codes, factors: (N, D) and (N, F); for the lasso, the ranks of the factors' values are predicted.
        group: groups of data, (N,): those of one group are not divided between learning and testing.
        predictor: what predicts the factors.
        seed: seed of the division into data to learn from and to test, and of scikit-learn's trees.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has too many values or a single one.
    """
    predictors = {"trees": _trees, "lasso": _lasso, "lib": _trees_of_sklearn}
    if predictor not in predictors:
        raise ChoiceError(f"predictor must be one of {', '.join(predictors)}, got {predictor!r}")
    data = parts(codes, factors, group, seed=seed)
    found = [predictors[predictor](data, k, seed) for k in range(data.v.shape[1])]
    matrix = np.stack([importance for importance, _ in found], 1)
    right = np.array([share for _, share in found])
    several = matrix.shape[1] > 1
    complete = completeness(_normalised(matrix, 0))._replace(matrix=matrix)
    informativeness = Score(float(right.mean()), right, matrix)
    return DCI(disentanglement(matrix) if several else None, complete, informativeness)


def _trees(data: Parts, k: int, seed: int) -> tuple[Array, float]:
    _, label, new = ranked(data.v[:, k], data.v_test[:, k])
    learned = boosted(data.z, label, data.z_test, bins=TREE_BINS)
    return learned.importance, float((learned.predicted == new).mean())


def _trees_of_sklearn(data: Parts, k: int, seed: int) -> tuple[Array, float]:
    from sklearn.ensemble import GradientBoostingClassifier

    learned = GradientBoostingClassifier(random_state=seed).fit(data.z, data.v[:, k])
    return learned.feature_importances_, float((learned.predict(data.z_test) == data.v_test[:, k]).mean())


def _lasso(data: Parts, k: int, seed: int) -> tuple[Array, float]:
    from sklearn.linear_model import Lasso

    mean, spread = data.v[:, k].mean(), data.v[:, k].std()
    target, new = (data.v[:, k] - mean) / spread, (data.v_test[:, k] - mean) / spread
    learned = Lasso(PENALTY).fit(data.z, target)
    error = ((learned.predict(data.z_test) - new) ** 2).mean()
    return np.abs(learned.coef_), float(1 - error / (new.var() or 1.0))


def med(codes: Array, factors: Array, *, bins: int = BINS) -> Score:
    """The disentanglement of mutual information, MED (Cao et al. 2022): in milliseconds, without a predictor.

    The importance of a latent for a factor is their mutual information in bins, as a share of that of all latents.
    By chance few data have information too, so that noise lowers the score of few data.

    Arguments:
        codes, factors: (N, D) and (N, F).
        bins: the number of bins of equal width.

    Raises:
        ChoiceError: the shapes do not agree, or there is a single factor.
    """
    z, v = checked(codes, factors)
    check_several(v, "MED")
    return disentanglement(_normalised(mutual_information(binned(z, bins=bins), v), 0))

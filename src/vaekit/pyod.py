"""A detector of outliers with the API of PyOD, for its combinations, benchmarks and pipelines; it needs PyOD."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from vaekit.errors import ChoiceError
from vaekit.sklearn import VAEDetector

try:
    from pyod.models.base import BaseDetector
except ImportError as error:
    raise ImportError(
        "vaekit.pyod needs PyOD: pip install pyod (vaekit.sklearn.VAEDetector works without it)"
    ) from error

__all__ = ["PyODDetector"]


class PyODDetector(BaseDetector):
    """A `VAEDetector` in the conventions of PyOD: scores are -log p(x), and high scores and label 1 are outliers.

    Arguments:
        detector: the settings of the model; None for the defaults. `fit` trains a copy.
        contamination: the share of outliers among the rows of the training data, in (0, 0.5], which sets the threshold
            as for other detectors of PyOD. The threshold of a false-alarm rate is that of `detector_`.

    Attributes:
        detector_: the fitted `vaekit.sklearn.VAEDetector`; `detector_.run_` is the trained run.
        decision_scores_: (N,) -log p(x) of each row of the training data, in nats.
        threshold_: the threshold of the scores.
        labels_: (N,) 1 for outliers among the rows of the training data, else 0.

    Example:
        >>> from vaekit.pyod import PyODDetector  # doctest: +SKIP
        >>> PyODDetector(VAEDetector(steps=500)).fit(x).predict_proba(new)  # doctest: +SKIP
    """

    def __init__(self, detector: VAEDetector | None = None, *, contamination: float = 0.1):
        super().__init__(contamination=contamination)
        self.detector = detector

    def fit(self, X: ArrayLike, y: Any = None) -> PyODDetector:
        """Train on the rows of X (N, D); y is not used.

        Raises:
            ChoiceError: an argument is out of its range.
            DataError: X cannot be used.
        """
        if not 0 < self.contamination <= 0.5:
            raise ChoiceError(f"`contamination` must lie in (0, 0.5], got {self.contamination!r}")
        self._set_n_classes(y)
        self.detector_ = clone(self.detector or VAEDetector()).fit(X)
        self.decision_scores_ = self.detector_.decision_scores_
        self._process_decision_scores()
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """-log p(x) of each row of X (N, D) in nats, (N,): high for outliers."""
        scores: NDArray[np.float32] = -self.detector_.score_samples(X)
        return scores

"""A detector of outliers with the API of PyOD, for its combinations, benchmarks and pipelines; it needs PyOD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.sklearn import VAEDetector

try:
    from pyod.models.base import BaseDetector
except ImportError as error:
    raise ImportError(
        "vaekit.pyod needs PyOD: pip install pyod (vaekit.sklearn.VAEDetector works without it)"
    ) from error

__all__ = ["VAE"]


class VAE(BaseDetector):
    """A detector whose outlier scores are -log p(x), in the conventions of PyOD: high scores and label 1 are outliers.

    The model is that of `vaekit.sklearn.VAEDetector`, which is more convenient without PyOD.

    Arguments:
        contamination: the share of outliers among the rows of the training data, in (0, 0.5]; sets the threshold, as
            for other detectors of PyOD. Not used if `false_alarms` is given.
        false_alarms: the probability of flagging a row that is like the rows of the training data. The threshold is
            then taken from held-out rows, and holds for any share of outliers in new data.
        recipe: name of the recipe; `vaekit recipes` lists them.
        latent: number of latents; None for the recipe's default.
        epochs, steps, minutes: the length of training, at most one of them; by default the recipe's.
        settings: further arguments of the recipe and options of training, by name: {"beta": 4, "lr": 3e-4}.
        samples: number of importance samples per score.
        random_state: seed of the weights, the batches, the noise and the held-out rows.

    Attributes:
        detector_: the fitted `vaekit.sklearn.VAEDetector`; `detector_.run_` is the trained run.
        decision_scores_: (N,) -log p(x) of each row of the training data, in nats.
        threshold_: the threshold of the scores.
        labels_: (N,) 1 for outliers among the rows of the training data, else 0.

    Raises:
        ChoiceError: an argument is out of its range.

    Example:
        >>> from vaekit.pyod import VAE  # doctest: +SKIP
        >>> VAE(steps=500).fit(x).predict_proba(new)  # doctest: +SKIP
    """

    def __init__(
        self,
        contamination: float = 0.1,
        *,
        false_alarms: float | None = None,
        recipe: str = "robust",
        latent: int | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
        samples: int = 50,
        random_state: Any = 0,
    ):
        super().__init__(contamination=contamination)
        self.false_alarms = false_alarms
        self.recipe = recipe
        self.latent = latent
        self.epochs = epochs
        self.steps = steps
        self.minutes = minutes
        self.settings = settings
        self.samples = samples
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> VAE:
        """Train on the rows of X (N, D); y is not used.

        Raises:
            ChoiceError: an argument is out of its range.
            DataError: X cannot be used.
        """
        if not 0 < self.contamination <= 0.5:
            raise ChoiceError(f"`contamination` must lie in (0, 0.5], got {self.contamination!r}")
        self._set_n_classes(y)
        options = {name: value for name, value in self.get_params().items() if name != "contamination"}
        if self.false_alarms is None:
            del options["false_alarms"]
        self.detector_ = VAEDetector(**options).fit(X)
        self.decision_scores_ = self.detector_.decision_scores_
        self._process_decision_scores()
        if self.false_alarms is not None:
            self.threshold_, self.labels_ = self.detector_.threshold_, self.detector_.labels_
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """-log p(x) of each row of X (N, D) in nats, (N,): high for outliers."""
        scores: NDArray[np.float32] = -self.detector_.score_samples(X)
        return scores

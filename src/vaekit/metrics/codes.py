"""How much codes tell of classes: neighbours, a linear probe, clusters. Arrays in; scikit-learn does the work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

Array = NDArray[Any]


def _checked(codes: Array, label: Array) -> tuple[Array, Array]:
    z, y = np.asarray(codes, float), np.asarray(label)
    if z.ndim != 2 or y.shape != z.shape[:1]:
        raise ChoiceError(f"codes (N, D) and labels (N,) are needed, got {z.shape} and {y.shape}")
    return z, y


def knn_correct(train: Array, train_label: Array, codes: Array, label: Array, k: int = 10) -> NDArray[np.bool_]:
    """Whether each datum's class is that of most of its k nearest training codes, (N,): its mean is the accuracy.

    Euclidean distances in the codes' own units.
    """
    from sklearn.neighbors import KNeighborsClassifier

    z, y = _checked(train, train_label)
    z_new, y_new = _checked(codes, label)
    return KNeighborsClassifier(min(k, len(z))).fit(z, y).predict(z_new) == y_new


def probe_correct(train: Array, train_label: Array, codes: Array, label: Array) -> NDArray[np.bool_]:
    """Whether a linear classifier of standardised codes finds each datum's class, (N,): its mean is the accuracy.

    Multinomial logistic regression with an L2 penalty of 1.
    """
    from sklearn.linear_model import LogisticRegression

    z, y = _checked(train, train_label)
    z_new, y_new = _checked(codes, label)
    mean, std = (s.astype(z.dtype) for s in (z.mean(0, dtype=float), z.std(0, dtype=float)))
    std = np.where(std > 0, std, 1.0)
    fitted = LogisticRegression(max_iter=200, tol=1e-3).fit((z - mean) / std, y)
    return fitted.predict((z_new - mean) / std) == y_new


def silhouettes(codes: Array, label: Array) -> Array:
    """How much nearer each datum is to its own class than to the next one, (N,), from -1 to 1 (Rousseeuw 1987)."""
    from sklearn.metrics import silhouette_samples

    z, y = _checked(codes, label)
    if len(np.unique(y)) < 2:
        raise ChoiceError("silhouettes need two classes or more")
    return silhouette_samples(z, y)


def cluster_agreement(codes: Array, label: Array, seeds: int = 3) -> Array:
    """Adjusted Rand index between classes and as many clusters of k-means, one for each seed: 0 by chance, 1 the same.

    Hubert and Arabie (1985).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    z, y = _checked(codes, label)
    k = len(np.unique(y))
    found = [KMeans(k, n_init=1, random_state=seed).fit_predict(z) for seed in range(seeds)]
    return np.array([adjusted_rand_score(y, clusters) for clusters in found])


def tsne(codes: Array, perplexity: float = 30.0, seed: int = 0) -> Array:
    """A map of codes in the plane that keeps neighbours, (N, 2) (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE

    z = np.asarray(codes, np.float32)
    return TSNE(2, perplexity=min(perplexity, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(z)

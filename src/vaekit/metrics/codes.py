"""How well codes predict classes: neighbours, a linear probe, clusters. Arrays in; computed by scikit-learn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

from .measurement import Measurement, latent_means, shared, training_means
from .needs import CLASSES, TRAINING_CLASSES, labels
from .registry import Result, metric

Array = NDArray[Any]
KNOWN = 10_000
"""The maximum number of labelled training data that classes are learned from."""


def _checked(codes: Array, label: Array) -> tuple[Array, Array]:
    z, y = np.asarray(codes, float), np.asarray(label)
    if z.ndim != 2 or y.shape != z.shape[:1]:
        raise ChoiceError(f"codes (N, D) and labels (N,) are needed, got {z.shape} and {y.shape}")
    return z, y


@formerly("k")
def knn_correct(train: Array, train_label: Array, codes: Array, label: Array, *, k: int = 10) -> NDArray[np.bool_]:
    """Whether each datum has the majority class of its k nearest training codes, (N,): the mean is the accuracy.

    Distances are Euclidean, in the codes' own units.

    Arguments:
        train, train_label: training codes (M, D) and their classes (M,).
        codes, label: codes (N, D) of other data and their classes (N,).
        k: number of neighbours, at most M.
    """
    from sklearn.neighbors import KNeighborsClassifier

    z, y = _checked(train, train_label)
    z_new, y_new = _checked(codes, label)
    return KNeighborsClassifier(min(k, len(z))).fit(z, y).predict(z_new) == y_new


def probe_correct(train: Array, train_label: Array, codes: Array, label: Array) -> NDArray[np.bool_]:
    """Whether a linear classifier of standardised codes predicts each datum's class, (N,): the mean is the accuracy.

    The classifier is a multinomial logistic regression with an L2 penalty of 1.

    Arguments:
        train, train_label: training codes (M, D) and their classes (M,).
        codes, label: codes (N, D) of other data and their classes (N,).
    """
    from sklearn.linear_model import LogisticRegression

    z, y = _checked(train, train_label)
    z_new, y_new = _checked(codes, label)
    mean, std = (s.astype(z.dtype) for s in (z.mean(0, dtype=float), z.std(0, dtype=float)))
    std = np.where(std > 0, std, 1.0)
    fitted = LogisticRegression(max_iter=200, tol=1e-3).fit((z - mean) / std, y)
    return fitted.predict((z_new - mean) / std) == y_new


def silhouettes(codes: Array, label: Array) -> Array:
    """The silhouette of each datum, (N,), from -1 to 1, for codes (N, D) and classes (N,) (Rousseeuw 1987).

    It is high for data that are much nearer to their own class than to the nearest other class.

    Raises:
        ChoiceError: there are fewer than two classes.
    """
    from sklearn.metrics import silhouette_samples

    z, y = _checked(codes, label)
    if len(np.unique(y)) < 2:
        raise ChoiceError("silhouettes need two classes or more")
    return silhouette_samples(z, y)


@formerly("seeds")
def cluster_agreement(codes: Array, label: Array, *, seeds: int = 3) -> Array:
    """Adjusted Rand index between classes and as many k-means clusters, (seeds,): 0 by chance, 1 if identical.

    Hubert and Arabie (1985).

    Arguments:
        codes, label: codes (N, D) and classes (N,).
        seeds: number of clusterings, each from another start.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    z, y = _checked(codes, label)
    k = len(np.unique(y))
    clusterings = [KMeans(k, n_init=1, random_state=seed).fit_predict(z) for seed in range(seeds)]
    return np.array([adjusted_rand_score(y, clusters) for clusters in clusterings])


@formerly("perplexity", "seed")
def tsne(codes: Array, *, perplexity: float = 30.0, seed: int = 0) -> Array:
    """A t-SNE map of codes (N, D) in the plane, which preserves neighbours: (N, 2) (van der Maaten and Hinton 2008).

    Arguments:
        perplexity: the effective number of neighbours, at most (N - 1) / 3.
        seed: of the optimisation.
    """
    from sklearn.manifold import TSNE

    z = np.asarray(codes, np.float32)
    return TSNE(2, perplexity=min(perplexity, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(z)


class Labelled(NamedTuple):
    """Posterior means `codes` (n, L) and classes `label` (n,) of data with a known class, and their indices `rows`."""

    codes: Array
    label: Array
    rows: NDArray[np.int64]


@shared
def measured_codes(m: Measurement) -> Labelled:
    """The codes of the measured data that have a label."""
    y = labels(m)
    assert y is not None
    rows = np.flatnonzero(y >= 0)
    return Labelled(latent_means(m)[rows], y[rows], rows)


@shared
def training_codes(m: Measurement) -> Labelled:
    """The codes of the first `KNOWN` training data that have a label."""
    y = m.run.data.train.label
    assert y is not None
    rows = np.flatnonzero(y >= 0)[:KNOWN]
    return Labelled(training_means(m, rows), y[rows], rows)


@metric("knn", "share of data", needs=[CLASSES, TRAINING_CLASSES], better="higher", label="kNN accuracy")
def knn(m: Measurement) -> Result:
    """Share of the data whose class is the majority class of the 10 nearest training codes."""
    new, old = measured_codes(m), training_codes(m)
    correct = knn_correct(old.codes, old.label, new.codes, new.label).astype(float)
    return Result(f"10 nearest of {len(old.codes):,} training codes, posterior means", per_datum=correct, rows=new.rows)


@metric("linear_probe", "share of data", needs=[CLASSES, TRAINING_CLASSES], better="higher", label="Linear probe")
def linear_probe(m: Measurement) -> Result:
    """Share of the data whose class a logistic regression predicts from the code."""
    new, old = measured_codes(m), training_codes(m)
    correct = probe_correct(old.codes, old.label, new.codes, new.label).astype(float)
    how = f"logistic regression of {len(old.codes):,} standardised training codes, posterior means, L2 penalty 1"
    return Result(how, per_datum=correct, rows=new.rows)


@metric("silhouette", "-1 to 1", needs=[CLASSES], better="higher")
def silhouette(m: Measurement) -> Result:
    """How much nearer codes are to their own class than to the nearest other class (Rousseeuw 1987)."""
    d = measured_codes(m)
    return Result("posterior means, Euclidean", per_datum=silhouettes(d.codes, d.label), rows=d.rows)


@metric("cluster_agreement", "adjusted Rand index", needs=[CLASSES], better="higher", per_datum=False)
def agreement(m: Measurement) -> Result:
    """Agreement of k-means clusters of the codes with the classes: 1 if equal, 0 by chance (Hubert and Arabie 1985)."""
    d = measured_codes(m)
    indices = cluster_agreement(d.codes, d.label)
    clusters = len(np.unique(d.label))
    return Result(f"k-means, {clusters} clusters, mean of {len(indices)} seeds", value=float(indices.mean()))

"""Distances between two sets of data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import resampled

from .measurement import Measurement, samples, shared
from .needs import COMPLETE, NUMERIC, SEVERAL, TRAINING
from .registry import Result, metric

Array = NDArray[Any]
FEATURES, LEARNED = 32, 5000
"""The number of principal components for comparing samples, and the maximum number of training data to compute them."""
DRAWS = 100
"""Bootstrap draws for a standard error."""


def frechet(a: Array, b: Array) -> float:
    r"""The squared Frechet distance of the Gaussians with the moments of two samples (N, D), (M, D).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2}): Dowson and Landau (1982).
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ChoiceError(f"two samples (N, D), (M, D) of two rows or more are needed, got {a.shape} and {b.shape}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    first, second = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ second @ root)
    mean_distance = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(mean_distance + np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(cross, 0)).sum())


class Components:
    """The first principal components of data (N, *event), for projecting other data: (M, *event) -> (M, k).

    Arguments:
        k: number of components, at most as many as the data span.
    """

    def __init__(self, data: Array, k: int):
        x = np.asarray(data, float).reshape(len(data), -1)
        self.mean = x.mean(0)
        centred = x - self.mean
        wide = x.shape[1] > len(x)  # then the smaller matrix of products has the same eigenvalues
        values, vectors = np.linalg.eigh((centred @ centred.T if wide else centred.T @ centred) / len(x))
        self.k = min(k, int((values > 1e-10 * values[-1]).sum()))
        self.variances = values[::-1][: self.k]
        first = vectors[:, ::-1][:, : self.k]
        self.axes = centred.T @ first / np.sqrt(len(x) * self.variances) if wide else first
        self.total = float(values.sum())

    def __call__(self, data: Array) -> Array:
        return (np.asarray(data, float).reshape(len(data), -1) - self.mean) @ self.axes

    def reconstruct(self, data: Array) -> Array:
        """Data reconstructed from k components, in their own shape."""
        return (self(data) @ self.axes.T + self.mean).reshape(data.shape)


@shared
def features(m: Measurement) -> Components:
    """The principal components of the first training data."""
    data = m.run.data
    return Components(data.events(data.train[slice(0, LEARNED)]), FEATURES)


@metric(
    "frechet",
    "of the data's variance",
    needs=[SEVERAL, NUMERIC, COMPLETE, TRAINING],
    better="lower",
    label="Fréchet distance",
    per_datum=False,
)
def frechet_of_samples(m: Measurement) -> Result:
    """Squared Fréchet distance of samples from data, in principal components of the training data."""
    project, block = features(m), 500
    real = np.concatenate([project(m.observed.raw(np.arange(a, min(a + block, m.n)))) for a in range(0, m.n, block)])
    drawn = project(samples(m))
    of_drawn, of_real = (resampled(m.n, g, DRAWS, seed=seed) for g, seed in ((None, 0), (m.groups, 1)))
    bootstrap = [frechet(drawn[i], real[j]) / project.total for i, j in zip(of_drawn, of_real, strict=True)]
    what = "draws from" if m.run.draws_samples else "means of"
    how = (
        f"{m.n:,} {what} p(x|z) with z from the prior; {project.k} principal components of "
        f"{min(LEARNED, len(m.run.data.train)):,} training data; standard error of {DRAWS} bootstrap draws"
    )
    return Result(how, value=frechet(drawn, real) / project.total, se=float(np.std(bootstrap, ddof=1)))

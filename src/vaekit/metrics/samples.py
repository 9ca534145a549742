"""How far two sets of data lie from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

Array = NDArray[Any]


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
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(apart + np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(cross, 0)).sum())


class Components:
    """The first principal components of data (N, *event), to see others in: (M, *event) -> (M, k).

    Arguments:
        k: how many, at most what the data span.
    """

    def __init__(self, data: Array, k: int):
        x = np.asarray(data, float).reshape(len(data), -1)
        self.mean = x.mean(0)
        values, vectors = np.linalg.eigh((x - self.mean).T @ (x - self.mean) / len(x))
        self.k = min(k, int((values > 1e-10 * values[-1]).sum()))
        self.axes = vectors[:, ::-1][:, : self.k]
        self.variances = values[::-1][: self.k]
        self.total = float(values.sum())

    def __call__(self, data: Array) -> Array:
        return (np.asarray(data, float).reshape(len(data), -1) - self.mean) @ self.axes

    def reconstruct(self, data: Array) -> Array:
        """Data as k components give them back, in the shape they came."""
        return (self(data) @ self.axes.T + self.mean).reshape(data.shape)

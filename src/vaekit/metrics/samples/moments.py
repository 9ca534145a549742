"""Principal components, and the Fréchet distance of two samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

from .blocks import Blocked, Estimate, jackknife

Array = NDArray[Any]
Moments = tuple[Array, Array]
"""A mean (D,) and a covariance (D, D)."""


def frechet(a: Array, b: Array) -> float:
    r"""The squared Frechet distance of the Gaussians with the moments of two samples (N, D), (M, D).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2}): Dowson and Landau (1982).

    The moments of few data differ by chance, so that the distance of two samples of one distribution is above 0, by
    about one over the number of data; `frechet_distance` corrects this.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ChoiceError(f"two samples (N, D), (M, D) of two rows or more are needed, got {a.shape} and {b.shape}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return between((a.mean(0), np.atleast_2d(np.cov(a.T))), (b.mean(0), np.atleast_2d(np.cov(b.T))))


def between(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of two Gaussians by their moments."""
    values, vectors = np.linalg.eigh(a[1])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b[1] @ root)
    mean_distance = ((a[0] - b[0]) ** 2).sum()
    return float(mean_distance + np.trace(a[1]) + np.trace(b[1]) - 2 * np.sqrt(np.maximum(cross, 0)).sum())


class _Sums:
    """The sums of the rows and of their products, per block, for the moments without a block."""

    def __init__(self, rows: Blocked):
        x = [rows.x[part].double().numpy() for part in rows.slices]
        self.n = np.array([len(part) for part in x], float)
        self.first = np.stack([part.sum(0) for part in x])
        self.second = np.stack([part.T @ part for part in x])

    def moments(self, without: int | None = None) -> Moments:
        n, first, second = self.n.sum(), self.first.sum(0), self.second.sum(0)
        if without is not None:
            n, first, second = n - self.n[without], first - self.first[without], second - self.second[without]
        mean = first / n
        return mean, (second - n * np.outer(mean, mean)) / max(n - 1, 1)


def frechet_distance(real: Blocked, samples: Blocked) -> Estimate:
    """The squared Fréchet distance of two sets of features, without the bias of few data, and with its error.

    The bias is removed, and the error estimated, by the jackknife over blocks: the value is about the distance of
    infinitely many data (as FID-infinity of Chong and Forsyth 2020, who fit a line to subsets instead) and may
    therefore be slightly negative. It needs several rows per dimension.
    """
    a, b = _Sums(real), _Sums(samples)
    whole = a.moments(), b.moments()
    return jackknife(
        between(*whole),
        np.array([between(a.moments(i), whole[1]) for i in range(real.count)]),
        np.array([between(whole[0], b.moments(i)) for i in range(samples.count)]),
        unbiased=True,
    )


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

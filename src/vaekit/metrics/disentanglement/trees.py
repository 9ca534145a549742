"""Gradient-boosted trees for classes, of one depth and with codes in bins: the trees of all classes grow together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STAGES, DEPTH, RATE = 100, 3, 0.1
"""The number of trees per class, their depth, and the learning rate: the defaults of scikit-learn."""
BINS = 64


class Boosted(NamedTuple):
    """The importance of each latent, (D,), which sum to 1 (or are all 0), and the classes of other codes (M,)."""

    importance: Array
    predicted: NDArray[np.int64]


def quantised(codes: Array, others: Array, bins: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes (N, D) and others (M, D) as bins that hold about equally many of `codes`; None: one bin per value."""
    columns = []
    for x, new in zip(np.asarray(codes).T, np.asarray(others).T, strict=True):
        values = np.unique(x)
        if bins is not None and len(values) > bins:
            values = np.unique(np.quantile(x, (np.arange(bins) + 0.5) / bins, method="nearest"))
        edges = (values[1:] + values[:-1]) / 2
        columns.append((np.searchsorted(edges, x, "left"), np.searchsorted(edges, new, "left")))
    return np.stack([c for c, _ in columns], 1), np.stack([c for _, c in columns], 1)


def boosted(codes: Array, label: NDArray[np.int64], others: Array, *, bins: int | None = BINS) -> Boosted:
    """Gradient boosting of trees for the classes `label` (N,) = 0, 1, ... of codes (N, D), and its classes of others.

    It is `GradientBoostingClassifier` of scikit-learn with its default settings, for codes in bins: with one bin per
    value, the trees are the same. Latents that split a node equally well share its gain, where scikit-learn draws one.

    Arguments:
        others: codes (M, D) to classify.
        bins: the number of bins of each latent; None for one bin per value, which is slower.
    """
    from scipy.sparse import csr_matrix

    known, new = quantised(codes, others, bins)
    classes, n = int(label.max()) + 1, len(known)
    place = np.concatenate([known, new])
    wide = int(place.max()) + 1
    rows = (known + np.arange(known.shape[1]) * wide).T.ravel()
    columns = np.tile(np.arange(n), known.shape[1])
    indicator = csr_matrix((np.ones(len(rows)), (rows, columns)), (known.shape[1] * wide, n))
    share = np.bincount(label, minlength=classes) / n
    target = (label[:, None] == (np.arange(classes) if classes > 2 else np.ones(1))).astype(float)
    start = np.log(share) if classes > 2 else np.log(share[1:] / share[:1])
    raw = np.tile(start, (len(place), 1))
    importance = np.zeros(known.shape[1])
    for _ in range(STAGES):
        p = _probabilities(raw[:n])
        residual = target - p
        leaf, gains = _tree(place, indicator, residual, wide)
        importance += gains
        raw += RATE * _values(leaf, residual, p * (1 - p), (classes - 1) / classes if classes > 2 else 1.0)
    total = importance.sum()
    return Boosted(
        importance / total if total > 0 else importance,
        raw[n:].argmax(1) if classes > 2 else (raw[n:, 0] > 0).astype(np.int64),
    )


def _probabilities(raw: Array) -> Array:
    """The probability of each class (N, K), or of the second of two (N, 1)."""
    if raw.shape[1] == 1:
        return 1 / (1 + np.exp(-raw))
    p = np.exp(raw - raw.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def _tree(place: Array, indicator: Any, residual: Array, wide: int) -> tuple[NDArray[np.int64], Array]:
    """One regression tree for each of K columns of residuals (N, K).

    Returns:
        the leaf of each row of `place` in each tree, (rows, K), and the total gain of each latent, (D,).
    """
    (n, k), d = residual.shape, place.shape[1]
    ones = np.broadcast_to(indicator.sum(1), (d * wide, k)) if n else np.zeros((d * wide, k))
    sums, counts = (indicator @ residual).reshape(1, d, wide, k), np.asarray(ones, float).reshape(1, d, wide, k)
    node, gains = np.zeros((len(place), k), np.int64), np.zeros(d)
    for level in range(DEPTH):
        latent, edge, gain = _best(sums, counts)
        gains += gain
        column = np.arange(k)
        value = np.take_along_axis(place, latent[node, column], 1)
        left = value <= edge[node, column]
        if level + 1 < DEPTH:
            sums, counts = _children(indicator, residual, node[:n], left[:n], sums, counts)
        node = 2 * node + ~left
    return node, gains


def _best(sums: Array, counts: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The best split of each of M nodes of K trees, from sums and counts of residuals per bin, (M, D, bins, K).

    Returns:
        latent (M, K) and the last bin that goes left (M, K), and the gain of each latent in total, (D,).
    """
    left, below = sums.cumsum(2), counts.cumsum(2)
    whole, n = left[:, :1, -1:], below[:, :1, -1:]
    right, above = whole - left, n - below
    possible = (below > 0.5) & (above > 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(possible, left**2 / below + right**2 / above - whole**2 / np.maximum(n, 1), -np.inf)
    edge = gain.argmax(2)  # (M, D, K)
    best = np.take_along_axis(gain, edge[:, :, None], 2)[:, :, 0]
    latent, top = best.argmax(1), best.max(1)
    split = top > -np.inf
    tied = split[:, None] & (best >= np.where(split, top * (1 - 1e-9), 0.0)[:, None])
    shared = tied * np.where(split, np.maximum(top, 0.0) / np.maximum(tied.sum(1), 1), 0.0)[:, None]
    chosen = np.take_along_axis(edge, latent[:, None], 1)[:, 0]
    return latent, np.where(split, chosen, sums.shape[2]), shared.sum((0, 2))


def _children(
    indicator: Any, residual: Array, node: Array, left: Array, sums: Array, counts: Array
) -> tuple[Array, Array]:
    """Sums and counts per bin of the two children of each node, (2M, D, bins, K): right ones by subtraction."""
    of_sums, of_counts = [], []
    for parent in range(len(sums)):
        inside = ((node == parent) & left).astype(float)
        lower = (indicator @ (residual * inside)).reshape(sums.shape[1:])
        fewer = (indicator @ inside).reshape(sums.shape[1:])
        of_sums += [lower, sums[parent] - lower]
        of_counts += [fewer, counts[parent] - fewer]
    return np.stack(of_sums), np.stack(of_counts)


def _values(leaf: NDArray[np.int64], residual: Array, curvature: Array, factor: float) -> Array:
    """The value of each row's leaf, (rows, K): one Newton step of the leaf's rows."""
    n, k = residual.shape
    leaves = 2**DEPTH
    index = leaf + leaves * np.arange(k)
    inside = index[:n].ravel()
    top, below = (np.bincount(inside, w.ravel(), leaves * k) for w in (residual, curvature))
    count = np.maximum(np.bincount(inside, minlength=leaves * k), 1)
    steep = np.abs(below / count) > 1e-150
    return np.where(steep, factor * top / np.where(steep, below, 1.0), 0.0)[index]

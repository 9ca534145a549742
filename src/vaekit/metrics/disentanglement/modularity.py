"""Modularity and compactness from mutual information: whether a latent serves one factor, a factor has one latent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .information import (
    BINS,
    NEIGHBOURS,
    Score,
    binned,
    check_several,
    checked,
    informative,
    mutual_information,
    neighbour_information,
    shares,
)

Array = NDArray[Any]
RANGE = 1 / 20
"""InfoM and InfoC leave out latents whose range is at most this share of the largest range."""


def modularity(codes: Array, factors: Array, *, bins: int = BINS, kept: NDArray[np.bool_] | None = None) -> Score:
    r"""1 - sum of squared information about the other factors / ((F - 1) largest^2): the mean over latents.

    Ridgeway and Mozer (2018), with information in bins. A latent of pure noise has a little information about every
    factor by chance, and so a modularity of about 0.67 on dSprites: such latents are left out, unlike in
    disentanglement_lib. Without latents the score is 0. The score of a factor is the mean over the latents that have
    more information about it than about any other factor; nan if there are none.

    Arguments:
        codes, factors: (N, D) and (N, F).
        bins: the number of bins of equal width.
        kept: latents to count, (D,); by default the `informative` ones. All are counted in disentanglement_lib.

    Raises:
        ChoiceError: the shapes do not agree, or there is a single factor.
    """
    z, v = checked(codes, factors)
    check_several(v, "modularity")
    found = mutual_information(binned(z, bins=bins), v)
    shared = shares(found, v)
    kept = informative(z, v, bins=bins) if kept is None else kept
    square = found**2
    most = square.max(1)
    other = np.divide(square.sum(1) - most, most * (v.shape[1] - 1), out=np.ones_like(most), where=most > 0)
    latents = np.where(kept, 1 - other, np.nan)
    best = found.argmax(1)
    each = [latents[kept & (best == k)] for k in range(v.shape[1])]
    value = float(latents[kept].mean()) if kept.any() else 0.0
    return Score(value, np.array([x.mean() if len(x) else np.nan for x in each]), shared, latents)


def in_use(codes: Array) -> NDArray[np.bool_]:
    """Which latents InfoM and InfoC count: those with more than a twentieth of the largest range, (D,)."""
    reach = np.ptp(np.asarray(codes, float), axis=0)
    return reach > RANGE * reach.max()


def _largest_share(matrix: Array, axis: int) -> Array:
    """The largest number's share of the sum along an axis, from 0 if all are equal to 1 if the others are 0."""
    total, count = matrix.sum(axis), matrix.shape[axis]
    if count == 1:
        return (total > 0).astype(float)
    top = np.divide(matrix.max(axis), total, out=np.full(total.shape, 1 / count), where=total > 0)
    return (top - 1 / count) / (1 - 1 / count)


def info_matrix(codes: Array, factors: Array, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Array:
    """The information of each latent about each factor as a share of its entropy, by nearest neighbours: (D, F)."""
    z, v = checked(codes, factors)
    return shares(neighbour_information(z, v, neighbours=neighbours, seed=seed), v)


def info_m(matrix: Array, kept: NDArray[np.bool_]) -> Score:
    """InfoM (Hsu et al. 2023): how much of a latent's information is about one factor, the mean over latents.

    It is 0 if a latent has the same information about all factors and 1 if only about one. The score of a factor is
    the mean over the latents that have more information about it than about any other factor; nan if there are none.

    Arguments:
        matrix: information as a share of the factors' entropy, (D, F): `info_matrix`.
        kept: latents to count, (D,): `in_use`.

    Raises:
        ChoiceError: there is a single factor.
    """
    check_several(matrix, "InfoM")
    latents = np.where(kept, _largest_share(matrix, 1), np.nan)
    best = matrix.argmax(1)
    each = [latents[kept & (best == k)] for k in range(matrix.shape[1])]
    value = float(latents[kept].mean()) if kept.any() else 0.0
    return Score(value, np.array([x.mean() if len(x) else np.nan for x in each]), matrix, latents)


def info_c(matrix: Array, kept: NDArray[np.bool_]) -> Score:
    """InfoC (Hsu et al. 2023): how much of the information about a factor is in one latent, the mean over factors.

    It is 0 if all latents have the same information and 1 if only one has any. The arguments are those of `info_m`.
    """
    each = _largest_share(matrix[kept], 0) if kept.any() else np.zeros(matrix.shape[1])
    return Score(float(each.mean()), each, matrix)

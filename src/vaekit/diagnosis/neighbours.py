"""Copies between splits: exact ones by hash, near ones by the distances of nearest neighbours."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np

from vaekit.data.core import Data, blocks

from .patient import Array

MOST = 1 << 30
"""Bytes of a source above which only evenly spaced rows of the training split are compared."""
RATIO = 5.0
"""A near copy is so many times nearer than the tenth-nearest row."""
CHANCE = 1e-3
"""Probability of as many near copies by chance below which they are not chance."""


def exact_copies(data: Data, split: str) -> tuple[int, int]:
    """The number of rows of a split that equal a training row, and the number of rows compared."""
    part = getattr(data, split)
    known = set(_digests(data, "train"))
    others = _digests(data, split)
    return sum(digest in known for digest in others), len(part)


def _digests(data: Data, split: str) -> list[bytes]:
    part = getattr(data, split)
    index = part.index
    if part.raw[:1].nbytes * len(index) > MOST and split == "train":
        index = index[np.unique(np.linspace(0, len(index) - 1, MOST // part.raw[:1].nbytes).astype(np.int64))]
    found = []
    for _, block in blocks(part.raw, index, part.double):
        found += [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=12).digest() for row in block]
    return found


class Copies(NamedTuple):
    """Near copies among rows.

    Attributes:
        near, of: rows with a near copy, and rows in all.
        expected: the share of rows with one by chance.
        dimension: the intrinsic dimension of the data, from which this share follows.
        ratio: `RATIO`.
        more_than_chance: whether so many have a probability below `CHANCE` by chance.
    """

    near: int
    of: int
    expected: float
    dimension: float
    ratio: float
    more_than_chance: bool


def copies(distances: Array) -> Copies:
    r"""Near copies, from the distances (n, k) of n rows to their k nearest training rows, nearest first.

    Where the density is smooth, the k - 1 nearer neighbours of a row are uniform in the ball that reaches to the k-th,
    so u = (r_1 / r_k)^d is the smallest of k - 1 uniform numbers in d intrinsic dimensions:
    P(r_1 < r_k / c) = 1 - (1 - c^-d)^(k - 1). For k = 2 m, (r_m / r_k)^d is the middle one of 2 m - 1 uniform numbers,
    with median 1/2, which gives d; fewer than m copies of each row do not move it (Levina and Bickel 2005 and Facco et
    al. 2017 estimate dimensions from the same model).
    """
    n, k = distances.shape
    ratio = np.divide(distances[:, 0], distances[:, -1], out=np.zeros(n), where=distances[:, -1] > 0)
    outer = distances[distances[:, -1] > 0]
    median = float(np.median(outer[:, k // 2 - 1] / outer[:, -1])) if len(outer) else 0.5
    dimension = math.log(0.5) / math.log(min(max(median, 1e-6), 1 - 1e-6))
    expected = 1 - (1 - RATIO**-dimension) ** (k - 1)
    near = (ratio < 1 / RATIO) & (distances[:, -1] > 0)
    count = int(near.sum())
    from scipy.stats import binom

    chance = float(binom.sf(count - 1, n, min(expected, 1.0))) if count else 1.0
    return Copies(count, n, float(expected), dimension, RATIO, chance < CHANCE)


def share_at_least(count: int, of: int, share: float) -> bool:
    """Whether the lower end of the 95% Clopper-Pearson interval of count / of exceeds `share`."""
    if not count:
        return False
    from scipy.special import betaincinv

    return float(betaincinv(count, of - count + 1, 0.025)) > share

"""Copies between splits: exact ones by hash, near ones by the distances of nearest neighbours."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.core import Data, blocks

from .patient import Array, Patient

MOST = 1 << 30
"""Bytes of a source above which only evenly spaced rows of the training split are compared."""
READ = 1 << 29
"""Values of x above which only evenly spaced training rows are projected."""
PROJECTED, NEIGHBOURS, TESTED = 32, 10, 500
"""Random directions in which rows are compared, neighbours of each, and the test rows that are looked up."""
RATIO = 5.0
"""A near copy is so many times nearer than the tenth-nearest row."""
CHANCE = 1e-3
"""Probability of as many near copies by chance below which they are not chance."""


def exact_copies(data: Data, split: str) -> tuple[int, int]:
    """The number of rows of a split that equal a training row (see `compared`), and the number of rows looked up."""
    part = getattr(data, split)
    known = set(_digests(data, "train"))
    others = _digests(data, split)
    return sum(digest in known for digest in others), len(part)


def compared(data: Data) -> float:
    """The share of the training rows among which `exact_copies` looks."""
    return min(1.0, MOST // data.train.raw[:1].nbytes / len(data.train))


def _digests(data: Data, split: str) -> list[bytes]:
    part = getattr(data, split)
    index = part.index
    if split == "train" and compared(data) < 1:
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
        part: the share of the training rows that were compared.
    """

    near: int
    of: int
    expected: float
    dimension: float
    ratio: float
    more_than_chance: bool
    part: float = 1.0


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


# --- near copies ----------------------------------------------------------------------------------------------------


def near_copies(patient: Patient) -> Copies:
    """Near copies of training rows among test rows, by distances in random directions.

    All training rows are read, and each row is projected on `PROJECTED` Gaussian directions, which keep the squares of
    distances in the mean, with a relative standard deviation of sqrt(2 / 32) = 1/4 (Johnson and Lindenstrauss 1984).
    """
    data, dims = patient.known, math.prod(patient.known.shape)
    train = patient.rows("train", 1000)
    scale = train.std(0)
    scale = np.full_like(scale, scale.max()) if patient.kind in ("image", "signal") else np.where(scale > 0, scale, 1)
    directions = np.eye(dims)
    if dims > PROJECTED:
        directions = np.random.default_rng(0).normal(size=(dims, PROJECTED)) / math.sqrt(PROJECTED)
    mean, directions = train.mean(0), directions / np.where(scale > 0, scale, 1)[:, None]
    n = len(data.train)
    rows = _spaced(n, max(NEIGHBOURS, READ // dims))
    known = _projected(data, "train", rows, mean, directions)
    tested = _projected(data, "test", _spaced(len(data.test), TESTED), mean, directions)
    return copies(_distances(tested, known).numpy())._replace(part=len(rows) / n)


def _spaced(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _projected(data: Data, split: str, rows: NDArray[np.int64], mean: Array, directions: Array) -> Tensor:
    """Centred rows of a split in these directions, (n, K) float64."""
    part, step = getattr(data, split), max(1, 4_000_000 // len(mean))
    to, centre = directions.astype(np.float32), mean.astype(np.float32)
    found = []
    for a in range(0, len(rows), step):
        x = np.asarray(data.events(part[rows[a : a + step]]), np.float32).reshape(-1, len(mean))
        found.append((x - centre) @ to)
    return torch.from_numpy(np.concatenate(found).astype(np.float64))


def _distances(x: Tensor, known: Tensor) -> Tensor:
    """The distances of rows to their nearest ones among the known rows, (n, `NEIGHBOURS`), nearest first."""
    best = torch.empty(len(x), 0, dtype=torch.float64)
    for block in known.split(20_000):
        best = torch.cat([best, torch.cdist(x, block)], 1)
        best = best.topk(min(NEIGHBOURS, best.shape[1]), largest=False).values
    return best

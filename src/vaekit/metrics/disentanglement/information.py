"""Information of latents about factors: in bins, or from nearest neighbours; the latents that have none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

Array = NDArray[Any]
BINS = 20
NEIGHBOURS = 10
COUNTED = 5_000_000  # maximum number of pairs of numbers, and of cells, that are counted in one pass
SHUFFLES = 20
"""The number of shuffles of the factors that show how much information a latent has by chance."""
NOISE, DEVIATIONS = 0.01, 4.0
"""A latent is noise if its information beyond chance is below this share of every factor's entropy, or below so many
standard deviations of chance."""


class Score(NamedTuple):
    """A score with its components.

    `each` (F,) is the score per factor. `matrix` (D, F) relates each latent to each factor, for example by mutual
    information as a fraction of the factor's entropy, or by the share of votes. `latents` (D,) is the score per latent
    of scores that are means over latents, with nan for latents that are left out; otherwise None.
    """

    value: float
    each: Array
    matrix: Array
    latents: Array | None = None


def checked(codes: Array, factors: Array) -> tuple[Array, NDArray[np.int64]]:
    """Codes (N, D) as numbers and factors (N, F) as the ranks of their values.

    Raises:
        ChoiceError: the shapes do not agree.
    """
    z, v = np.asarray(codes, float), np.asarray(factors)
    v = v[:, None] if v.ndim == 1 else v
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or not len(z):
        raise ChoiceError(f"codes (N, D) and factors (N, F) are needed, got {z.shape} and {v.shape}")
    whole = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in v.T], 1)
    return z, whole


def check_several(factors: Array, score: str) -> None:
    """Raises ChoiceError unless there are two factors (N, F) or more."""
    if factors.shape[1] < 2:
        raise ChoiceError(f"{score} needs two factors or more, got {factors.shape[1]}")


@formerly("bins")
def binned(codes: Array, *, bins: int = BINS) -> NDArray[np.int64]:
    """Codes (N, D) as bin numbers, with bins of equal width between the minimum and maximum of each latent."""
    z = np.asarray(codes, float)
    low, span = z.min(0), np.ptp(z, axis=0)
    return np.minimum((z - low) / np.where(span > 0, span, 1) * bins, bins - 1).astype(np.int64)


def mutual_information(a: NDArray[np.int64], b: NDArray[np.int64]) -> Array:
    """I(a_i; b_k) in nats of integers a (N, D), b (N, F), from joint counts of many pairs in one pass: (D, F)."""
    wide, long = int(a.max()) + 1, int(b.max()) + 1
    block = max(1, COUNTED // max(b.size, wide * long * b.shape[1]))
    return np.concatenate([_information(a[:, j : j + block], b, wide, long) for j in range(0, a.shape[1], block)])


def _information(a: NDArray[np.int64], b: NDArray[np.int64], wide: int, long: int) -> Array:
    n, d, f = len(a), a.shape[1], b.shape[1]
    offsets = (np.arange(d)[:, None] * f + np.arange(f)) * wide * long  # one for each pair
    index = (a * long)[:, :, None] + b[:, None, :] + offsets
    joint = np.bincount(index.ravel(), minlength=d * f * wide * long).reshape(d, f, wide, long) / n
    product = joint.sum(3, keepdims=True) * joint.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(joint > 0, joint * np.log(joint / product), 0.0)
    return np.maximum(parts.sum((2, 3)), 0.0)


def entropies(factors: NDArray[np.int64]) -> Array:
    """The entropy of each column of integers (N, F), in nats."""
    found = []
    for column in factors.T:
        counts = np.bincount(column)
        p = counts[counts > 0] / len(column)
        found.append(-(p * np.log(p)).sum())
    return np.array(found)


def shares(information: Array, factors: NDArray[np.int64]) -> Array:
    """Information (D, F) as a share of each factor's entropy.

    Raises:
        ChoiceError: a factor has a single value.
    """
    entropy = entropies(factors)
    if (entropy <= 0).any():
        raise ChoiceError("a factor with a single value cannot be scored: leave it out")
    return information / entropy


def neighbour_information(codes: Array, factors: Array, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Array:
    """I(z_j; v_k) in nats of continuous codes (N, D) and discrete factors (N, F), from nearest neighbours: (D, F).

    The estimator of Ross (2014), as in scikit-learn's `mutual_info_classif`: for each datum, the distance to its k-th
    nearest neighbour of the same value, and the number of all data within it. Each latent is one-dimensional, so both
    are found by sorting. Noise of 1e-10 standard deviations breaks ties.

    Arguments:
        neighbours: k; fewer for values that occur at most k times. Values that occur once are left out.
        seed: seed of the noise.
    """
    z, v = checked(codes, factors)
    spread = z.std(0)
    z = z / np.where(spread > 0, spread, 1.0)
    noise = np.random.default_rng(seed).normal(size=z.shape)
    z = z + 1e-10 * np.maximum(1.0, np.abs(z).mean(0)) * noise
    return np.array([[_neighbours(x, y, neighbours) for y in v.T] for x in z.T])


def _neighbours(x: Array, y: NDArray[np.int64], k: int) -> float:
    """The estimator for one latent x (N,) and one factor y (N,)."""
    from scipy.special import digamma

    counts = np.bincount(y)
    common = counts[y] > 1
    x, y = x[common], y[common]
    if not len(x):
        return 0.0
    order = np.lexsort((x, y))  # by value of the factor, then by position
    x, y = x[order], y[order]
    last = np.cumsum(counts * (counts > 1))[y] - 1
    first, each = last - counts[y] + 1, np.minimum(k, counts[y] - 1)
    place, distance = np.arange(len(x)), np.full(len(x), np.inf)
    for before in range(k + 1):  # the k + 1 windows of k + 1 data of the same value that contain a datum
        start = place - before
        inside = (start >= first) & (start + each <= last) & (before <= each)
        a = np.where(inside, start, place)
        reach = np.maximum(x - x[a], x[np.where(inside, start + each, place)] - x)
        distance = np.where(inside, np.minimum(distance, reach), distance)
    radius, everything = np.nextafter(distance, 0), np.sort(x)
    low = np.searchsorted(everything, x - radius, "left")
    high = np.searchsorted(everything, x + radius, "right")  # x -+ radius may be rounded to the neighbour itself
    low += (low < len(x)) & (x - everything[np.minimum(low, len(x) - 1)] > radius)
    high -= everything[high - 1] - x > radius
    found = digamma(len(x)) + digamma(each).mean() - digamma(counts[y]).mean() - digamma(high - low).mean()
    return max(0.0, float(found))


def shuffle(n: int, group: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """Row numbers that give each of n rows those of another row at random; with `group`, of a row of another group.

    All rows of a group get rows of the same group, in random order; they are repeated if there are fewer.
    """
    if group is None:
        return rng.permutation(n)
    code = np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    counts = np.bincount(code)
    first = np.cumsum(counts) - counts
    here, there = (np.lexsort((rng.random(n), code)) for _ in range(2))  # by group, in random order within
    taken = rng.permutation(len(counts))[code[here]]
    found = np.empty(n, np.int64)
    found[here] = there[first[taken] + (np.arange(n) - first[code[here]]) % counts[taken]]
    return found


def informative(
    codes: Array,
    factors: Array,
    group: ArrayLike | None = None,
    *,
    bins: int = BINS,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Which latents have information about a factor beyond chance: (D,).

    The information of a latent in bins about shuffled factors is that by chance. A latent is informative if the rest
    is more than a hundredth of some factor's entropy, and than four standard deviations of chance.

    Arguments:
        codes, factors: (N, D) and (N, F).
        group: groups of data, (N,), whose factors are exchanged as a whole: noise that the data of a group share has
            more information by chance than independent noise.
        bins: the number of bins.
        shuffles, seed: the number of shuffles and their seed.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has a single value.
    """
    z, v = checked(codes, factors)
    a, rng = binned(z, bins=bins), np.random.default_rng(seed)
    found = shares(mutual_information(a, v), v)
    rows = [shuffle(len(v), group, rng) for _ in range(shuffles)]
    shuffled = np.stack([shares(mutual_information(a, v[order]), v) for order in rows])
    beyond = found - shuffled.mean(0)
    return (beyond > np.maximum(NOISE, DEVIATIONS * shuffled.std(0, ddof=1))).any(1)

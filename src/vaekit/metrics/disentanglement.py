"""Metrics of disentanglement, whether each factor is encoded in one latent: two versions of MIG, the FactorVAE score.

The two versions of MIG differ in codes, estimator and factors counted, and must not be mixed: disentanglement_lib
(Locatello et al. 2019) reports `mig_lib`, and the paper defines `mig_chen`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.utils.formerly import formerly
from vaekit.utils.uncertainty import resampled

from .measurement import Measurement, latent_means, shared
from .needs import FACTORS, GAUSSIAN, SEVERAL_FACTORS, factors
from .registry import Result, metric

Array = NDArray[Any]
BINS = 20
PRUNED = 0.05
"""The FactorVAE score ignores latents whose standard deviation is below this fraction of the prior's."""
VOTES, TESTS, SIZE = 10_000, 5_000, 64
"""The numbers of votes to learn from and to test, and of data per vote, of the FactorVAE score."""
DRAWS = 50
"""Bootstrap draws for a standard error."""
GRID = 6000  # maximum number of grid points for integrating the density of one latent
REACH = 6.0  # standard deviations beyond the outermost code


class Score(NamedTuple):
    """A score with its components.

    `each` (F,) is the score per factor. `matrix` (D, F) relates each latent to each factor: by mutual information as a
    fraction of the factor's entropy for MIG, by the share of votes for the FactorVAE score.
    """

    value: float
    each: Array
    matrix: Array


def _checked(codes: Array, factors: Array) -> tuple[Array, Array]:
    z, v = np.asarray(codes, float), np.asarray(factors)
    v = v[:, None] if v.ndim == 1 else v
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or not len(z):
        raise ChoiceError(f"codes (N, D) and factors (N, F) are needed, got {z.shape} and {v.shape}")
    whole = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in v.T], 1)
    return z, whole


@formerly("bins")
def binned(codes: Array, *, bins: int = BINS) -> NDArray[np.int64]:
    """Codes (N, D) as bin numbers, with bins of equal width between the minimum and maximum of each latent."""
    z = np.asarray(codes, float)
    low, span = z.min(0), np.ptp(z, axis=0)
    return np.minimum((z - low) / np.where(span > 0, span, 1) * bins, bins - 1).astype(np.int64)


def mutual_information(a: NDArray[np.int64], b: NDArray[np.int64]) -> Array:
    """I(a_i; b_k) in nats of integers a (N, D), b (N, F), from joint counts computed in one pass: (D, F)."""
    n, d, f = len(a), a.shape[1], b.shape[1]
    wide, long = int(a.max()) + 1, int(b.max()) + 1
    offsets = (np.arange(d)[:, None] * f + np.arange(f)) * wide * long  # one for each pair
    index = (a * long)[:, :, None] + b[:, None, :] + offsets
    joint = np.bincount(index.ravel(), minlength=d * f * wide * long).reshape(d, f, wide, long) / n
    product = joint.sum(3, keepdims=True) * joint.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(joint > 0, joint * np.log(joint / product), 0.0)
    return np.maximum(parts.sum((2, 3)), 0.0)


def entropies(factors: NDArray[np.int64]) -> Array:
    """The entropy of each column of integers (N, F), in nats."""
    return np.diagonal(mutual_information(factors, factors)).copy()


def _gap(information: Array, entropy: Array) -> Score:
    """The mean over factors of (largest - second largest mutual information with a latent) / entropy."""
    if (entropy <= 0).any():
        raise ChoiceError("a factor with a single value cannot be scored: leave it out")
    shares = information / entropy
    ordered = np.sort(np.concatenate([shares, np.zeros((1, shares.shape[1]))]), 0)  # one latent: the second is 0
    each = ordered[-1] - ordered[-2]
    return Score(float(each.mean()), each, shares)


@formerly("bins")
def mig_lib(means: Array, factors: Array, *, bins: int = BINS) -> Score:
    """The mutual information gap of posterior means in bins (Locatello et al. 2019, disentanglement_lib).

    Factors with more values than bins keep it below 1: on dSprites a perfect code reaches 0.9024 (`mig_ceiling`).

    Arguments:
        means: (N, D); the library uses 10,000.
        factors: (N, F) of any values.
    """
    z, v = _checked(means, factors)
    return _gap(mutual_information(binned(z, bins=bins), v), entropies(v))


@formerly("bins")
def mig_ceiling(values: Sequence[int], *, bins: int = BINS) -> float:
    """The `mig_lib` of a perfect code over all combinations of factors, given each factor's number of spaced values.

    Bins of equal width hold unequal numbers of values, so a factor with more values than bins stays below 1: on
    dSprites (3, 6, 40, 32 and 32 values) the mean over factors is 0.9024.

    Raises:
        ChoiceError: a factor has fewer than two values.
    """
    scores = []
    for count in values:
        if count < 2:
            raise ChoiceError(f"a factor needs two values or more to be scored, got {count}")
        shares = np.bincount(binned(np.arange(count, dtype=float)[:, None], bins=bins)[:, 0]) / count
        shares = shares[shares > 0]
        scores.append(float(-(shares * np.log(shares)).sum() / math.log(count)))
    return float(np.mean(scores))


def mig_chen(means: Array, scales: Array, factors: Array) -> Score:
    r"""The mutual information gap of Chen et al. (2018): I(z_j; v_k) = H(z_j) - H(z_j | v_k) with z_j ~ q(z_j).

    q(z_j) = 1/N sum_n N(mean_nj, scale_nj^2) and q(z_j | v_k), the same over the data with that value, are integrated
    on a grid rather than sampled. The paper counts scale, orientation and the two positions of dSprites, but not shape.

    Arguments:
        means, scales: means and standard deviations of the posteriors, (N, D).
        factors: (N, F).

    Raises:
        ChoiceError: the shapes do not agree, a scale is not above 0, or a factor has a single value.
    """
    z, v = _checked(means, factors)
    s = np.asarray(scales, float)
    if s.shape != z.shape or not (s > 0).all():
        raise ChoiceError(f"scales must be above 0 and have the shape of the means, {z.shape}, got {s.shape}")
    information = np.zeros((z.shape[1], v.shape[1]))
    for j in range(z.shape[1]):
        low, high = (z[:, j] - REACH * s[:, j]).min(), (z[:, j] + REACH * s[:, j]).max()
        points = int(min(GRID, max(200, math.ceil((high - low) / (0.5 * s[:, j].min())))))
        grid = np.linspace(low, high, points)
        step = grid[1] - grid[0]
        sums = [np.zeros((int(v[:, k].max()) + 1, points)) for k in range(v.shape[1])]
        block = max(1, 4_000_000 // points)
        for a in range(0, len(z), block):
            mean, scale = z[a : a + block, j, None], np.maximum(s[a : a + block, j, None], 0.5 * step)
            density = np.exp(-0.5 * ((grid - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
            for k, by_value in enumerate(sums):
                order = np.argsort(v[a : a + block, k], kind="stable")
                values, first = np.unique(v[a : a + block, k][order], return_index=True)
                by_value[values] += np.add.reduceat(density[order], first, axis=0)
        whole = _entropy(sums[0].sum(0) / len(z), step)
        for k, by_value in enumerate(sums):
            counts = np.bincount(v[:, k], minlength=len(by_value))
            inside = [_entropy(f / c, step) for f, c in zip(by_value, counts, strict=True)]
            information[j, k] = max(whole - float(counts @ inside) / len(z), 0.0)
    return _gap(information, entropies(v))


def _entropy(density: Array, step: float) -> float:
    """-int p log p of a density on an evenly spaced grid."""
    positive = density[density > 0]
    return float(-(positive * np.log(positive)).sum() * step)


@formerly("votes", "tests", "size", "seed")
def factor_score(
    means: Array, factors: Array, *, votes: int = VOTES, tests: int = TESTS, size: int = SIZE, seed: int = 0
) -> Score:
    """The FactorVAE score (Kim and Mnih 2018): with one factor held fixed, the latent that varies least votes for it.

    Codes are divided by their standard deviation over all data; latents that hardly vary are left out. A majority
    vote, learned from `votes`, assigns a factor to each latent, and its accuracy on `tests` is the score. Chance is
    the share of the most frequent factor, 1/F.

    Arguments:
        means: (N, D).
        factors: (N, F) of any values.
        votes, tests: number of votes to learn from, and to test.
        size: number of data per vote, which share one value of the factor; drawn with replacement.
        seed: seed of the draws.

    Raises:
        ChoiceError: the shapes do not agree, or a factor has no value that occurs twice.
    """
    z, v = _checked(means, factors)
    spread = z.std(0)
    alive = np.flatnonzero(spread > PRUNED)
    if not len(alive):  # a collapsed code has no information: every vote is a guess
        return Score(1 / v.shape[1], np.full(v.shape[1], 1 / v.shape[1]), np.zeros((z.shape[1], v.shape[1])))
    z = z[:, alive] / spread[alive]
    rng = np.random.default_rng(seed)
    order = [np.argsort(v[:, k], kind="stable") for k in range(v.shape[1])]
    counts = [np.bincount(v[:, k]) for k in range(v.shape[1])]
    firsts = [np.concatenate([[0], np.cumsum(c)[:-1]]) for c in counts]

    def cast(n: int) -> tuple[Array, Array]:
        """The latents that vote and the factors held fixed, (n,)."""
        held = rng.integers(v.shape[1], size=n)
        latent = np.zeros(n, int)
        for k in range(v.shape[1]):
            votes_of_k = np.flatnonzero(held == k)
            usable = np.flatnonzero(counts[k] > 1)
            if not len(usable):
                raise ChoiceError("a factor whose values all occur once cannot be held fixed: more data are needed")
            values = rng.choice(usable, len(votes_of_k))
            for a in range(0, len(votes_of_k), 1000):
                value = values[a : a + 1000, None]
                index = (rng.random((len(value), size)) * counts[k][value]).astype(int) + firsts[k][value]
                latent[votes_of_k[a : a + 1000]] = z[order[k][index]].var(1).argmin(1)
        return latent, held

    latent, held = cast(votes)
    table = np.zeros((len(alive), v.shape[1]))
    np.add.at(table, (latent, held), 1)
    named = table.argmax(1)
    latent, held = cast(tests)
    correct = named[latent] == held
    each = np.array([correct[held == k].mean() if (held == k).any() else 0.0 for k in range(v.shape[1])])
    matrix = np.zeros((len(spread), v.shape[1]))
    matrix[alive] = table / np.maximum(table.sum(0), 1)
    return Score(float(correct.mean()), each, matrix)


def counted_by_chen(names: Sequence[str], data: str) -> list[int]:
    """The indices of the factors in the MIG of Chen et al. (2018): all but the shape of dSprites, as in the paper."""
    return [i for i, name in enumerate(names) if not (data == "dsprites" and name == "shape")]


def redrawn(factors: Array, group: ArrayLike | None, draws: int) -> list[NDArray[np.int64]]:
    """Bootstrap draws of rows in which every factor varies; the score of other draws is undefined."""
    drawn = resampled(len(factors), group, draws)
    return [rows for rows in drawn if (factors[rows] != factors[rows[0]]).any(0).all()]


def _known(m: Measurement) -> tuple[Array, list[str]]:
    known = factors(m)
    assert known is not None
    return known


@metric("mig", "share of the factors' entropy", needs=[FACTORS], better="higher", label="MIG", per_datum=False)
def mig(m: Measurement) -> Result:
    """Mutual information gap of binned posterior means (Locatello et al. 2019)."""
    (v, names), z = _known(m), latent_means(m)
    drawn = [mig_lib(z[rows], v[rows]).value for rows in redrawn(v, m.groups, DRAWS)]
    how = f"{BINS} bins of posterior means; factors {', '.join(names)}; standard error of {len(drawn)} bootstrap draws"
    return Result(how, value=mig_lib(z, v).value, se=float(np.std(drawn, ddof=1)) if len(drawn) > 1 else None)


@shared
@torch.no_grad()
def scales(m: Measurement) -> Array:
    """The standard deviation of q(z|x) of each latent of each datum, (n, L)."""
    parts = []
    for _, x, c in m.observed.batches(None, m.n, m.run.device):
        (latent,) = m.run.model.trace(x, c, noise=Noise.of(0, len(x), device=x.device)).latents
        parts.append(latent.q.stddev.flatten(1).cpu().numpy())
    return np.concatenate(parts)


@metric(
    "mig_chen",
    "share of the factors' entropy",
    needs=[FACTORS, GAUSSIAN],
    better="higher",
    label="MIG (Chen)",
    per_datum=False,
)
def mig_of_posterior(m: Measurement) -> Result:
    """Mutual information gap of draws from the posterior (Chen et al. 2018)."""
    v, names = _known(m)
    counted = counted_by_chen(names, m.run.data_identity[0])
    score = mig_chen(latent_means(m), scales(m), v[:, counted])
    return Result(f"q(z) integrated; factors {', '.join(names[i] for i in counted)}", value=score.value)


@metric(
    "factor_vae_score",
    "share of votes",
    needs=[FACTORS, SEVERAL_FACTORS],
    better="higher",
    label="FactorVAE score",
    per_datum=False,
)
def factor_vae_score(m: Measurement) -> Result:
    """Accuracy of predicting which factor is held fixed from the latent that varies least (Kim and Mnih 2018)."""
    v, names = _known(m)
    how = f"{VOTES:,} votes to learn from, {TESTS:,} to test, of {SIZE} data each; factors {', '.join(names)}"
    return Result(how, value=factor_score(latent_means(m), v, seed=m.seed).value)

"""Scores that hold one factor fixed and see what the latents do: the FactorVAE score and the beta-VAE score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

from .information import Score, check_several, checked
from .parts import quietly

Array = NDArray[Any]
PRUNED = 0.05
"""The FactorVAE score ignores latents whose standard deviation is below this number: a twentieth of that of N(0, 1)."""
VOTES, TESTS, SIZE = 10_000, 5_000, 64
"""The numbers of votes to learn from and to test, and of data per vote (pairs of data for the beta-VAE score)."""
BLOCK = 1000  # votes at a time


class Alike:
    """Draws rows that share the value of a factor, with replacement; a draw is index arithmetic.

    Arguments:
        factors: the ranks of the factors' values, (N, F).
        rng: the generator of the draws.
    """

    def __init__(self, factors: NDArray[np.int64], rng: np.random.Generator):
        self.rng = rng
        self.order = [np.argsort(v, kind="stable") for v in factors.T]
        self.ordered = [np.sort(v) for v in factors.T]
        self.counts = [np.bincount(v) for v in factors.T]
        self.firsts = [np.concatenate([[0], np.cumsum(c)[:-1]]) for c in self.counts]

    def usable(self, k: int) -> NDArray[np.int64]:
        """The values of factor k that occur twice or more.

        Raises:
            ChoiceError: there are none.
        """
        found = np.flatnonzero(self.counts[k] > 1)
        if not len(found):
            raise ChoiceError("a factor whose values all occur once cannot be held fixed: more data are needed")
        return found

    def __call__(self, k: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """One row for each of these values of factor k, in the same shape."""
        index = (self.rng.random(values.shape) * self.counts[k][values]).astype(int) + self.firsts[k][values]
        return self.order[k][index]

    def pairs(self, k: int, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Two different rows with the same value of factor k: the first at random among those that have a partner.

        Raises:
            ChoiceError: no value occurs twice.
        """
        self.usable(k)
        value, counts, firsts = self.ordered[k], self.counts[k], self.firsts[k]
        one = self.rng.choice(np.flatnonzero(counts[value] > 1), shape)
        first, count = firsts[value[one]], counts[value[one]]
        further = 1 + (self.rng.random(shape) * (count - 1)).astype(int)
        return self.order[k][one], self.order[k][first + (one - first + further) % count]


@formerly("votes", "tests", "size", "seed")
def factor_score(
    means: Array, factors: Array, *, votes: int = VOTES, tests: int = TESTS, size: int = SIZE, seed: int = 0
) -> Score:
    """The FactorVAE score (Kim and Mnih 2018): with one factor held fixed, the latent that varies least votes for it.

    Codes are divided by their standard deviation over all data; latents whose standard deviation is at
    most 0.05 are left out, as in disentanglement_lib: codes on the scale of a prior N(0, 1) are assumed. A majority
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
    z, v = checked(means, factors)
    spread = z.std(0)
    alive = np.flatnonzero(spread > PRUNED)
    if not len(alive):  # a collapsed code has no information: every vote is a guess
        return Score(1 / v.shape[1], np.full(v.shape[1], 1 / v.shape[1]), np.zeros((z.shape[1], v.shape[1])))
    z = z[:, alive] / spread[alive]
    draw = Alike(v, np.random.default_rng(seed))

    def cast(n: int) -> tuple[Array, Array]:
        """The latents that vote and the factors held fixed, (n,)."""
        held = draw.rng.integers(v.shape[1], size=n)
        latent = np.zeros(n, int)
        for k in range(v.shape[1]):
            votes_of_k = np.flatnonzero(held == k)
            values = draw.rng.choice(draw.usable(k), len(votes_of_k))
            for a in range(0, len(votes_of_k), BLOCK):
                index = draw(k, np.broadcast_to(values[a : a + BLOCK, None], (len(values[a : a + BLOCK]), size)))
                latent[votes_of_k[a : a + BLOCK]] = z[index].var(1).argmin(1)
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


def beta_score(
    means: Array, factors: Array, *, votes: int = VOTES, tests: int = TESTS, size: int = SIZE, seed: int = 0
) -> Score:
    """The beta-VAE score (Higgins et al. 2017): which factor is the same in pairs of data, from their codes.

    Each example has `size` pairs of different data with the same value of one factor, and its features are the mean
    absolute differences of the latents. A logistic regression predicts the factor, and its accuracy on other examples
    is the score. It is easily 1 for codes that are not disentangled, such as rotated ones, because it may use all
    latents. The matrix is 1 - the mean difference of a latent in pairs that share the factor / that in all pairs, at
    least 0.

    Arguments:
        means: (N, D).
        factors: (N, F) of any values.
        votes, tests: numbers of examples to learn from and to test.
        size: number of pairs per example, drawn with replacement.
        seed: seed of the draws.

    Raises:
        ChoiceError: the shapes do not agree, there is a single factor, or one has no value that occurs twice.
    """
    from sklearn.linear_model import LogisticRegression

    z, v = checked(means, factors)
    check_several(v, "the beta-VAE score")
    draw = Alike(v, np.random.default_rng(seed))
    for k in range(v.shape[1]):
        draw.usable(k)
    n = votes + tests
    held = draw.rng.integers(v.shape[1], size=n)
    features = np.zeros((n, z.shape[1]))
    for k in range(v.shape[1]):
        mine = np.flatnonzero(held == k)
        for a in range(0, len(mine), BLOCK):
            some = mine[a : a + BLOCK]
            one, other = draw.pairs(k, (len(some), size))
            features[some] = np.abs(z[one] - z[other]).mean(1)
    with quietly():
        learned = LogisticRegression().fit(features[:votes], held[:votes])
    right = learned.predict(features[votes:]) == held[votes:]
    each = np.array([right[held[votes:] == k].mean() if (held[votes:] == k).any() else 0.0 for k in range(v.shape[1])])
    usual = np.abs(z[draw.rng.integers(len(z), size=100_000)] - z[draw.rng.integers(len(z), size=100_000)]).mean(0)
    of_factor = np.stack([features[held == k].mean(0) if (held == k).any() else usual for k in range(v.shape[1])], 1)
    ratio = np.divide(of_factor, usual[:, None], out=np.ones_like(of_factor), where=usual[:, None] > 0)
    return Score(float(right.mean()), each, np.maximum(1 - ratio, 0.0))

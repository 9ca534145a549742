"""Whether a new file as a whole differs from held-out rows: two-sample tests of scores and of codes.

A file may differ although no row of it is unusual, such as if its rows come from one part of the data only. Scores are
compared by the Kolmogorov-Smirnov test, and codes by the energy distance (Szekely and Rizzo 2004), whose p-value is the
rank of the observed value among those of random exchanges of new and held-out rows. Each p-value is multiplied by the
number of tests (Bonferroni), so that the chance of a false finding is at most the level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST = 500
"""The maximum number of rows of either kind whose codes are compared."""
EXCHANGES = 999
FEWEST = 8
"""With fewer rows of either kind, nothing is tested."""


@dataclass(frozen=True)
class Drift:
    """The result of the tests.

    Attributes:
        p_value: of the file as a whole: the lower of both p-values, doubled.
        scores: the p-value of the scores.
        codes: the p-value of the codes.
        n: the number of new rows.
    """

    p_value: float
    scores: float
    codes: float
    n: int


def two_sample(
    held_score: np.ndarray, score: np.ndarray, held_code: np.ndarray, code: np.ndarray, *, seed: int = 0
) -> Drift | None:
    """Compare new rows with held-out rows by their scores (n,) and codes (n, L); None if there are too few rows."""
    from scipy.stats import ks_2samp

    if min(len(held_score), len(score), len(held_code), len(code)) < FEWEST:
        return None
    by_score = float(ks_2samp(held_score, score).pvalue)
    by_code = energy_test(held_code, code, seed=seed)
    return Drift(min(1.0, 2 * min(by_score, by_code)), by_score, by_code, len(score))


def energy_test(held: np.ndarray, new: np.ndarray, *, exchanges: int = EXCHANGES, seed: int = 0) -> float:
    """The p-value of the energy distance between two samples of codes (n, L), by random exchanges of their rows.

    At most `MOST` rows of each are used. Codes are standardised by all of them together.
    """
    rng = np.random.default_rng(seed)
    held, new = (z if len(z) <= MOST else z[rng.choice(len(z), MOST, replace=False)] for z in (held, new))
    z = np.concatenate([held, new]).astype(np.float64)
    z = z.reshape(len(z), -1)
    scale = z.std(0)
    z = (z - z.mean(0))[:, scale > 0] / scale[scale > 0]
    if not z.shape[1]:
        return 1.0
    squares = (z**2).sum(1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * z @ z.T, 0))
    total, n = len(z), len(new)
    # which rows count as new: the new ones in the first column, n at random in each other
    order = np.concatenate([np.arange(total)[::-1, None], rng.random((total, exchanges)).argsort(0)], 1)
    chosen = np.zeros((total, exchanges + 1))
    np.put_along_axis(chosen, order[:n], 1, 0)
    rest = 1 - chosen
    to_new = distance @ chosen
    to_rest = distance.sum(1, keepdims=True) - to_new
    m = total - n
    energy = 2 * (rest * to_new).sum(0) / (n * m) - (chosen * to_new).sum(0) / n**2 - (rest * to_rest).sum(0) / m**2
    return float((energy >= energy[0] - 1e-12).sum() / (exchanges + 1))

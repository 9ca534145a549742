"""Whether a new file as a whole differs from held-out rows: two-sample tests of scores and of codes.

A file may differ although no row of it is unusual, such as if its rows come from one part of the data only. Scores are
compared by the Kolmogorov-Smirnov test, and codes by the energy distance (Szekely and Rizzo 2004), whose p-value is the
rank of the observed value among those of random exchanges of new and held-out rows. Columns are compared one by one:
numbers by the Kolmogorov-Smirnov test, categories by the chi-squared test, and the share of missing values by Fisher's.
Each p-value is multiplied by the number of tests (Bonferroni), so that the chance of a false finding is at most the
level.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 500
"""The maximum number of rows of either kind whose codes are compared."""
EXPECTED = 5
"""Categories with a smaller expected number of rows in the smaller sample are compared together."""
EXACT = 40_000
"""The product of the numbers of rows up to which numbers are compared by the exact distribution."""
EXCHANGES = 999
FEWEST = 8
"""With fewer rows of either kind, nothing is tested."""
LEVEL = 0.05
"""The p-value up to which a difference is reported."""
NAMED = 3
"""The number of columns that are named in a sentence."""


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column of new rows differs from held-out rows.

    Attributes:
        column: the name of the column.
        p_value: of its two-sample test, multiplied by the number of columns.
        distance: for numbers the largest difference of the cumulative shares of rows; for categories half the sum of
            the differences of their shares; or the difference of the shares of missing values if that is larger.
        missing: the shares of missing values in held-out and new rows, if their difference has the lowest p-value.
    """

    column: str
    p_value: float
    distance: float
    missing: tuple[float, float] | None = None

    @property
    def by(self) -> str:
        """How it differs, as in "distance 0.34" or "20% missing instead of 0%"."""
        if self.missing is None:
            return f"distance {self.distance:.2f}"
        held, new = self.missing
        return f"{100 * new:.3g}% missing instead of {100 * held:.3g}%"


@dataclass(frozen=True)
class Drift:
    """The result of the tests.

    Attributes:
        p_value: of the file as a whole: the lowest of the p-values below, multiplied by their number.
        scores: the p-value of the scores.
        codes: the p-value of the codes.
        n: the number of new rows whose scores were compared.
        columns: the columns of a table in the order of their p-values; empty for images and signals.
    """

    p_value: float
    scores: float
    codes: float
    n: int
    columns: tuple[ColumnDrift, ...] = ()

    @property
    def drifting(self) -> tuple[ColumnDrift, ...]:
        """The columns with a p-value of at most `LEVEL`; none unless the file as a whole differs."""
        return tuple(c for c in self.columns if c.p_value <= LEVEL and self.p_value <= LEVEL)

    def named(self) -> str:
        """The columns that differ most, as in "age (p = 0.001, distance 0.34), 2 others"; "" if none differs."""
        most = [f"{c.column} (p = {c.p_value:.2g}, {c.by})" for c in self.drifting[:NAMED]]
        rest = len(self.drifting) - len(most)
        return ", ".join([*most, *([f"{rest} other{'s' * (rest > 1)}"] if rest else [])])


def two_sample(
    held_score: np.ndarray,
    score: np.ndarray,
    held_code: np.ndarray,
    code: np.ndarray,
    *,
    columns: tuple[ColumnDrift, ...] = (),
    seed: int = 0,
) -> Drift | None:
    """Compare new rows with held-out rows by their scores (n,) and codes (n, L), and by columns already compared.

    None if there are too few rows.
    """
    from scipy.stats import ks_2samp

    if min(len(held_score), len(score), len(held_code), len(code)) < FEWEST:
        return None
    by_score = float(ks_2samp(held_score, score).pvalue)
    by_code = energy_test(held_code, code, seed=seed)
    found = [by_score, by_code, *(column.p_value for column in columns[:1])]
    return Drift(min(1.0, min(found) * len(found)), by_score, by_code, len(score), columns)


def compare_columns(
    held: np.ndarray, new: np.ndarray, names: Sequence[str], categories: Sequence[int]
) -> tuple[ColumnDrift, ...]:
    """Compare each column of new rows (n, D) with that of held-out rows (m, D), in the order of the p-values.

    Missing values are nan. The rows of `held` may be in another order in each column.

    Arguments:
        names: the names of the columns.
        categories: the number of categories of each column, whose values are then codes; 0 for numbers.
    """
    found, of_held, of_new = [], np.ascontiguousarray(held.T), np.ascontiguousarray(new.T)  # columns lie together
    for j, name in enumerate(names):
        pairs = [_missing(of_held[j], of_new[j])]
        a, b = (values[~np.isnan(values)] for values in (of_held[j], of_new[j]))
        if min(len(a), len(b)) >= FEWEST:
            pairs.append(_shares(a, b, categories[j]) if categories[j] else _cumulative(a, b))
        p = min(p for p, _ in pairs) * max(1, sum(distance is not None for _, distance in pairs))
        distance = max(distance or 0.0 for _, distance in pairs)
        gone = pairs[0][1] is not None and pairs[0][0] <= min(p for p, _ in pairs)
        missing = (float(np.isnan(of_held[j]).mean()), float(np.isnan(of_new[j]).mean())) if gone else None
        found.append(ColumnDrift(name, min(1.0, p * len(names)), distance, missing))
    return tuple(sorted(found, key=lambda column: (column.p_value, -column.distance)))


def _cumulative(held: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """The p-value and the distance of two samples of numbers."""
    from scipy.stats import ks_2samp

    if len(held) * len(new) <= EXACT:
        found = ks_2samp(held, new, method="exact")
        return float(found.pvalue), float(found.statistic)
    held, new = np.sort(held), np.sort(new)
    both = np.concatenate([held, new])
    shares = [np.searchsorted(values, both, "right") / len(values) for values in (held, new)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    return _asymptotic(distance, len(held), len(new)), distance


@functools.lru_cache(100_000)
def _asymptotic(distance: float, m: int, n: int) -> float:
    """The p-value of `ks_2samp` for this distance; cached, because it takes a millisecond and distances recur."""
    from scipy.stats import kstwo

    return float(np.clip(kstwo.sf(distance, np.round(m * n / (m + n))), 0, 1))


def _shares(held: np.ndarray, new: np.ndarray, categories: int) -> tuple[float, float]:
    """The p-value and the distance of two samples of category codes."""
    from scipy.stats import chi2_contingency

    counts = np.stack([np.bincount(codes.astype(int), minlength=categories) for codes in (held, new)])
    counts = counts[:, counts.sum(0) > 0]
    share = counts / counts.sum(1, keepdims=True)
    rare = counts.sum(0) * counts.sum(1).min() / counts.sum() < EXPECTED
    counts = np.c_[counts[:, ~rare], counts[:, rare].sum(1)] if rare.any() else counts
    counts = counts[:, counts.sum(0) > 0]
    p = float(chi2_contingency(counts).pvalue) if counts.shape[1] > 1 else 1.0
    return p, float(np.abs(share[0] - share[1]).sum() / 2)


def _missing(held: np.ndarray, new: np.ndarray) -> tuple[float, float | None]:
    """The p-value and the difference of the shares of missing values; 1 and None if there are none."""
    from scipy.stats import fisher_exact

    gone = [int(np.isnan(values).sum()) for values in (held, new)]
    if not any(gone):
        return 1.0, None
    p = float(fisher_exact([[gone[0], len(held) - gone[0]], [gone[1], len(new) - gone[1]]])[1])
    return p, abs(gone[0] / len(held) - gone[1] / len(new))


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

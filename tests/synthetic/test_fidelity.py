"""Distances of columns and pairs: closed forms, and their laws where both samples are real."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from vaekit.data.core import Column
from vaekit.synthetic import Estimate, distances, fidelity

NUMBER = Column("x", "real")


def categories(name, n):
    return Column(name, "categorical", tuple("abcdefgh"[:n]))


def test_the_distance_of_shifted_gaussians_has_its_closed_form():
    n, d = 4000, 0.8
    rng = np.random.default_rng(0)
    found = distances(rng.normal(d, 1, (n, 1)), rng.normal(0, 1, (n, 1)), [NUMBER], rng.normal(size=(n, 1)))
    exact = 2 * ndtr(d / 2) - 1
    estimate = Estimate.of_draws(found.columns[:, 0])
    assert abs(estimate.value - exact) < 1.63 * math.sqrt(2 / n)  # Kolmogorov's law at 1%
    assert estimate.low < exact < estimate.high
    assert 0.5 / math.sqrt(n) < estimate.se < 1 / math.sqrt(n)  # sqrt((F(1 - F) + G(1 - G)) / n), at most sqrt(1 / 2n)


def test_real_against_real_keeps_to_kolmogorovs_law():
    n, columns = 200, [NUMBER] * 60
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, n, 60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "DRAWS", 2)
        value = distances(a, b, columns, b).columns[0]
    above = (value > 1.358 * math.sqrt(2 / n)).sum()
    assert above <= 9  # of 60 at 5%: more has a chance below 0.1%
    assert 0.6 < np.median(value) / (0.828 * math.sqrt(2 / n)) < 1.2  # 0.828: the median of the law


def test_the_distance_of_categories_is_half_the_sum_of_the_differences():
    a = np.repeat([0, 1, 2], [50, 30, 20])[:, None].astype(float)
    b = np.repeat([0, 1, 2], [20, 30, 50])[:, None].astype(float)
    assert np.isclose(distances(a, b, [categories("c", 3)], b).columns[0, 0], 0.3)


def test_missing_values_count_as_a_value():
    a = np.array([[1.0], [2.0], [np.nan], [np.nan]])
    b = np.array([[1.0], [2.0], [1.0], [2.0]])
    for column in (NUMBER, categories("c", 3)):
        assert distances(a, b, [column], b).columns[0, 0] == 0.5


def test_a_permuted_column_breaks_pairs_but_no_column():
    n, rho = 3000, 0.7
    rng = np.random.default_rng(2)
    pair = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    rows = np.column_stack([pair, pair[:, 0] > 0])
    columns = [NUMBER, Column("y", "real"), Column("z", "binary")]
    permuted = rows.copy()
    permuted[:, 0] = rng.permutation(rows[:, 0])
    found = distances(permuted, rows, columns, rows)
    assert not found.columns[0].any()
    correlation = Estimate.of_draws(found.associations[:, 0, 1])
    spearman = 6 / math.pi * math.asin(rho / 2)
    assert correlation.low < -spearman < correlation.high
    assert abs(correlation.value + spearman) < 0.06
    # Cramer's V of a split at the median is 1 in bins; permuted, it is corrected to nearly 0
    assert -1.01 < found.associations[0, 0, 2] < -0.93
    assert abs(found.associations[0, 1, 2]) < 1e-12
    assert abs(found.pairs[0, 0, 2] - 0.5) < 0.05  # half of each of ten bins is misplaced
    assert found.pairs[0, 1, 2] == 0


def test_the_distance_of_pairs_is_that_of_their_tables():
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 4, (300, 3)).astype(float) for _ in range(2))
    columns = [categories(name, 4) for name in "xyz"]
    found = distances(a, b, columns, b).pairs[0]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        tables = [np.bincount((4 * x[:, i] + x[:, j]).astype(int), minlength=16) / 300 for x in (a, b)]
        assert abs(found[i, j] - abs(tables[0] - tables[1]).sum() / 2) < 1e-6  # one-hot products in float32


def test_rare_categories_share_a_level_in_pairs():
    n = 3 * fidelity.LEVELS
    codes = np.repeat(np.arange(n), np.where(np.arange(n) < 50, 9, 1)).astype(float)
    rows = np.column_stack([codes, codes % 2])
    columns = [Column("x", "categorical", tuple(map(str, range(n)))), Column("y", "binary")]
    swapped = rows.copy()
    swapped[-2:, 0] = swapped[-2:, 0][::-1]  # two of the rarest
    found = distances(swapped, rows, columns, rows)
    level = fidelity._Levels(columns[0], codes)
    assert level.size == fidelity.LEVELS + 1
    np.testing.assert_allclose(level(codes).sum(0)[:50], 9)
    assert level(codes)[-2:, fidelity.LEVELS - 1].all()
    assert found.pairs[0, 0, 1] == pytest.approx(0, abs=1e-6)


def test_constant_columns_are_at_no_distance():
    rows = np.column_stack([np.full(50, 7.0), np.arange(50.0), np.zeros(50)])
    found = distances(rows, rows, [NUMBER, NUMBER, Column("z", "binary")], rows)
    assert not found.columns[0].any()
    assert not found.associations[0].any()

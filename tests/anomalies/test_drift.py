"""The comparison of a file as a whole with held-out rows: its level, and what it finds."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from vaekit.anomalies.drift import compare_columns, energy_test, two_sample


def test_it_holds_its_level_and_finds_a_shift():
    rng = np.random.default_rng(0)
    draws, level, found = 100, 0.1, 0
    for seed in range(draws):
        z = rng.standard_t(3, (50, 2))
        score = -(z**2).sum(1)
        drift = two_sample(score[:30], score[30:], z[:30], z[30:], seed=seed)
        found += drift.p_value <= level
    # at most the level: three standard errors of the draws above it
    assert found / draws <= level + 3 * np.sqrt(level * (1 - level) / draws)
    assert found > 0
    z, moved = rng.normal(size=(60, 2)), rng.normal((1.2, 0), size=(60, 2))
    drift = two_sample(np.zeros(60), np.zeros(60), z, moved)
    assert drift.codes == 0.001
    assert drift.scores == 1
    assert drift.p_value == 0.002


def test_the_p_value_of_the_energy_distance_is_uniform():
    rng = np.random.default_rng(1)
    p = np.sort([energy_test(*np.split(rng.normal(size=(24, 1)), 2), exchanges=99, seed=seed) for seed in range(300)])
    grid = np.arange(1, 301) / 300
    assert np.abs(p - grid).max() < 1.95 / np.sqrt(300) + 0.01  # Kolmogorov's limit at level 0.001, and steps of 0.01


def test_few_rows_and_constant_codes_are_not_tested():
    z = np.zeros((20, 2))
    assert two_sample(np.zeros(20), np.zeros(5), z, z[:5]) is None
    assert energy_test(z, z) == 1


def _mixed(rng, n):
    """Three columns of numbers and two of three categories, without drift."""
    return np.c_[rng.normal(size=(n, 2)), rng.integers(0, 4, n), rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.choice(3, n)]


NAMES, CATEGORIES = ["a", "b", "whole", "kind", "group"], [0, 0, 0, 3, 3]


def test_the_columns_that_drift_are_named():
    rng = np.random.default_rng(2)
    held, new = _mixed(rng, 400), _mixed(rng, 300)
    new[:, 1] += 0.8
    new[:, 3] = rng.choice(3, 300, p=[0.3, 0.3, 0.4])
    new[:90, 4] = np.nan
    columns = compare_columns(np.sort(held, 0), new, NAMES, CATEGORIES)
    assert {c.column for c in columns[:3]} == {"b", "kind", "group"}
    assert all(c.p_value < 1e-6 for c in columns[:3])
    assert all(c.p_value > 0.05 for c in columns[3:])
    shifted, kind, group = (next(c for c in columns if c.column == name) for name in ("b", "kind", "group"))
    assert abs(shifted.distance - 0.311) < 0.09  # 2 Phi(0.4) - 1, and two standard errors
    assert abs(kind.distance - 0.3) < 0.09
    assert group.distance == 0.3  # the share of missing values
    assert group.by == "30% missing instead of 0%"
    assert shifted.by == f"distance {shifted.distance:.2f}"
    drift = two_sample(np.arange(400.0), np.arange(300.0) * 4 / 3, held[:, :2], held[:300, :2], columns=columns)
    assert drift.p_value == 3 * columns[0].p_value
    assert drift.named().startswith(columns[0].column)
    assert "distance" in drift.named()


def test_the_columns_hold_the_level_together():
    rng = np.random.default_rng(3)
    draws, level = 200, 0.1
    found = sum(
        compare_columns(_mixed(rng, 60), _mixed(rng, 40), NAMES, CATEGORIES)[0].p_value <= level for _ in range(draws)
    )
    assert 0 < found / draws <= level + 3 * np.sqrt(level * (1 - level) / draws)


def test_columns_without_values_do_not_differ():
    held, new = np.full((20, 1), np.nan), np.full((9, 1), np.nan)
    assert compare_columns(held, new, ["a"], [0])[0].p_value == 1
    assert compare_columns(np.ones((20, 1)), np.ones((9, 1)), ["a"], [2])[0].p_value == 1


def test_few_numbers_are_compared_by_the_exact_distribution():
    """Of the C(16, 8) orders of two samples of 8, two separate them."""
    (found,) = compare_columns(np.arange(8.0)[:, None], np.arange(8.0, 16)[:, None], ["a"], [0])
    assert found.p_value == pytest.approx(2 / math.comb(16, 8))
    assert found.distance == 1


@pytest.mark.parametrize(("m", "n"), [(150, 400), (300, 250)])
def test_many_numbers_are_compared_as_scipy_does(m, n):
    rng = np.random.default_rng(m)
    held, new = rng.normal(size=(m, 3)), rng.normal([0, 0.2, 1], size=(n, 3))
    held[:20], new[:30, 0] = 0.5, 0.5  # ties
    for column in compare_columns(held, new, ["0", "1", "2"], [0, 0, 0]):
        expected = ks_2samp(held[:, int(column.column)], new[:, int(column.column)], method="asymp")
        assert column.distance == pytest.approx(expected.statistic, rel=1e-12)
        assert column.p_value == pytest.approx(min(1, 3 * expected.pvalue), rel=1e-9)

"""The comparison of a file as a whole with held-out rows: its level, and what it finds."""

import numpy as np

from vaekit.anomalies.drift import energy_test, two_sample


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

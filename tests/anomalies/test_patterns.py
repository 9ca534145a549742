"""The effect of missing values on a score: it is recovered in spite of outliers, and makes rows comparable."""

import numpy as np
import pytest

from vaekit.anomalies.patterns import Pattern


@pytest.mark.parametrize("outliers", [0, 50])
def test_the_effect_of_each_value_is_recovered_in_spite_of_outliers(outliers):
    """The expectation is known; 5% of the rows score 1,000 nats lower."""
    rng = np.random.default_rng(0)
    present = rng.random((1000, 5)) > [0.05, 0.3, 0.3, 0.3, 0.0]
    told = np.array([10.0, -1.0, 0.5, 2.0, 0.0])
    score = -3 + present @ told + rng.normal(size=1000)
    odd = rng.permutation(999)[:outliers]
    score[odd] -= 1000
    pattern = Pattern.fit(present, np.r_[score[:-1], -np.inf])
    np.testing.assert_allclose(pattern.effect[1:5], told[:4], atol=0.5)
    relative = pattern.relative(present, score)
    usual = np.setdiff1d(np.arange(1000), odd)
    assert not outliers or relative[odd].max() < relative[usual].min()
    for lacks in present.T[:4]:
        apart = relative[usual][~lacks[usual]].mean() - relative[usual][lacks[usual]].mean()
        assert abs(apart) < 0.4


def test_many_elements_share_one_effect():
    rng = np.random.default_rng(1)
    present = rng.random((500, 200)) > 0.2
    pattern = Pattern.fit(present, 0.7 * present.sum(1) + rng.normal(size=500))
    np.testing.assert_allclose(pattern.effect[1:], 0.7, atol=0.03)


@pytest.mark.parametrize(("columns", "effect"), [(1, 40.0), (1, 300.0), (20, 7.0)])
def test_an_effect_of_many_standard_deviations_is_found_if_many_rows_have_it(columns, effect):
    rng = np.random.default_rng(2)
    present = np.ones((1000, 30), dtype=bool)
    gaps = rng.permutation(1000)[:50]
    present[np.ix_(gaps, range(columns))] = False
    score = effect * present[:, :columns].sum(1) + rng.normal(size=1000)
    score[gaps[:5]] -= 200
    found = Pattern.fit(present, score)
    # the ridge moves it by less than a standard deviation of the noise
    np.testing.assert_allclose(found.effect[1 : 1 + columns].sum(), effect * columns, atol=1)
    relative = found.relative(present, score)
    assert np.abs(relative[gaps[5:]]).mean() < 1.5
    assert relative[gaps[:5]].max() < -20

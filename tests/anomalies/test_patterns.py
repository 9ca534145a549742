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

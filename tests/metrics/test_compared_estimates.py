"""Means and differences over seeds and data: against scipy, by hand, and their coverage on simulated runs."""

import math

import numpy as np
import pytest
from scipy import stats

from vaekit.metrics.compared import Estimate, difference, holm, mean

RNG = np.random.default_rng(0)


def test_the_mean_over_seeds_has_scipys_t_interval():
    values = RNG.normal(size=5)
    found = mean(list(values), se=9.0)  # the error over data of single runs does not enter
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found.interval() == pytest.approx((low, high), rel=1e-12)
    assert (found.over, found.p) == ("seeds", pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9))


def test_a_single_run_has_an_interval_over_data():
    found = mean([2.0], se=0.5, degrees=99)
    assert found.interval() == pytest.approx(stats.t.interval(0.95, 99, 2.0, 0.5), rel=1e-12)
    assert found.over == "data"
    assert mean([2.0]).interval() is None


def test_two_runs_are_paired_by_datum():
    x, y = RNG.normal(size=(2, 50))
    found = difference([x], [y])
    assert found.p == pytest.approx(stats.ttest_rel(x, y).pvalue, rel=1e-9)
    assert found.interval() == pytest.approx(tuple(stats.ttest_rel(x, y).confidence_interval(0.95)), rel=1e-9)
    assert found.over == "data"


def test_numbers_without_data_are_compared_over_seeds():
    x, y = RNG.normal(size=(2, 4))
    paired = difference(x, y, paired=True)
    assert paired.p == pytest.approx(stats.ttest_rel(x, y).pvalue, rel=1e-9)
    welch = difference(x, y)
    assert welch.p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, rel=1e-9)
    with_one = difference(x, [1.5])  # equal spread: the two-sample t test with a sample of one
    assert with_one.p == pytest.approx(stats.ttest_ind(x, [1.5]).pvalue, rel=1e-9)
    assert difference([1.0], [2.0]).interval() is None


def test_seeds_and_data_are_combined_as_in_a_table_by_hand():
    """The two-way analysis of variance: var = (MS_seeds + MS_data - MS_rest) / (R N)."""
    d = RNG.normal(size=(3, 8)) + RNG.normal(size=(3, 1)) + RNG.normal(size=8)
    y = RNG.normal(size=(3, 8))
    found = difference(list(d + y), list(y), paired=True)
    r, n = d.shape
    grand, of_seed, of_datum = d.mean(), d.mean(1), d.mean(0)
    seeds = n * sum((m - grand) ** 2 for m in of_seed) / (r - 1)
    data = r * sum((m - grand) ** 2 for m in of_datum) / (n - 1)
    rest = sum((d[i, j] - of_seed[i] - of_datum[j] + grand) ** 2 for i in range(r) for j in range(n))
    rest /= (r - 1) * (n - 1)
    assert data > rest
    assert found.se == pytest.approx(math.sqrt((seeds + data - rest) / (r * n)), rel=1e-12)
    t = stats.t.ppf(0.975, [2, 7])
    reach = math.sqrt((t[0] ** 2 * seeds + t[1] ** 2 * (data - rest)) / (r * n))
    assert found.interval() == pytest.approx((grand - reach, grand + reach), rel=1e-12)


def test_groups_count_as_units():
    """Ten copies of each datum, grouped, are worth one."""
    x, y = RNG.normal(size=(2, 3, 20))
    group = np.repeat(np.arange(20), 10)
    copied = difference([np.repeat(v, 10) for v in x], [np.repeat(v, 10) for v in y], group=group)
    once = difference(list(x), list(y))
    assert copied.se == pytest.approx(once.se, rel=1e-9)
    assert copied.interval() == pytest.approx(once.interval(), rel=1e-9)


@pytest.mark.parametrize(
    ("seed", "datum", "rest"), [(1.0, 0.1, 0.1), (0.1, 2.0, 0.5), (0.3, 1.5, 1.0), (0.0, 0.0, 1.0)]
)
@pytest.mark.parametrize("paired", [True, False])
def test_simulated_seeds_have_the_stated_coverage(seed, datum, rest, paired):
    """Three seeds of each setting, 40 data: intervals of 95% hold the truth in 95% of experiments or a bit more."""
    rng, times, inside = np.random.default_rng(1), 400, 0
    for _ in range(times):
        a = rng.normal(size=(2, 3, 1)) * seed + rng.normal(size=(2, 1, 40)) * datum + rng.normal(size=(2, 3, 40)) * rest
        low, high = difference(list(a[0] + 0.7), list(a[1]), paired=paired).interval()
        inside += low <= 0.7 <= high
    assert inside / times > 0.95 - 3 * math.sqrt(0.05 * 0.95 / times)
    assert inside / times < 0.999


def test_equal_values_of_a_few_seeds_prove_nothing():
    found = mean([10, 10, 10])
    assert (found.value, found.se, found.interval(), found.p) == (10, 0, None, None)


def test_the_p_value_is_the_level_whose_interval_ends_at_0():
    found = Estimate(1.3, ((0.09, 2), (0.04, 50)))
    assert found.interval(found.p)[0] == pytest.approx(0, abs=1e-9)
    assert Estimate(1e9, ((1.0, 3),)).p <= 1e-15


def test_holm_keeps_the_order_and_leaves_unknown_ones_out():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None]) == [None]

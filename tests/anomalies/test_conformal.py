"""p-values of new rows among held-out rows: their exact distribution, ties, thresholds, groups."""

import numpy as np
import pytest

from vaekit.anomalies.conformal import HeldOutScores, check_rate, rows_needed
from vaekit.errors import ChoiceError


def test_without_ties_p_is_uniform_on_its_grid():
    """The rank of one of n + 1 exchangeable scores is uniform on 1..n+1, exactly and for every n."""
    n, draws = 9, 10_000
    rng = np.random.default_rng(0)
    scores = rng.standard_t(2, (draws, n + 1))
    p = np.array([HeldOutScores(row[:n]).p_values(row[n:])[0] for row in scores])
    counts = np.bincount(np.round(p * (n + 1)).astype(int), minlength=n + 2)[1:]
    assert counts.sum() == draws
    expected = draws / (n + 1)
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square with 9 degrees of freedom, level 0.001


def test_ties_count_against():
    held = HeldOutScores([1.0, 2.0, 2.0, 3.0])
    np.testing.assert_allclose(held.p_values([0.5, 1.0, 2.0, 3.0, 4.0]), np.array([1, 2, 4, 5, 5]) / 5)
    np.testing.assert_allclose(held.percentiles([0.5, 2.0, 4.0]), [100, 25, 0])


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("n", [1, 19, 20, 99, 100])
def test_the_threshold_flags_exactly_the_rows_whose_p_is_at_most_the_rate(n, rate):
    rng = np.random.default_rng(n)
    held = HeldOutScores(np.round(rng.normal(size=n), 1))  # with ties
    new = np.round(rng.normal(size=500), 1) - 1
    flagged = held.p_values(new) <= rate + 1e-9
    np.testing.assert_array_equal(new < held.threshold(rate), flagged)
    supported = n >= rows_needed(rate)
    assert supported == (rate >= held.smallest_rate - 1e-12)
    if supported:
        held.check_supports(rate)
    else:
        assert not flagged.any()
        with pytest.raises(ChoiceError, match=f"needs {rows_needed(rate)} held-out rows or more"):
            held.check_supports(rate)


def test_rows_that_are_needed():
    assert [rows_needed(rate) for rate in (0.01, 0.05, 0.1, 0.5)] == [99, 19, 9, 1]
    assert HeldOutScores(np.zeros(99)).smallest_rate == pytest.approx(0.01)


def test_held_out_rows_are_compared_with_the_others():
    scores = np.random.default_rng(3).normal(size=12)
    own = HeldOutScores(scores).own_p_values()
    others = [HeldOutScores(np.delete(scores, i)).p_values(scores[i : i + 1])[0] for i in range(12)]
    np.testing.assert_allclose(own, others)
    rng = np.random.default_rng(4)
    scores, group = rng.integers(0, 6, 60).astype(float), rng.integers(0, 9, 60)  # groups of several sizes, with ties
    own = HeldOutScores(scores, group).own_p_values()
    others = [
        HeldOutScores(scores[group != g], group[group != g]).p_values([s])[0]
        for s, g in zip(scores, group, strict=True)
    ]
    np.testing.assert_allclose(own, others)


def test_groups_count_as_one_row_each():
    """Scores of one group are equal: single rows would claim twenty times the evidence."""
    rng = np.random.default_rng(1)
    hits = {"rows": 0, "groups": 0}
    draws, groups, size, rate = 2000, 9, 20, 0.1
    for _ in range(draws):
        held = np.repeat(rng.normal(size=groups), size) + 1e-6 * rng.normal(size=groups * size)
        new = rng.normal(size=1)
        hits["rows"] += HeldOutScores(held).p_values(new)[0] <= rate
        hits["groups"] += HeldOutScores(held, np.repeat(np.arange(groups), size)).p_values(new)[0] <= rate + 1e-9
    assert abs(hits["groups"] / draws - rate) < 3 * np.sqrt(rate * (1 - rate) / draws)
    scores, group = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    held = HeldOutScores(scores, group)
    np.testing.assert_allclose(held.p_values([1.5]), [(1 + 0.5) / 3])
    # each row among the rows of the other group alone
    np.testing.assert_allclose(held.own_p_values(), [1 / 2, 1 / 2, 1.0, 1.0])


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan")])
def test_rates_that_cannot_be(rate):
    with pytest.raises(ChoiceError, match="between 0 and 1"):
        check_rate(rate)

"""Whether rows give training rows away: copies are found, fresh rows are near neither, and the gaps have their law."""

import math

import numpy as np
from scipy.special import logsumexp, ndtr
from scipy.stats import norm

from vaekit.data.core import Column
from vaekit.synthetic import copies, density_gap, nearness
from vaekit.synthetic.features import Gower

COLUMNS = [Column("a", "real"), Column("b", "real"), Column("c", "categorical", ("x", "y", "z"))]


def table(n, rng):
    return np.column_stack([rng.normal(size=(n, 2)), rng.integers(0, 3, n)])


def test_the_distance_is_the_mean_difference_in_rank_or_category():
    rows = np.column_stack([np.arange(10.0), np.arange(10.0) ** 3, np.zeros(10)])
    gower = Gower(COLUMNS, rows)
    a = np.array([[2.0, 27.0, 0.0], [2.0, np.nan, 1.0]])
    b = np.array([[5.0, 27.0, 0.0]])
    distance, where, back = gower.nearest(a, b)
    assert np.allclose(back, [0.1])
    assert np.allclose(distance, [(0.3 + 0 + 0) / 3, (0.3 + 1 + 1) / 3])
    assert where.tolist() == [0, 0]


def test_copies_are_found_and_counted():
    rng = np.random.default_rng(0)
    train, test, fresh = table(300, rng), table(300, rng), table(200, rng)
    rows = np.concatenate([fresh, train[:60]])
    found = nearness(rows, train, test, COLUMNS)
    copied = copies(rows, train)
    assert copied.value == 60 / 260
    assert 0.18 < copied.low < copied.value < copied.high < 0.29
    assert copies(rows, test) == (0, 0, 0, copies(rows, test).high)
    holes, negative = np.array([[np.nan, 0.0, 1.0]]), np.array([[-np.nan, -0.0, 1.0]])
    assert copies(holes, negative).value == 1
    assert not found.to_train[200:].any()
    assert abs(found.nearer.value - (0.5 * 200 + 60) / 260) < 4 * math.sqrt(0.25 / 200)
    assert found.nearer.low > 0.5
    shown = found.membership
    assert shown.low > 0.5
    assert abs(shown.value - (0.2 + 0.8 * 0.5)) < 4 * shown.se  # a fifth of the training rows are certain


def test_fresh_rows_are_as_near_to_test_rows_and_the_intervals_say_so():
    """Also where many rows share a neighbour: the plain binomial interval would be too short."""
    rng = np.random.default_rng(1)
    missed, gaps = 0, 0
    for _ in range(60):
        train, test, rows = table(25, rng), table(25, rng), table(400, rng)
        found = nearness(rows, train, test, COLUMNS)
        missed += not found.nearer.low < 0.5 < found.nearer.high
        gaps += not found.membership.low < 0.5 < found.membership.high
    assert missed <= 9  # of 60 at 5%: more has a chance below 0.1%
    assert gaps <= 9


def test_an_overfitted_density_shows_its_members():
    rng = np.random.default_rng(2)
    train, valid, test = rng.normal(size=(3, 200))

    def log_density(x, width):
        return logsumexp(norm.logpdf(x[:, None], train, width), 1) - math.log(len(train))

    def gap(width):
        return density_gap(
            {name: log_density(x, width) for name, x in (("train", train), ("valid", valid), ("test", test))}
        )

    sharp, smooth = gap(0.002), gap(1.0)
    assert sharp.estimate.low > 0.6
    assert sharp.verdict == "worse"
    assert sharp.floor.low < 0.5 < sharp.floor.high
    assert smooth.verdict == "like real"


def test_the_membership_gap_of_shifted_scores_has_its_closed_form():
    rng = np.random.default_rng(3)
    log_px = {"train": rng.normal(0.5, 1, 1500), "test": rng.normal(0, 1, 1500)}
    found = density_gap(log_px)
    assert found.estimate.low < ndtr(0.5 / math.sqrt(2)) < found.estimate.high
    assert found.floor is None

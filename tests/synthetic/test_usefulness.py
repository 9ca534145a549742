"""Training on synthetic rows, and telling them from real ones."""

import numpy as np
import pytest
from scipy.special import ndtr

from vaekit.data.core import Column
from vaekit.synthetic import detectability, features, transfer, usefulness

COLUMNS = [Column("a", "real"), Column("b", "categorical", ("x", "y", "z")), Column("y", "real")]


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """Fewer trees than users get, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "ROUNDS", 12)
        patch.setattr(usefulness, "DRAWS", 20)
        yield


def table(n, rng, noise=0.5):
    a, b = rng.normal(size=n), rng.integers(0, 3, n)
    return np.column_stack([a, b, a + np.array([0.0, 1.0, -1.0])[b] + noise * rng.normal(size=n)])


def test_a_linear_law_has_its_r2_and_permuted_rows_are_useless():
    rng = np.random.default_rng(0)
    train, test, own = table(600, rng), table(2000, rng), table(600, rng)
    trees, linear = transfer(own, train, test, COLUMNS, 2)
    exact = 1 - 0.25 / (1 + 2 / 3 + 0.25)
    assert abs(linear.real.value - exact) < 0.02
    assert exact - 0.15 < trees.real.value < exact
    for found in (trees, linear):
        assert found.score == "R2"
        assert abs(found.difference.value) < 4 * found.difference.se + 0.01
        assert found.floor.value == 0 < found.floor.se < found.difference.se
    permuted = train.copy()
    permuted[:, 2] = rng.permutation(train[:, 2])
    for found in transfer(permuted, train, test, COLUMNS, 2):
        assert found.synthetic.value < 0.1
        assert found.difference.high < -0.6


def test_the_interval_of_a_difference_is_over_training_rows_too(monkeypatch):
    """Two sets of few real rows: over the test rows alone, which are many, the intervals would miss 0."""
    monkeypatch.setattr(usefulness, "MODELS", (usefulness.LINEAR,))
    rng = np.random.default_rng(6)
    test, missed = table(3000, rng), 0
    for seed in range(12):
        (found,) = transfer(table(40, rng), table(40, rng), test, COLUMNS, 2, seed=seed)
        missed += not found.difference.low < 0 < found.difference.high
    assert missed <= 3  # of 12; with 3 degrees of freedom, about 1 in 8


def test_the_area_of_classes_is_that_of_the_best_rule_and_absent_classes_count_as_chance():
    rng = np.random.default_rng(1)

    def classes(n):
        y = rng.integers(0, 3, n)
        return np.column_stack([np.array([0.0, 3.0, 6.0])[y] + rng.normal(size=n), rng.normal(size=n), y])

    columns = [Column("a", "real"), Column("n", "real"), Column("y", "categorical", ("p", "q", "r"))]
    train, test = classes(400), classes(900)
    without = train[train[:, 2] < 2]
    without = np.concatenate([without, without])[: len(train)]
    trees, _ = transfer(without, train, test, columns, 2)
    assert trees.score == "AUC"
    assert trees.real.value > 0.95
    # class r, never seen, scores 1/2; the other two are told apart only from each other
    assert 0.6 < trees.synthetic.value < 0.9
    assert trees.difference.high < -0.05
    constant = train.copy()
    constant[:, 2] = 1
    assert transfer(constant, train, test, columns, 2)[0].synthetic.value == 0.5


def test_missing_values_and_many_categories_are_handled():
    rng = np.random.default_rng(2)
    names = tuple(f"c{i}" for i in range(300))
    columns = [Column("a", "real"), Column("m", "categorical", names), Column("y", "binary")]
    rows = np.column_stack([rng.normal(size=400), rng.integers(0, 300, 400), rng.integers(0, 2, 400)]).astype(float)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    for found in transfer(rows[:200], rows[:200], rows[200:], columns, 2):
        assert found.difference.value == 0
        assert 0.3 < found.real.value < 0.7
    assert 0.3 < detectability(rows[:200], rows[200:], columns).value < 0.7


def test_rows_of_one_law_cannot_be_told_apart():
    rng = np.random.default_rng(3)
    found = [detectability(table(150, rng), table(150, rng), COLUMNS, seed=seed) for seed in range(6)]
    missed = sum(not one.low < 0.5 < one.high for one in found)
    assert missed <= 2  # of 6 at 5%: more has a chance of 0.2%


def test_shifted_gaussians_are_told_apart_almost_as_well_as_can_be():
    rng = np.random.default_rng(4)
    found = detectability(rng.normal(1.5, 1, (800, 1)), rng.normal(0, 1, (900, 1)), COLUMNS[:1])
    best = ndtr(1.5 / np.sqrt(2))
    assert best - 0.06 < found.value < best + 3 * found.se


@pytest.mark.parametrize("n", [10, 24])
def test_few_rows_are_enough(n):
    rng = np.random.default_rng(5)
    assert 0 <= detectability(table(n, rng), table(n, rng), COLUMNS).value <= 1
    assert len(transfer(table(n, rng), table(n, rng), table(n, rng), COLUMNS, 1)) == 2

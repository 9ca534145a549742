"""The scores against codes with known answers, and dSprites' geometry."""

import math

import numpy as np
import pytest

from vaekit.data import dsprites, load
from vaekit.errors import ChoiceError
from vaekit.metrics.disentanglement import (
    binned,
    entropies,
    factor_score,
    mig_ceiling,
    mig_chen,
    mig_lib,
    mutual_information,
)


@pytest.fixture(scope="module")
def grid():
    """Every combination of factors with 3, 4 and 5 values, five times."""
    return np.tile(np.stack(np.unravel_index(np.arange(60), (3, 4, 5)), -1), (5, 1))


def narrow(codes):
    return np.full(codes.shape, 0.01)


def test_a_perfect_code_has_full_scores(grid):
    codes = grid * [2.0, -1.0, 0.5]
    assert mig_lib(codes, grid).value == pytest.approx(1, abs=1e-12)
    assert mig_chen(codes, narrow(codes), grid).value == pytest.approx(1, abs=1e-3)
    score = factor_score(codes, grid)
    assert score.value == 1
    assert score.matrix.argmax(0).tolist() == [0, 1, 2]


def test_noise_beside_a_perfect_code_costs_nothing_but_its_chance(grid):
    rng = np.random.default_rng(0)
    codes = np.concatenate([grid, rng.normal(size=(300, 4))], 1)
    assert factor_score(codes, grid).value == 1
    assert mig_chen(codes, np.concatenate([narrow(grid), np.ones((300, 4))], 1), grid).value > 0.85


def test_a_duplicated_code_has_no_gap_but_all_the_votes(grid):
    codes = np.concatenate([grid, grid], 1).astype(float)
    assert mig_lib(codes, grid).value == pytest.approx(0, abs=1e-12)
    assert mig_chen(codes, narrow(codes), grid).value == pytest.approx(0, abs=1e-9)
    assert factor_score(codes, grid).value == 1


def test_a_collapsed_code_is_at_chance(grid):
    rng = np.random.default_rng(0)
    codes = 1e-4 * rng.normal(size=(300, 3))
    assert factor_score(codes, grid).value == pytest.approx(1 / 3)
    assert mig_chen(codes, np.ones((300, 3)), grid).value < 1e-3


def test_a_rotated_code_lies_between(grid):
    """Two factors in two latents, half and half: neither latent tells more of one, and a vote is the toss of a coin."""
    z = (grid - grid.mean(0)) / grid.std(0)
    z[:, :2] = np.stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]], 1) / math.sqrt(2)
    each = mig_chen(z, narrow(z), grid).each
    assert each[:2].max() < 0.05
    assert each[2] == pytest.approx(1, abs=1e-3)
    score = factor_score(z + 1e-3 * np.random.default_rng(0).normal(size=z.shape), grid)  # no exact ties
    assert score.value == pytest.approx(2 / 3, abs=0.03)  # 5,000 votes: 0.007 a standard deviation
    assert score.each[2] == 1


def test_the_information_of_a_gaussian_channel():
    """z = +-1 with noise s: I(z; v) by quadrature of the mixture's entropy."""
    v = np.repeat([0, 1], 200)
    s = 0.7
    x = np.linspace(-12, 12, 40_001)
    density = 0.5 * sum(np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for m in (-1, 1))
    entropy = -np.sum(density * np.log(np.maximum(density, 1e-300))) * (x[1] - x[0])
    want = entropy - 0.5 * math.log(2 * math.pi * math.e * s**2)
    score = mig_chen((2.0 * v - 1)[:, None], np.full((400, 1), s), v)
    assert score.value == pytest.approx(want / math.log(2), abs=1e-4)


def test_mutual_information_counts_as_one_pair_at_a_time_does():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 7, (500, 3)), rng.integers(0, 4, (500, 2))
    b[:, 1] = a[:, 2] // 2
    got = mutual_information(a, b)
    for i in range(3):
        for k in range(2):
            joint = np.histogram2d(a[:, i], b[:, k], [np.arange(8), np.arange(5)])[0] / 500
            product = np.outer(joint.sum(1), joint.sum(0))
            kept = joint > 0
            assert got[i, k] == pytest.approx((joint[kept] * np.log(joint[kept] / product[kept])).sum(), abs=1e-12)
    share = np.bincount(b[:, 0]) / 500
    assert entropies(b)[0] == pytest.approx(-(share * np.log(share)).sum())


def test_bins_are_of_one_width_and_a_constant_is_one_bin():
    codes = np.stack([np.linspace(-3, 5, 41), np.full(41, 2.0)], 1)
    found = binned(codes, bins=4)
    assert found[[0, 9, 10, 40], 0].tolist() == [0, 0, 1, 3]
    assert not found[:, 1].any()


def test_bins_bound_the_score_of_a_perfect_code_of_dsprites():
    """With 20 bins for 40 angles (pairs) and 32 places (12 pairs, 8 alone)."""
    rows = np.unravel_index(np.arange(3 * 6 * 40 * 32), (3, 6, 40, 32))
    factors = np.stack(rows, 1)
    angle = math.log(20) / math.log(40)
    place = (math.log(32) - 24 / 32 * math.log(2)) / math.log(32)
    np.testing.assert_allclose(mig_lib(factors.astype(float), factors).each, [1, 1, angle, place], atol=1e-9)


def test_the_ceiling_is_the_score_of_a_perfect_code_over_all_combinations():
    factors = np.stack(np.unravel_index(np.arange(3 * 25 * 32), (3, 25, 32)), 1)
    assert mig_ceiling([3, 25, 32]) == pytest.approx(mig_lib(factors.astype(float), factors).value)
    assert mig_ceiling([3, 6, 40, 32, 32]) == pytest.approx(0.9024, abs=5e-5)  # dSprites
    assert mig_ceiling([2, 20]) == 1
    with pytest.raises(ChoiceError, match="two values or more"):
        mig_ceiling([3, 1])


def test_what_cannot_be_scored_is_refused(grid):
    with pytest.raises(ChoiceError, match="codes"):
        mig_lib(grid[:5], grid)
    with pytest.raises(ChoiceError, match="a single value"):
        mig_lib(grid.astype(float), np.zeros(300, int))
    with pytest.raises(ChoiceError, match="scales"):
        mig_chen(grid.astype(float), np.zeros(grid.shape), grid)


# --- dSprites ---------------------------------------------------------------------------------------------------


def number(shape, scale, turn, x, y):
    return np.ravel_multi_index((shape, scale, turn, x, y), dsprites.COUNTS)


def test_the_order_of_the_factors():
    assert dsprites.factors(np.array([0, 1, 32, 1024, 40 * 1024, 6 * 40 * 1024])).tolist() == [
        [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0],
    ]  # fmt: skip


def test_areas_are_those_of_the_shapes():
    """Pixels inside, averaged over all positions of one row: the area, exact to the pixels' edges."""
    rows = np.array([[number(s, 5, t, x, 7) for x in range(32) for t in (0, 5, 11)] for s in range(3)])
    areas = dsprites.draw(rows.ravel()).reshape(3, -1, 64, 64).sum((2, 3)).mean(1)
    t = np.linspace(0, 2 * np.pi, 100_001)
    u = 9.6 * np.sin(t) ** 3
    v = -0.663 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 1.434
    heart = abs(np.sum(u[:-1] * np.diff(v) - v[:-1] * np.diff(u))) / 2
    np.testing.assert_allclose(areas, [19.2**2, np.pi * 12.76 * 7.22, heart], rtol=0.01)


def test_position_scale_and_angle():
    corner, middle = dsprites.draw(np.array([number(0, 5, 0, 0, 31), number(0, 0, 0, 31, 0)]))
    rows, columns = np.nonzero(corner)  # x to the right, y downwards
    assert abs(columns.mean() + 0.5 - 16) <= 0.5
    assert abs(rows.mean() + 0.5 - 48) <= 0.5
    assert middle.sum() == pytest.approx(corner.sum() / 4, rel=0.06)  # half the scale
    first, last = dsprites.draw(np.array([number(2, 3, 0, 9, 9), number(2, 3, 39, 9, 9)]))
    assert (first != last).sum() <= 2  # a whole turn, to rounding
    quarter = dsprites.draw(np.array([number(1, 5, 0, 15, 15), number(1, 5, 10, 15, 15)]))
    assert quarter[0].any(0).sum() > quarter[0].any(1).sum()  # the long axis lies across
    assert quarter[1].any(0).sum() < quarter[1].any(1).sum()


def test_no_shape_is_cut():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, dsprites.Sprites.shape[0], 300)
    whole = dsprites.draw(rows)
    shape, scale, turn, x, y = dsprites.factors(rows).T
    j, i = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    dx = j - dsprites.POSITIONS[x][:, None, None]
    dy = i - dsprites.POSITIONS[y][:, None, None]
    a, s = dsprites.ORIENTATIONS[turn][:, None, None], dsprites.SCALES[scale][:, None, None]
    u, v = (np.cos(a) * dx - np.sin(a) * dy) / s, (np.sin(a) * dx + np.cos(a) * dy) / s
    np.testing.assert_array_equal(whole, dsprites.inside(shape, u, v))


def test_a_heart_is_what_its_curve_encloses():
    from matplotlib.path import Path

    t = np.linspace(0, 2 * np.pi, 20_001)
    u = 9.6 * np.sin(t) ** 3
    v = -0.663 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 1.434
    points = np.random.default_rng(0).uniform(-14, 14, (4000, 2))
    want = Path(np.stack([u, v], 1)).contains_points(points)
    got = dsprites.inside(np.array([2]), points[None, :, 0], points[None, :, 1])[0]
    assert (got != want).mean() < 0.001


def test_dsprites_by_name_are_never_in_memory():
    data = load("dsprites")
    assert len(data.train) + len(data.valid) + len(data.test) == 737_280
    assert data.factor_names == ["shape", "scale", "orientation", "x", "y"]
    assert (data.shape, data.scale) == ((1, 64, 64), (0.0, 1.0))
    assert data.train.raw.nbytes == 737_280 * 4096
    rows = np.array([3, 70_000, 5])
    some = data.train[rows]
    np.testing.assert_array_equal(some, dsprites.draw(data.train.index[rows]))
    assert [data.train.columns["x"][r] for r in rows] == dsprites.factors(data.train.index[rows])[:, 3].tolist()
    assert data.digest == load("dsprites").digest
    assert all(len(np.unique(data.test.columns[f][:500])) > 2 for f in data.factor_names)

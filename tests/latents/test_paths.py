"""Lines, grids, traversals and neighbours, against closed forms and brute force."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaekit.errors import ChoiceError
from vaekit.latents.paths import (
    interpolate,
    lerp,
    manifold_grid,
    midpoint,
    nearest,
    order_by_kl,
    slerp,
    traversal_values,
    traverse,
)

vectors = hnp.arrays(np.float64, 5, elements=st.floats(-10, 10))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@settings(max_examples=60, deadline=None)
@given(vectors, vectors, st.sampled_from(["auto", "lerp", "slerp"]))
def test_ends_are_exactly_included_and_nothing_is_nan(a, b, mode):
    line = interpolate(a, b, steps=7, mode=mode)
    assert line.shape == (7, 5)
    assert np.array_equal(line[0], a)
    assert np.array_equal(line[-1], b)
    assert np.isfinite(line).all()


@settings(max_examples=60, deadline=None)
@given(vectors, vectors)
def test_slerp_takes_the_norm_along_a_straight_line(a, b):
    norms = [float(np.linalg.norm(v)) for v in (a, b)]
    angle = math.acos(np.clip(a @ b / max(norms[0] * norms[1], 1e-300), -1, 1))
    if min(norms) < 1e-3 or angle < 1e-2:
        return  # then the line is straight
    t = np.linspace(0, 1, 9)
    got = np.linalg.norm(slerp(a, b, t), axis=1)
    np.testing.assert_allclose(got, (1 - t) * norms[0] + t * norms[1], rtol=1e-7)


def test_slerp_of_orthogonal_unit_vectors_is_a_quarter_circle():
    t = np.linspace(0, 1, 11)
    got = slerp([1.0, 0, 0], [0, 1.0, 0], t)
    want = np.stack([np.cos(t * np.pi / 2), np.sin(t * np.pi / 2), 0 * t], -1)
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_slerp_agrees_with_shoemakes_formula(rng):
    a, b = rng.normal(size=(2, 40))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    w = math.acos(a @ b)
    for t in (0.1, 0.5, 0.8):
        want = (math.sin((1 - t) * w) * a + math.sin(t * w) * b) / math.sin(w)
        np.testing.assert_allclose(slerp(a, b, t), want, atol=1e-12)


def test_slerp_between_opposite_points_stays_on_the_sphere_and_is_repeatable(rng):
    a = rng.normal(size=20)
    line = slerp(a, -a, np.linspace(0, 1, 9))
    np.testing.assert_allclose(np.linalg.norm(line, axis=1), np.linalg.norm(a), rtol=1e-9)
    assert abs(line[4] @ a) < 1e-6 * (a @ a)
    assert np.array_equal(line, slerp(a, -a, np.linspace(0, 1, 9)))


def test_slerp_from_zero_in_one_dimension_and_between_equal_points_is_straight():
    np.testing.assert_allclose(slerp(np.zeros(3), [0, 3.0, 0], 0.5), [0, 1.5, 0])
    np.testing.assert_allclose(slerp([-1.0], [1.0], [0, 0.5, 1])[:, 0], [-1, 0, 1], atol=1e-15)
    np.testing.assert_allclose(slerp([1.0, 2.0], [1.0, 2.0], 0.3), [1, 2])
    np.testing.assert_allclose(slerp([1.0, 2.0], [2.0, 4.0], 0.5), [1.5, 3])


def test_lerp_broadcasts_and_slerp_takes_batches(rng):
    a, b = rng.normal(size=(2, 6, 4))
    assert lerp(a, b, 0.25).shape == (6, 4)
    np.testing.assert_allclose(slerp(a, b, 0.25)[2], slerp(a[2], b[2], 0.25))


def test_auto_is_straight_up_to_sixteen_latents(rng):
    for dims, way in ((16, "lerp"), (17, "slerp")):
        a, b = rng.normal(size=(2, dims))
        assert np.array_equal(interpolate(a, b, steps=5), interpolate(a, b, steps=5, mode=way))
        np.testing.assert_allclose(midpoint(a, b), interpolate(a, b, steps=3)[1])


def test_interpolate_refuses_what_it_cannot_do():
    with pytest.raises(ChoiceError, match="2 or more"):
        interpolate([0.0], [1.0], steps=1)
    with pytest.raises(ChoiceError, match="length"):
        interpolate([0.0], [1.0, 2.0], steps=3)
    with pytest.raises(ChoiceError, match="slurp"):
        interpolate([0.0], [1.0], steps=3, mode="slurp")  # type: ignore[arg-type]


def test_manifold_grid_is_even_in_probability_from_the_top_left():
    grid = manifold_grid(5, low=0.1, high=0.9).reshape(5, 5, 2)
    probability = np.vectorize(NormalDist().cdf)(grid)
    np.testing.assert_allclose(probability[2, :, 0], [0.1, 0.3, 0.5, 0.7, 0.9], atol=1e-12)
    np.testing.assert_allclose(probability[:, 3, 1], [0.9, 0.7, 0.5, 0.3, 0.1], atol=1e-12)
    np.testing.assert_allclose(manifold_grid(1), [[0, 0]], atol=1e-12)
    with pytest.raises(ChoiceError, match="probabilities"):
        manifold_grid(3, low=0.0, high=1.0)


def test_traverse_changes_one_dimension_a_row(rng):
    z = rng.normal(size=6)
    found = traverse(z, [4, 1], [-1.0, 0.0, 2.0])
    assert found.shape == (2, 3, 6)
    for row, dim in enumerate((4, 1)):
        np.testing.assert_array_equal(found[row, :, dim], [-1, 0, 2])
        kept = [i for i in range(6) if i != dim]
        assert (found[row][:, kept] == z[kept]).all()
    each = traverse(z, [4, 1], [[1.0, 2], [3, 4]])
    np.testing.assert_array_equal(each[1, :, 1], [3, 4])
    with pytest.raises(ChoiceError, match=r"0\.\.5"):
        traverse(z, [6], [0.0])
    with pytest.raises(ChoiceError, match="shape"):
        traverse(z, [0, 1], [[0.0]])


def test_traversal_values_span_the_quantiles_of_the_data(rng):
    means = rng.normal(size=(1000, 3)) * [1, 5, 0]
    values = traversal_values(means, n=5, quantile=0.05)
    assert values.shape == (3, 5)
    np.testing.assert_allclose(values[:, 0], np.quantile(means, 0.05, axis=0))
    np.testing.assert_allclose(values[:, -1], np.quantile(means, 0.95, axis=0))
    np.testing.assert_allclose(np.diff(values, 2, axis=1), 0, atol=1e-12)
    with pytest.raises(ChoiceError, match="quantile"):
        traversal_values(means, n=5, quantile=0.5)


def test_order_by_kl_is_largest_first_and_stable():
    assert order_by_kl([0.1, 3, 0.1, 2]).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("block", [2**9, 2**25])
def test_nearest_agrees_with_brute_force_whatever_the_blocks(rng, monkeypatch, block):
    monkeypatch.setattr("vaekit.latents.paths.BLOCK", block)
    x, candidates = rng.integers(0, 255, (13, 2, 3)), rng.integers(0, 255, (57, 2, 3)).astype(np.uint8)
    candidates[40] = candidates[3]
    square = ((x[:, None].astype(float) - candidates[None].astype(float)) ** 2).sum((2, 3))
    index, distance = nearest(x, candidates, k=4)
    want = np.argsort(square, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(index, want)  # whole numbers: exact in float64, ties included
    np.testing.assert_array_equal(distance, np.take_along_axis(square, want, 1))


@pytest.mark.parametrize("block", [2**26, 300])
def test_nearest_expects_of_a_gap_what_the_candidates_have_there(rng, monkeypatch, block):
    monkeypatch.setattr("vaekit.latents.paths.BLOCK", block)
    x, candidates = rng.normal(size=(5, 2, 3)), rng.normal(size=(9, 2, 3))
    x[rng.random(x.shape) < 0.3] = np.nan
    candidates[rng.random(candidates.shape) < 0.3] = np.nan
    candidates[4] = np.nan
    mean, variance = np.nanmean(candidates, 0), np.nanvar(candidates, 0)
    index, square = nearest(x, candidates, k=9)
    for i in range(5):
        by_hand = []
        for c in candidates:
            gaps = np.isnan(x[i]).astype(int) + np.isnan(c)  # of two independent values both spreads count
            both = np.where(np.isnan(x[i]), mean, x[i]) - np.where(np.isnan(c), mean, c)
            by_hand.append((both**2 + gaps * variance).sum())
        np.testing.assert_allclose(square[i], np.sort(by_hand))
        np.testing.assert_array_equal(index[i], np.argsort(by_hand, kind="stable"))


def test_nearest_refuses_other_shapes_and_too_many(rng):
    with pytest.raises(ChoiceError, match="shape"):
        nearest(np.zeros((2, 3)), np.zeros((4, 2)))
    with pytest.raises(ChoiceError, match="k must"):
        nearest(np.zeros((2, 3)), np.zeros((4, 3)), k=5)

"""Measures of samples against closed forms, slow computations and known degradations."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.metrics.samples import (
    ABOVE,
    Balls,
    Blocked,
    NearestCounts,
    PlainValues,
    Reference,
    counts,
    energies,
    excess,
    frechet,
    frechet_distance,
    kernel_distance,
    learned,
    learned_features,
    neighbours,
    octaves,
    preference,
    preferred,
    ratio,
    sample_quality,
)
from vaekit.metrics.samples.detail import frequencies
from vaekit.metrics.samples.kernel import kernel_sums


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tensor(x):
    return torch.from_numpy(np.asarray(x, np.float32))


def covered(estimates, truth):
    return np.mean([one.low <= truth <= one.high for one in estimates])


# --- distances ----------------------------------------------------------------------------------------------------


def test_the_frechet_distance_is_unbiased_and_its_interval_covers_the_closed_form(rng):
    """N(0, I) against N(m, s^2 I) in D dimensions: D (m^2 + (s - 1)^2)."""
    d, n, mean, scale = 4, 150, 0.3, 1.3
    truth = d * (mean**2 + (scale - 1) ** 2)
    found, plain, equal = [], [], []
    for _ in range(80):
        a, b, c = rng.normal(size=(n, d)), rng.normal(size=(n, d)) * scale + mean, rng.normal(size=(n, d))
        found.append(frechet_distance(Blocked(a), Blocked(b)))
        equal.append(frechet_distance(Blocked(a), Blocked(c)))
        plain.append(frechet(a, c))
    values = np.array([one.value for one in found])
    error = values.std(ddof=1) / math.sqrt(80)
    assert abs(values.mean() - truth) < 3 * error
    assert np.mean([one.se for one in found]) == pytest.approx(values.std(ddof=1), rel=0.25)
    assert covered(found, truth) >= 0.88  # 0.95 - 3 standard errors of 80
    nought = np.array([one.value for one in equal])
    assert abs(nought.mean()) < 3 * nought.std(ddof=1) / math.sqrt(80)
    assert np.mean(plain) > 10 * abs(nought.mean())
    assert covered(equal, 0.0) >= 0.88


def gaussian_moments(mean, covariance):
    """The first three moments of a Gaussian, as tensors (Isserlis 1918)."""
    second = covariance + np.outer(mean, mean)
    third = np.einsum("i,j,k->ijk", mean, mean, mean)
    for order in ("ij,k->ijk", "ik,j->ijk", "jk,i->ijk"):
        third = third + np.einsum(order, covariance, mean)
    return mean, second, third


def expected_kernel(a, b):
    """E (x . y / D + 1)^3 for independent x and y, by their moments."""
    d = len(a[0])
    powers = [float((one * other).sum()) / d**p for p, (one, other) in enumerate(zip(a, b, strict=True), 1)]
    return powers[2] + 3 * powers[1] + 3 * powers[0] + 1


def test_the_kernel_distance_has_the_expectation_of_gaussians(rng):
    d, n = 3, 120
    first = (np.array([0.2, 0.0, -0.1]), np.diag([1.0, 0.5, 1.5]))
    second = (np.array([0.0, 0.4, 0.1]), np.array([[1.0, 0.3, 0.0], [0.3, 1.2, 0.0], [0.0, 0.0, 0.7]]))
    x, y = gaussian_moments(*first), gaussian_moments(*second)
    truth = expected_kernel(x, x) + expected_kernel(y, y) - 2 * expected_kernel(x, y)
    found = []
    for _ in range(80):
        a, b = (rng.multivariate_normal(*moments, n) for moments in (first, second))
        found.append(kernel_distance(Blocked(a), Blocked(b)))
    values = np.array([one.value for one in found])
    assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / math.sqrt(80)
    assert covered(found, truth) >= 0.88
    assert expected_kernel(x, x) == pytest.approx(
        np.mean((np.sum(rng.multivariate_normal(*first, 200_000) * rng.multivariate_normal(*first, 200_000), 1) / d + 1)
                ** 3), rel=0.03)  # fmt: skip


def test_the_kernel_distance_is_that_of_a_slow_loop(rng):
    a, b = rng.normal(size=(31, 4)), rng.normal(size=(27, 4)) + 0.5
    k = lambda x, y: (x @ y / 4 + 1) ** 3  # noqa: E731
    within = [np.mean([k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]) for x in (a, b)]
    slow = sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(Blocked(a), Blocked(b)).value == pytest.approx(slow, rel=1e-4)
    assert kernel_sums(Blocked(a), Blocked(b)).sum() == pytest.approx(sum(k(x, y) for x in a for y in b), rel=1e-5)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_the_jackknife_is_that_of_data_without_each_block(measure, rng):
    a, b = rng.normal(size=(60, 3)), rng.normal(size=(45, 3)) + 1
    first, second = Blocked(a), Blocked(b)
    found = measure(first, second)
    plain = (lambda x, y: frechet(x, y)) if measure is frechet_distance else lambda x, y: measure(
        Blocked(x), Blocked(y)).value  # fmt: skip
    x, y = first.x.numpy(), second.x.numpy()
    left = [plain(x[first.code != i], y) for i in range(25)], [plain(x, y[second.code != i]) for i in range(25)]
    variance = sum(24 / 25 * np.sum((np.array(part) - np.mean(part)) ** 2) for part in left)
    assert found.se == pytest.approx(math.sqrt(variance), rel=1e-3)
    value = plain(x, y)
    if measure is frechet_distance:
        value -= sum(24 * (np.mean(part) - value) for part in left)
    assert found.value == pytest.approx(value, rel=1e-3)


def test_errors_are_by_group(rng):
    """Ten copies of each datum in a group: its error is about sqrt 10 times that of as many independent data."""
    a, b = np.repeat(rng.normal(size=(60, 3)), 10, 0), rng.normal(size=(600, 3)) + 1
    group = np.repeat(np.arange(60), 10)
    grouped, plain = (frechet_distance(Blocked(a, g), Blocked(b)).se for g in (group, None))
    assert grouped > 1.7 * plain
    assert len(np.unique(Blocked(a, group).code)) == 25
    for start in range(0, 600, 10):
        rows = np.isin(Blocked(a, group).order, range(start, start + 10))
        assert len(np.unique(Blocked(a, group).code[rows])) == 1
    with pytest.raises(ChoiceError, match="one group"):
        Blocked(a, np.zeros(600))
    with pytest.raises(ChoiceError, match="not finite"):
        Blocked(np.full((5, 2), np.nan))


@pytest.mark.parametrize("n", [64, 128, 192])
def test_a_frechet_distance_is_only_measured_from_enough_rows_for_its_features(n, rng):
    """In 64 features it is above 0 for few data; in principal components, there are as many as the data allow."""
    data, x = four_of(rng, n, (64,))
    reference = Reference(data, features="raw")
    assert reference.features.size == min(32, n // 3)
    few = reference.measure(x)[0].estimate
    assert few.low < 0 < few.high
    reference = Reference(data, features="raw")
    reference.features = lambda x: x  # 64 features that know nothing of the data
    reference.features.size = 64
    apart = reference.measure(x)[0]
    assert apart.name == "frechet_distance"
    if n < 128:
        assert math.isnan(apart.estimate.value)
        assert apart.as_json()["value"] is None
    else:
        assert apart.estimate.low < 0 < apart.estimate.high


# --- neighbours ---------------------------------------------------------------------------------------------------


def slow_neighbours(real, samples, k):
    """Precision, recall, density and coverage by loops over pairs."""
    far = lambda a, b: float(np.sqrt(((a - b) ** 2).sum()))  # noqa: E731
    radius = [
        [sorted(far(x, y) for j, y in enumerate(rows) if j != i)[k - 1] for i, x in enumerate(rows)]
        for rows in (real, samples)
    ]
    inside = [[far(x, y) <= r for x, r in zip(real, radius[0], strict=True)] for y in samples]
    recalled = [[far(x, y) <= r for y, r in zip(samples, radius[1], strict=True)] for x in real]
    covered = [any(inside[j][i] for j in range(len(samples))) for i in range(len(real))]
    return np.mean([any(row) for row in inside]), np.mean([any(row) for row in recalled]), \
        np.mean([sum(row) / k for row in inside]), np.mean(covered)  # fmt: skip


@pytest.mark.parametrize("k", [1, 3])
def test_precision_recall_density_and_coverage_are_those_of_slow_loops(k, rng):
    real, samples = rng.normal(size=(70, 3)), rng.normal(size=(50, 3)) * 0.8 + 0.4
    found = neighbours(Balls(Blocked(real), k), Balls(Blocked(samples), k))
    assert [one.value for one in found] == pytest.approx(slow_neighbours(real, samples, k), abs=1e-6)


def test_hand_made_sets_have_the_measures_that_they_must_have(rng):
    at = np.repeat([[0.0, 0], [50, 0], [0, 50], [50, 50]], 100, 0)
    real, again = (rng.normal(size=(400, 2)) + at for _ in range(2))

    def measured(samples):
        return [one.value for one in neighbours(Balls(Blocked(real)), Balls(Blocked(samples)))]

    assert measured(real + 1000) == [0, 0, 0, 0]
    precision, recall, density, coverage = measured(real)
    assert (precision, recall, coverage) == (1, 1, 1)
    assert density == pytest.approx(6 / 5, rel=0.01)  # each sample is in its own ball too
    same = measured(again)
    assert min(same[0], same[1]) > 0.9
    dropped = measured(np.concatenate([again[:200], again[:200] + 0.01 * rng.normal(size=(200, 2))]))
    assert dropped[0] > 0.9
    assert dropped[1] < 0.5
    assert dropped[3] < 0.5
    invented = measured(np.concatenate([again[:200], again[200:] + 500]))
    assert invented[0] == pytest.approx(0.5, abs=0.05)
    few = np.round(real[:, :1] / 10)  # data that repeat have balls of radius 0, which hold their copies
    assert [one.value for one in neighbours(Balls(Blocked(few)), Balls(Blocked(few)))][:2] == [1, 1]
    with pytest.raises(ChoiceError, match=r"must lie in 1\.\.399"):
        Balls(Blocked(real), 400)


def test_intervals_of_neighbours_cover_as_often_as_they_say(rng):
    found = []
    for _ in range(60):
        a, b = rng.normal(size=(300, 4)), rng.normal(size=(300, 4)) * 1.2 + 0.2
        found.append(neighbours(Balls(Blocked(a)), Balls(Blocked(b))))
    for each in zip(*found, strict=True):
        values = np.array([one.value for one in each])
        assert np.mean([one.se for one in each]) == pytest.approx(values.std(ddof=1), rel=0.45)
        assert covered(each, values.mean()) >= 0.87


# --- memorisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_fresh_samples_are_not_flagged_and_the_interval_covers_as_often_as_it_says(times, rng):
    draw = lambda n: tensor(rng.normal(size=(n, 4)))  # noqa: E731
    found = [preference(draw(150), draw(150 * times), draw(150)) for _ in range(150)]
    assert np.mean([one.value for one in found]) == pytest.approx(0.5, abs=0.01)
    assert 0.90 <= covered(found, 0.5) <= 1.0
    values = np.array([one.value for one in found])
    assert np.mean([one.se for one in found]) == pytest.approx(values.std(ddof=1), rel=0.2)


def test_copies_of_training_data_are_flagged(rng):
    train, held_out, fresh = (rng.normal(size=(n, 4)) for n in (900, 300, 300))
    copies = train[:300] + 1e-3 * rng.normal(size=(300, 4))
    all_copied = preference(tensor(copies), tensor(train), tensor(held_out))
    assert all_copied.value == 1
    least = 0.025 ** (1 / 300)  # Clopper and Pearson, for the share of samples; 3 training data per held-out one
    assert all_copied.low == pytest.approx(least / (least + 3 * (1 - least)))
    some = np.concatenate([copies[:100], fresh[100:]])  # a third: p = 1/3 + 2/3 3/4, and 3 training per held-out datum
    third = preference(tensor(some), tensor(train), tensor(held_out))
    share = 1 / 3 + 2 / 3 * 3 / 4
    assert third.low < share / (share + 3 * (1 - share)) < third.high
    assert third.low > 0.5
    of_held_out = preference(tensor(held_out + 1e-3), tensor(train), tensor(held_out))
    assert of_held_out.value == 0
    assert of_held_out.high < 0.02
    chance = preference(tensor(fresh[:8]), tensor(train), tensor(held_out[:2] + 100))  # two data that are far from all
    assert chance.value == 1
    assert chance.low < 0.5  # 8 of 8 are nearest to one of 450 times as many training data


def four_of(rng, n, shape=(100,), **options):
    """Independent data of one distribution without structure: a data set with n data in each split, and n more."""
    x = rng.normal(size=(4 * n, *shape)).astype(np.float32)
    splits = {name: np.arange(i * n, (i + 1) * n) for i, name in enumerate(("train", "valid", "test"))}
    return vk.from_arrays(x[: 3 * n], splits=splits, **options), x[3 * n :]


@pytest.mark.parametrize(("n", "times"), [(60, 24), (150, 21), (500, 4)])
def test_memorisation_is_unbiased_for_data_without_structure(n, times, rng):
    """In features that were fitted to training data, the preference would be 0.09, 0.25 and 0.39 instead of 0.5."""
    found = []
    for _ in range(times):
        data, fresh = four_of(rng, n)
        found.append(next(one for one in Reference(data, features="raw").measure(fresh) if one.name == "memorisation"))
    for estimates, truth in (([q.estimate for q in found], 0.5), ([q.parts[ABOVE] for q in found], 0.0)):
        values = np.array([one.value for one in estimates])
        assert abs(values.mean() - truth) < 3.3 * values.std(ddof=1) / math.sqrt(times)
        assert covered(estimates, truth) >= 0.95 - 3.3 * math.sqrt(0.05 * 0.95 / times)
        if times > 20:
            assert np.mean([one.se for one in estimates]) == pytest.approx(values.std(ddof=1), rel=0.35)


@pytest.mark.parametrize(("n", "share", "shape"), [(150, 0.4, (100,)), (500, 0.2, (100,)), (150, 0.4, (300,))])
def test_copies_among_data_without_structure_are_found(n, share, shape, rng):
    """Of as many training as held-out data, copies make the preference 0.5 + share / 2; beyond 128 values, too."""
    found = []
    for _ in range(8):
        data, x = four_of(rng, n, shape)
        x[: int(share * n)] = data.train[: int(share * n)]
        found.append(next(q for q in Reference(data, features="raw").measure(x) if q.name == "memorisation"))
    above = [q.parts[ABOVE] for q in found]
    assert sum(one.low > 0 for one in above) >= 6
    assert sum(q.estimate.low < 0.5 + share / 2 < q.estimate.high for q in found) >= 6
    assert np.mean([one.value for one in above]) == pytest.approx(share / 2, abs=3.3 * above[0].se / math.sqrt(8))
    assert found[0].as_json()["parts"][ABOVE]["low"] == above[0].low


def test_a_split_by_time_is_no_memorisation(rng):
    """Validation data and samples are both nearer to early than to late data: the difference is 0."""
    data, x = four_of(rng, 300, (5,))
    late = data.events(data.test[:]) + 1
    one = next(q for q in Reference(data, late, features="raw").measure(x) if q.name == "memorisation")
    assert one.estimate.low > 0.6
    assert one.parts[ABOVE].low < 0 < one.parts[ABOVE].high


def test_the_difference_of_preferences_is_paired(rng):
    """Data that attract samples attract real data, too; its error is that of repeated samples and data."""
    draw = lambda n: tensor(rng.normal(size=(n, 30)))  # noqa: E731
    found, apart = [], []
    for _ in range(60):
        train, held_out = draw(120), draw(120)
        own, real = (counts(draw(120), train, held_out) for _ in range(2))
        found.append(excess(own, real))
        apart.append(math.hypot(preferred(own).se, preferred(real).se))
    deviation = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.se for one in found]) == pytest.approx(deviation, rel=0.3)
    assert np.mean([one.se for one in found]) < 0.9 * np.mean(apart)
    group = np.arange(120)
    assert excess(own, real, train_group=group, held_out_group=group).se == pytest.approx(found[-1].se)
    copies = NearestCounts(np.ones(120), np.zeros(120))
    p, f = preferred(copies), preferred(real)
    assert excess(copies, real).low == pytest.approx(1 - f.value - math.hypot(1 - p.low, f.high - f.value))


def test_values_treat_training_and_held_out_data_alike(rng):
    x = rng.normal(size=(50, 4)) * [1.0, 5.0, 1e-3, 0.0] + [0, 100, 0, 7]
    forward, backward = (PlainValues(4, iter(blocks)) for blocks in ((x[:30], x[30:]), (x[30:], x[:30])))
    np.testing.assert_allclose(forward.scale, [*x[:, :3].std(0), 1.0], rtol=1e-6)
    np.testing.assert_allclose(forward(x), backward(x), rtol=1e-5)
    assert forward.text == "standardised values"
    wide = rng.normal(size=(40, 1, 20, 20))
    projected = PlainValues(400)(wide).astype(float)
    true = ((wide[:20] - wide[20:]) ** 2).sum((1, 2, 3))
    ratios = ((projected[:20] - projected[20:]) ** 2).sum(1) / true
    assert ratios.mean() == pytest.approx(1, abs=3 * math.sqrt(2 / 128 / 20) + 0.05)
    assert ratios.std() == pytest.approx(math.sqrt(2 / 128), rel=0.6)


def test_the_preference_is_a_count_of_nearest_data(rng):
    train, held_out, samples = (rng.normal(size=(n, 3)) for n in (40, 40, 25))
    far = lambda rows: ((samples[:, None] - rows[None]) ** 2).sum(-1).min(1)  # noqa: E731
    share = np.mean(far(train) < far(held_out))
    assert preference(tensor(samples), tensor(train), tensor(held_out)).value == pytest.approx(share)
    assert preference(tensor(samples), tensor(train), tensor(train)).value == pytest.approx(0.5)  # ties count half


def test_the_error_of_memorisation_is_by_group(rng):
    """Groups are apart, and some attract more samples: with them, there are 10 units of either kind, not 200."""
    at = rng.normal(size=(20, 3)) * 5
    draw = lambda groups: at[groups] + 0.1 * rng.normal(size=(len(groups), 3))  # noqa: E731
    train, held_out = draw(np.repeat(np.arange(10), 20)), draw(np.repeat(np.arange(10, 20), 20))
    samples = draw(rng.choice(20, 400, p=rng.dirichlet(np.ones(20))))
    group = np.repeat(np.arange(10), 20)
    plain = preference(tensor(samples), tensor(train), tensor(held_out))
    grouped = preference(tensor(samples), tensor(train), tensor(held_out), train_group=group, held_out_group=group)
    assert plain.value == grouped.value
    assert grouped.se > 1.5 * plain.se


def test_a_ratio_of_means_has_the_interval_of_its_logarithm(rng):
    found = [ratio(rng.exponential(size=80), rng.exponential(2.0, size=100)) for _ in range(300)]
    assert covered(found, 0.5) >= 0.91
    assert math.isnan(ratio(np.zeros(3), np.zeros(3)).value)


# --- blur ---------------------------------------------------------------------------------------------------------


def test_filtered_images_have_the_energies_of_the_transfer_function(rng):
    """A symmetric kernel h multiplies a cosine coefficient by h_0 + 2 sum_j h_j cos(2 pi j f), per axis."""
    x = rng.normal(size=(30, 2, 12, 16))
    kernel = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    seen = correlate1d(correlate1d(x, kernel, 2, mode="reflect"), kernel, 3, mode="reflect")
    gain = [
        0.4 + sum(2 * kernel[2 + j] * np.cos(2 * np.pi * j * np.arange(side) / (2 * side)) for j in (1, 2))
        for side in (12, 16)
    ]
    from scipy.fft import dctn

    power = dctn(x, axes=(2, 3), norm="ortho") ** 2 * (gain[0][:, None] * gain[1]) ** 2
    found = energies(seen)
    for name, mask in octaves((12, 16)).items():
        np.testing.assert_allclose(found[name], power[..., mask].sum((1, 2)), rtol=1e-4, atol=1e-6)


def test_blur_of_white_noise_is_the_mean_of_the_squared_gain(rng):
    x, fresh = (rng.normal(size=(400, 1, 16, 16)) for _ in range(2))
    seen = gaussian_filter(x, (0, 0, 0.8, 0.8), truncate=6)
    one_axis = np.exp(-0.5 * (0.8 * 2 * np.pi * np.arange(16) / 32) ** 2)  # to within the sampling of the kernel
    data = energies(fresh)
    for name, mask in octaves((16, 16)).items():
        expected = float(((one_axis[:, None] * one_axis) ** 2)[mask].mean())
        found = ratio(energies(seen)[name], data[name])
        assert found.value == pytest.approx(expected, rel=0.15)
        own = ratio(energies(x)[name], data[name])
        assert own.low < 1 < own.high


def test_octaves_are_disjoint_and_hold_all_but_the_slowest_frequencies():
    masks = octaves((28, 28))
    assert next(iter(masks)) == "0.25 and more cycles per pixel"
    assert (sum(mask.astype(int) for mask in masks.values()) <= 1).all()
    assert frequencies((28, 28))[sum(masks.values()) == 0].max() < 0.0625
    assert frequencies((4,)).tolist() == [0, 0.125, 0.25, 0.375]
    with pytest.raises(ChoiceError, match="images"):
        energies(np.zeros((5, 3)))


# --- learned features ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return vk.load("digits")


@pytest.fixture(scope="module")
def seen(digits):
    return learned_features(digits)


def degradations(x, label, rng):
    """Sets of images of growing degradation, by kind."""
    yield "noise", [np.clip(x + s * rng.normal(size=x.shape), 0, 16) for s in (1.5, 3, 6)]
    yield "blur", [gaussian_filter(x, (0, 0, s, s)) for s in (0.4, 0.7, 1.5)]
    yield "dropped classes", [x[label >= c][rng.integers((label >= c).sum(), size=len(x))] for c in (3, 6, 8)]
    yield "mixed with others", [w * x + (1 - w) * np.roll(x, 1, 0) for w in (0.85, 0.7, 0.5)]


def test_distances_in_learned_features_grow_with_each_degradation(digits, seen, rng):
    """So does what precision, recall and coverage lose, where a degradation is about them."""
    rows = slice(0, 700)
    held_out = np.concatenate([digits.events(part[:]) for part in (digits.valid, digits.test)])
    real = Blocked(seen(held_out))
    balls, x, label = Balls(real), digits.events(digits.train[rows]).astype(float), digits.train.label[rows]
    whole = frechet_distance(real, Blocked(seen(x)))
    near = neighbours(balls, Balls(Blocked(seen(x))))
    assert abs(whole.value) < 3 * whole.se
    for kind, sets in degradations(x, label, rng):
        rows_of = [Blocked(seen(one)) for one in sets]
        distances = [whole.value, *(frechet_distance(real, one).value for one in rows_of)]
        assert distances == sorted(distances), kind
        kernels = [0.0, *(kernel_distance(real, one).value for one in rows_of)]
        assert kernels == sorted(kernels), kind
        measured = [near, *(neighbours(balls, Balls(one)) for one in rows_of)]
        coverages = [one.coverage.value for one in measured]
        assert coverages == sorted(coverages, reverse=True), kind
        if kind == "dropped classes":
            recalls = [one.recall.value for one in measured]
            assert recalls == sorted(recalls, reverse=True)
            assert measured[-1].precision.value > 0.9 * near.precision.value
        else:
            for less, more in itertools.pairwise(one.precision for one in measured):
                assert more.value <= less.value + 2 * less.se, kind
            assert measured[-1].precision.high < near.precision.low, kind


def test_features_are_the_same_again_and_are_stored(digits, tmp_path):
    found = learned_features(digits, steps=6, folder=tmp_path)
    x = digits.events(digits.test[:])
    known = found(x)
    torch.rand(3)  # the state of torch's generator changes nothing
    assert np.array_equal(learned_features(digits, steps=6)(x), known)
    assert not np.allclose(learned_features(digits, steps=6, seed=1)(x), known)
    file = tmp_path / learned.FILE
    before = file.stat().st_mtime_ns
    assert np.array_equal(learned_features(digits, steps=6, folder=tmp_path)(x), known)
    assert file.stat().st_mtime_ns == before
    learned_features(digits, steps=5, folder=tmp_path)
    assert file.stat().st_mtime_ns != before
    file.write_bytes(b"damaged")
    assert np.array_equal(learned_features(digits, steps=6, folder=tmp_path)(x), known)
    standard = found(digits.events(digits.train[:5000]))
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(0), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "kind"), [((7,), "vector"), ((3, 20), "signal"), ((30,), "counts"), ((3, 9, 70), "image")]
)
def test_every_kind_of_data_has_features(shape, kind, rng):
    x = rng.normal(size=(60, *(shape[1:] + shape[:1] if kind in ("signal", "image") else shape)))
    x = rng.poisson(np.exp(x)) if kind == "counts" else (255 * rng.random(x.shape)).astype(np.uint8) if (
        kind == "image") else x.astype(np.float32)  # fmt: skip
    data = vk.from_arrays(x, kind=kind)
    found = learned_features(data, steps=3)(data.events(data.test[:]))
    assert found.shape == (len(data.test), 64)
    assert np.isfinite(found).all()


def test_rows_of_a_table_whose_columns_do_not_fit_together_are_found(rng):
    """Shuffled columns have the same marginal distributions; only their dependence is lost."""
    z = rng.normal(size=(1500, 1))
    x = np.concatenate([z, -z, z], 1) + 0.1 * rng.normal(size=(1500, 3))
    data = vk.from_arrays(x.astype(np.float32), test=0.3)
    shuffled = np.stack([rng.permutation(column) for column in data.train[:450].T], 1)
    found = sample_quality(shuffled, data)
    assert found["frechet_distance"].estimate.low > found["frechet_distance"].floor.high
    assert found["sample_precision"].estimate.high < 0.6
    assert found["sample_precision"].floor.low > 0.8
    assert "sharpness" not in found


# --- the reference ------------------------------------------------------------------------------------------------


def test_a_reference_measures_samples_of_any_generator(digits, rng):
    reference = Reference(digits, features="raw")
    fresh = {one.name: one for one in reference.measure(digits.events(digits.valid[:]))}
    for name, one in fresh.items():
        apart = math.hypot(one.estimate.se, one.floor.se)
        assert abs(one.estimate.value - one.floor.value) < 4 * apart, name
        assert one.as_json()["floor"]["value"] == one.floor.value
    x = digits.events(digits.train[rng.choice(len(digits.train), 180, replace=False)])
    copied = {one.name: one for one in reference.measure(x)}
    assert copied["memorisation"].estimate.low > 0.8
    assert copied["memorisation"].floor.low < 0.5 < copied["memorisation"].floor.high
    assert copied["sample_recall"].relative == pytest.approx(1, abs=0.1)
    real = reference.features(reference.real)
    drawn = reference.features(x)
    plain = frechet(drawn, real) / reference.features.size
    assert copied["frechet_distance"].estimate.value < plain < copied["frechet_distance"].estimate.value + 0.1
    assert next(iter(copied["sharpness"].parts)).startswith("0.25 and more")
    with pytest.raises(ChoiceError, match=r"samples have shape \(m, 1, 8, 8\)"):
        reference.measure(np.zeros((5, 8, 8)))


def test_data_that_are_not_numbers_without_gaps_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    x[::4, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ChoiceError, match="--synthetic sample"):
        Reference(vk.load(tmp_path / "x.npy", missing="mask"))

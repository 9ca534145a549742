"""Pictures and codes measured: closed forms."""

import numpy as np
import pytest

from vaekit.errors import ChoiceError
from vaekit.metrics.codes import cluster_agreement, knn_correct, probe_correct, silhouettes
from vaekit.metrics.images import median_filter, psnr, radial_power, ssim
from vaekit.metrics.samples import Components, frechet


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_psnr_of_a_known_error():
    clean = np.zeros((2, 1, 4, 4))
    np.testing.assert_allclose(psnr(clean, clean + 0.1, 1.0), 20.0)
    assert np.isinf(psnr(clean, clean, 1.0)).all()
    with pytest.raises(ChoiceError, match="the same shape"):
        psnr(clean, clean[:1], 1.0)


def test_ssim_of_equal_flat_and_unlike_pictures(rng):
    x = rng.random((3, 1, 16, 16))
    np.testing.assert_allclose(ssim(x, x, 1.0), 1.0)
    a, b = np.full((1, 1, 12, 12), 0.2), np.full((1, 1, 12, 12), 0.6)
    np.testing.assert_allclose(ssim(a, b, 1.0), (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    y = rng.random((3, 1, 16, 16))
    np.testing.assert_allclose(ssim(x, y, 1.0), ssim(y, x, 1.0))
    assert (ssim(x, y, 1.0) < 0.5).all()
    assert ssim(x[..., :8, :8], x[..., :8, :8] + 0.1, 1.0).shape == (3,)
    np.testing.assert_allclose(ssim(x, y, 1.0), ssim(255 * x, 255 * y, 255.0))


def test_ssim_is_a_weighted_sum_over_windows(rng):
    """One window: the formula of Wang et al. written out."""
    a, b = rng.random((2, 1, 1, 11, 11))
    line = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    w = np.outer(line, line) / line.sum() ** 2
    ma, mb = (w * a[0, 0]).sum(), (w * b[0, 0]).sum()
    va, vb = (w * (a[0, 0] - ma) ** 2).sum(), (w * (b[0, 0] - mb) ** 2).sum()
    c = (w * (a[0, 0] - ma) * (b[0, 0] - mb)).sum()
    want = (2 * ma * mb + 1e-4) * (2 * c + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    np.testing.assert_allclose(ssim(a, b, 1.0), want)


def test_median_filter_agrees_with_scipy(rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = rng.random((2, 3, 9, 7))
    np.testing.assert_array_equal(median_filter(x, side=3), ndimage.median_filter(x, (1, 1, 3, 3), mode="nearest"))
    with pytest.raises(ChoiceError, match="odd"):
        median_filter(x, side=4)


def test_a_wave_has_its_power_at_its_frequency():
    column = np.arange(32)
    wave = np.tile(np.sin(2 * np.pi * 5 * column / 32), (32, 1))[None, None]
    frequency, power = radial_power(wave + 3)
    assert frequency[power[0].argmax()] == 5 / 32
    assert power[0, np.arange(16) != 4].max() < 1e-20


def test_white_noise_is_flat_and_sums_to_its_variance(rng):
    x = rng.normal(size=(400, 1, 16, 16))
    frequency, power = radial_power(x)
    np.testing.assert_allclose(power.mean(0), 1 / 256, rtol=0.1)
    assert frequency[-1] == 0.5


def test_frechet_of_gaussians_by_their_moments(rng):
    a = rng.normal(size=(4000, 3))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + np.array([3.0, 0, 0])) == pytest.approx(9, abs=1e-6)
    assert frechet(a, 2 * a) == pytest.approx(np.cov(a.T).trace() + ((a.mean(0)) ** 2).sum(), rel=1e-6)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    b = a * [1.0, 2, 3]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-9)


def test_components_are_those_of_a_singular_value_decomposition(rng):
    x = rng.normal(size=(50, 2, 3)) * [1, 2, 3]
    found = Components(x, 2)
    _, size, axes = np.linalg.svd(x.reshape(50, 6) - x.reshape(50, 6).mean(0), full_matrices=False)
    np.testing.assert_allclose(found.variances, size[:2] ** 2 / 50)
    np.testing.assert_allclose(np.abs(found.axes.T @ axes[:2].T), np.eye(2), atol=1e-9)
    whole = Components(x, 6)
    np.testing.assert_allclose(whole.reconstruct(x), x, atol=1e-9)


def test_codes_that_know_the_class_and_codes_that_do_not(rng):
    label = np.arange(300) % 3
    good = rng.normal(size=(300, 2)) * 0.1 + np.array([[0, 0], [5, 0], [0, 5]])[label]
    bad = rng.normal(size=(300, 2))
    for correct in (knn_correct, probe_correct):
        assert correct(good[:150], label[:150], good[150:], label[150:]).mean() == 1
        assert correct(bad[:150], label[:150], bad[150:], label[150:]).mean() < 0.5
    assert silhouettes(good, label).mean() > 0.9
    assert abs(silhouettes(bad, label).mean()) < 0.1
    assert cluster_agreement(good, label).max() == 1
    assert np.abs(cluster_agreement(bad, label)).max() < 0.05
